"""Where the applications of these tests write what they do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

#: A builtin of every application.
said: list[Any] = []


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("builtins.said", said, raising=False)
    yield
    said.clear()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What genwsgi logs, as text: pytest would keep the tracebacks, and the generation by them."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, ear = logging.getLogger("genwsgi"), Ear()
    log.addHandler(ear)
    log.propagate = False
    yield lines
    log.propagate = True
    log.removeHandler(ear)

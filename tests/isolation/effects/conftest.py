"""Where the applications of these tests write what they do."""

from __future__ import annotations

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

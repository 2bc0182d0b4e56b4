from __future__ import annotations

import importlib.metadata
import logging
import sys
from pathlib import Path

import pytest

from genwsgi.isolation import known
from tests.isolation.sources import write


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points have not been read yet in this process."""
    monkeypatch.setattr(known, "_declared", None)


def test_declared_by_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package says with an entry point that it keeps a registry; nothing of it is loaded."""
    write(
        tmp_path,
        {
            "acme-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n",
            "acme-1.0.dist-info/entry_points.txt": "[genwsgi.registries]\n"
            "acme_metrics = acme_metrics.core:REGISTRY\ndjango = acme.other\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = known.registries()
    assert found["acme_metrics"] == "acme_metrics.core:REGISTRY (says acme)"
    assert found["django"] == known.REGISTRIES["django"], "the table goes before what others say"
    assert "acme_metrics" not in sys.modules
    assert known.registries() is found


def test_entry_points_that_can_t_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged installation is logged; the table is there all the same."""

    def fail(**_: str) -> None:
        raise ValueError("damaged")

    monkeypatch.setattr(importlib.metadata, "entry_points", fail)
    with caplog.at_level(logging.ERROR, logger="genwsgi"):
        assert known.registries() == known.REGISTRIES
    assert "genwsgi.registries" in caplog.text

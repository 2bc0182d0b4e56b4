"""A site that leaves the process as it found it, whatever a test did with it."""

from __future__ import annotations

import atexit
import inspect
import linecache
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.isolation import imports, late, sources, view
from genwsgi.isolation.effects import threads
from tests.isolation.sources import Site


def process() -> dict[str, Any]:
    """What must be the same after everything is closed."""
    return {
        "modules": type(sys.modules),
        "proxies": [n for n, m in sys.modules.copy().items() if type(m) is view.ModuleProxy],
        "path": list(sys.path),
        "meta_path": list(sys.meta_path),
        "path_hooks": list(sys.path_hooks),
        "find_and_load": imports.bootstrap._find_and_load,
        "lines": [linecache.lazycache, linecache.getlines, linecache.updatecache],
        "findsource": inspect.findsource,
        "extract": getattr(traceback.StackSummary, sources._EXTRACT).__func__,
        "spawn": getattr(sys.modules.get("multiprocessing.spawn"), "get_preparation_data", None),
        "late": set(late._waiting),
        "register": atexit.register,
        "signal": signal.signal,
        "call_handlers": logging.Logger.callHandlers,
        "handlers": "handlers" in vars(logging.Logger),
        "start": getattr(threading, threads.START),
        "root": list(logging.getLogger().handlers),
        "finders": [
            p for p, f in sys.path_importer_cache.items() if type(f).__name__ == "ScopeFolderFinder"
        ],
    }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site in a process that is as it was before when the test is over."""
    before = process()
    made = Site(tmp_path)
    try:
        yield made
    finally:
        pending = getattr(made, "pending", None)
        if pending is not None:
            pending.close()
        made.live.close()
    assert process() == before

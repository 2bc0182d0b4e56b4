"""A site that leaves the process as it found it, whatever a test did with it."""

from __future__ import annotations

import atexit
import builtins
import codecs
import copyreg
import functools
import gc
import inspect
import linecache
import logging
import logging.config
import mimetypes
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import traceback
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.isolation import imports, late, sources, view
from genwsgi.isolation.effects import hooks, threads
from tests.isolation.sources import Site

#: What effects replace while they are written down.
PATCHED: list[tuple[Any, tuple[str, ...]]] = [
    (atexit, ("register", "unregister")),
    (codecs, ("register", "unregister", "register_error")),
    (copyreg, ("pickle", "add_extension")),
    (functools, ("singledispatch",)),
    (logging, ("_addHandlerRef", "setLoggerClass", "getLoggerClass", "captureWarnings")),
    (logging.config, ("_clearExistingHandlers", "_handle_existing_loggers")),
    (logging.Logger, ("handle", "handlers")),
    (logging.Filterer, ("filters",)),
    (logging.Manager, ("getLogger",)),
    (mimetypes, ("add_type", "init", "guess_type", "guess_all_extensions", "guess_extension")),
    (gc, ("enable", "disable", "set_threshold")),
    (os, ("register_at_fork", "chdir", "fchdir", "umask")),
    (type(os.environ), ("__setitem__", "__delitem__")),
    (signal, ("signal", "getsignal")),
    (sqlite3, ("register_adapter", "register_converter")),
    (sqlite3.dbapi2, ("register_adapter", "register_converter")),
    (urllib.request, ("install_opener",)),
    (subprocess.Popen, ("__init__",)),
    (sys, ("setrecursionlimit", "setswitchinterval")),
    (threading, (threads.START, "_register_atexit")),
    (warnings, ("_add_filter",)),
]

#: Where nothing of a generation may be left.
REGISTRIES: list[Any] = [
    copyreg.dispatch_table,
    copyreg._extension_registry,  # type: ignore[attr-defined]
    sqlite3.adapters,
    sqlite3.converters,
]


def process() -> dict[str, Any]:
    """What must be the same after everything is closed."""
    return {
        "modules": type(sys.modules),
        "proxies": [n for n, m in sys.modules.copy().items() if type(m) is view.ModuleProxy],
        "lists": [id(one) for one in (sys.path, sys.meta_path, sys.path_hooks, gc.callbacks)],
        "path": list(sys.path),
        "meta_path": list(sys.meta_path),
        "path_hooks": list(sys.path_hooks),
        "find_and_load": imports.bootstrap._find_and_load,
        "import": builtins.__import__,
        "lines": [linecache.lazycache, linecache.getlines, linecache.updatecache],
        "findsource": inspect.findsource,
        "extract": getattr(traceback.StackSummary, sources._EXTRACT).__func__,
        "spawn": getattr(sys.modules.get("multiprocessing.spawn"), "get_preparation_data", None),
        "late": set(late._waiting),
        "functions": [
            (owner.__name__, name, vars(owner).get(name))
            for owner, names in PATCHED
            for name in names
        ],
        "registries": [table.copy() for table in REGISTRIES],
        "hooks": hooks.look(),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "filters": list(warnings.filters),
        "callbacks": list(gc.callbacks),
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
        made.close()
    after = process()
    left = {key: (before[key], now) for key, now in after.items() if now != before[key]}
    assert not left, left

"""A configuration file for the server: each worker tells what is alive in it, when it is asked.

A worker answers each connection to the unix socket ``$CENSUS/PID`` with one line of JSON, from a
thread of its own, and has collected no garbage before: what is to be gone is gone by itself.
The figures are those of :class:`tests.frameworks.served.Census`.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import socket
import sys
import threading
import traceback
from typing import Any


def post_worker_init(worker: Any) -> None:
    """Begin to answer; gunicorn calls this in each worker before it takes a request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(os.environ["CENSUS"], str(os.getpid())))
    listener.listen()
    threading.Thread(target=_answer, args=(listener,), name="census", daemon=True).start()


def _answer(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                told = _count()
            except Exception:  # noqa: BLE001 -- whoever asked has to see why
                told = {"error": traceback.format_exc()}
            connection.sendall(json.dumps(told).encode())


def _count() -> dict[str, Any]:
    from genwsgi.generations.generation import Generation
    from genwsgi.isolation.modules import ModuleTable

    tables, generations = [], []
    objects = gc.get_objects()
    for found in objects:
        if type(found) is ModuleTable:
            tables.append(found)
        elif type(found) is Generation:
            generations.append(found)
    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read().split()[1])
    loggers = [logging.root, *logging.Logger.manager.loggerDict.values()]
    return {
        "tables": len(tables),
        # One that is just being made has none yet.
        "modules": max((len(getattr(table, "modules", ())) for table in tables), default=0),
        "generations": sorted(generation.number for generation in generations),
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "handlers": sum(len(getattr(logger, "handlers", ())) for logger in loggers),
        "files": len(os.listdir("/proc/self/fd")),
        "atexit": atexit._ncallbacks(),
        "meta_path": len(sys.meta_path),
        "gc_callbacks": len(gc.callbacks),
        "objects": len(objects),
        "blocks": sys.getallocatedblocks(),
    }

"""Threads: each belongs to the generation that started it, and runs in its context."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from genwsgi.isolation.asking import author
from genwsgi.isolation.effects.base import Book, Patches, Record, Run, book_of, importing_shared
from genwsgi.isolation.effects.claims import counted

log = logging.getLogger("genwsgi")

#: What starts a thread, under the name this version of Python has for it.
START = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
# Looked up when installing: a worker class may have replaced it after this module was imported.
_start: Callable[..., Any] = getattr(threading, START)
_patches = Patches()

#: How long a failed build's threads are waited for, in seconds.
STOPS = 0.2


class Threads(Record):
    """The threads that one generation started."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.started: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def running(self) -> list[threading.Thread]:
        """Return those that still run."""
        return [thread for thread in list(self.started) if thread.is_alive()]

    def report(self) -> list[str]:
        """How many there are."""
        return counted({"thread": len(self.running())})

    def undo(self) -> None:
        """Cancel timers and tell the others to stop; see :meth:`name_left`."""
        for thread in self.running():
            if isinstance(thread, threading.Timer):
                thread.finished.set()
            else:
                _interrupt(thread)

    def name_left(self) -> None:
        """Give them a moment, and name those that don't stop: they are blocked outside of Python.

        When all else is undone: what a thread says at its end is not for the build's own hooks.
        """
        deadline = time.monotonic() + STOPS
        for thread in self.running():
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        left = ", ".join(thread.name for thread in self.running())
        if left:
            log.warning("%s is undone but its threads still run: %s", self.name, left)

    def retire(self, run: Run) -> None:
        """Nothing: a thread may finish what it does.  Who still runs is named."""


def _start_for_generation(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # The code that starts it says whose it is: a shared pool's thread has anybody's context.
    generation = author()
    if generation is None or importing_shared.get():
        return _start(function, *args, **kwargs)
    thread = getattr(function, "__self__", None)
    book = book_of(generation)
    if book is not None and isinstance(thread, threading.Thread):
        book.of(Threads).started.add(thread)
    context = generation.new_context()

    def in_generation(*call: Any) -> Any:
        return context.run(function, *call)

    return _start(in_generation, *args, **kwargs)


def install() -> None:
    """Wrap what starts threads."""
    global _start
    _start = getattr(threading, START)
    _patches.put(threading, START, _start_for_generation)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()


def _interrupt(thread: threading.Thread) -> None:
    """Ask a thread that nobody can stop otherwise to stop, at its next Python instruction."""
    ident = thread.ident
    if ident is not None and thread.is_alive():
        with suppress(ValueError, ctypes.ArgumentError):
            # A thread may end with this without anybody complaining.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(SystemExit)
            )

"""Threads: each belongs to the generation that started it, and runs in its context."""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from genwsgi.interrupt import AGAIN, Interruption
from genwsgi.isolation.asking import author, generation_of
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
        self._stopping: list[Interruption] = []

    def running(self) -> list[threading.Thread]:
        """Return those that still run."""
        return [thread for thread in list(self.started) if thread.is_alive()]

    def report(self) -> list[str]:
        """How many there are."""
        return counted({"thread": len(self.running())})

    def undo(self) -> None:
        """Cancel timers and tell the others to stop; see :meth:`name_left`.

        The thread of a pool is told while it runs code of the generation, and else it stays: the
        pool may be everybody's, and would never replace it.  One of the generation's own ends its
        threads when it is collected.
        """
        generation = self.book().generation()  # type: ignore[union-attr]  # it is being undone

        def own(frame: FrameType) -> bool:
            return generation_of(frame) is generation

        for thread in self.running():
            if isinstance(thread, threading.Timer):
                thread.finished.set()
            elif thread is not threading.current_thread():
                # A thread may end with this without anybody complaining.
                self._stopping.append(
                    Interruption(thread, SystemExit, own, STOPS, anywhere=not _of_pool(thread))
                )
        self._stop()

    def name_left(self) -> None:
        """Give them a moment, and name those that don't stop: they are blocked outside of Python.

        When all else is undone: what a thread says at its end is not for the build's own hooks.
        """
        deadline = time.monotonic() + STOPS
        while self._stopping and time.monotonic() < deadline:
            self._stop()
            time.sleep(AGAIN)
        self._stopping = []
        for thread in self.running():
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        left = ", ".join(thread.name for thread in self.running())
        if left:
            log.warning("%s is undone but its threads still run: %s", self.name, left)

    def _stop(self) -> None:
        """Tell those that can be told now."""
        self._stopping = [one for one in self._stopping if not one.step()]

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


def _of_pool(thread: threading.Thread) -> bool:
    """Whether ``thread`` is one of an executor's."""
    pools: Any = sys.modules.get("concurrent.futures.thread")
    return pools is not None and getattr(thread, "_target", None) is pools._worker

"""Another thread: where it is, and how it is made to stop.

What is raised in a thread comes where the interpreter looks next: between taking a lock and the
``try`` that gives it back, if the thread is there.  That lock would be taken for ever.  So it is
raised where the innermost Python code is the application's: what that has called has come back, or
is in C, and what has called it gives its locks back whatever comes through.  Code of others is
raised in late, when the thread seems to stay there, and never where a lock is being taken.

What remains: a call that the thread makes or comes back from before the interpreter looks, and the
application's own locks if it takes them without ``with``; and a loop that does next to nothing but
log may be met nowhere else, and goes on.
"""

from __future__ import annotations

import ctypes
import gc
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import compress, repeat, starmap
from operator import is_, methodcaller
from types import FrameType
from typing import Final

#: How long it is tried to interrupt a thread, after how much of that in code of others as well, and
#: how long apart the looks at it are, in seconds.
WITHIN: Final = 30.0
LATE: Final = 1.0
AGAIN: Final = 0.005

#: Modules, with what is in them, and functions that take locks for longer than ``with`` says.
_DELICATE: Final = ("logging", "importlib", "_frozen_importlib", "_frozen_importlib_external")
_LOCKING: Final = frozenset({"acquire", "release", "__enter__", "__exit__"})

#: Whether a frame is of the application's code.
Own = Callable[[FrameType], bool]

# Not the attribute of that name, whose argument types the application may set as it likes.
_raise_in = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)


class Interruption:
    """One try to raise ``error`` in ``thread``, which runs the application's code.

    One thread at a time.  Under gevent a thread is a greenlet, out of reach: then there is nothing
    to do.

    :param own: what is the application's code.
    :param within: how long it is tried, in seconds; in others' code after half of it, or ``LATE``.
    :param anywhere: whether it is raised there at all.
    """

    def __init__(
        self,
        thread: threading.Thread,
        error: type[BaseException],
        own: Own,
        within: float = WITHIN,
        *,
        anywhere: bool = True,
    ) -> None:
        self._thread = thread
        self._error = error
        self._own = own
        now = time.monotonic()
        self._late = now + min(within / 2, LATE) if anywhere else math.inf
        self._deadline = now + within

    def step(self) -> bool:
        """Raise if this is a moment for it; return whether there is nothing more to be done."""
        ident = self._thread.ident or 0
        frame = sys._current_frames().get(ident)
        # In this order: then the frame is this thread's, and not one's that has its number now.
        if frame is None or not self._thread.is_alive():
            return True
        now = time.monotonic()
        if may_raise(frame, self._own, late=now >= self._late):
            with without_finalizers():
                if any(raise_if_at(frame, ident, self._error)):
                    return True
        return now >= self._deadline


def keep_trying(step: Callable[[], bool], name: str) -> None:
    """Call ``step`` until it returns true: at once, and else on a thread called after ``name``."""

    def go_on() -> None:
        while not step():
            time.sleep(AGAIN)

    if not step():
        # Where there can't be one more thread, whoever waits says what has not stopped.
        with suppress(RuntimeError):
            threading.Thread(target=go_on, name=f"genwsgi-interrupt {name}", daemon=True).start()


def may_raise(frame: FrameType, own: Own, *, late: bool) -> bool:
    """Whether something may be raised in the thread whose innermost frame is ``frame``.

    :param late: whether the thread has been looked at for long, and it may be in code of others.
    """
    if own(frame):
        return True
    inner: FrameType | None = frame if late else None
    while inner is not None and not own(inner):
        module = str(inner.f_globals.get("__name__"))
        if module.partition(".")[0] in _DELICATE or inner.f_code.co_name in _LOCKING:
            return False
        inner = inner.f_back
    return late


def raise_if_at(frame: FrameType, ident: int, error: type[BaseException]) -> Iterator[int]:
    """Return what, when it is iterated over, raises ``error`` in thread ``ident`` if it is there.

    It is there if ``frame`` is its innermost one.  Iterated over by a function in C, with
    :func:`without_finalizers`, the look and the raising are one step: no Python code runs between
    them, and so no other thread.  It yields something if it has raised.
    """
    now = map(methodcaller("get", ident), starmap(sys._current_frames, repeat((), 1)))
    return starmap(_raise_in, compress(((ident, error),), map(is_, now, (frame,))))


@contextmanager
def without_finalizers() -> Iterator[None]:
    """A time in which no garbage is collected, so that no finalizer runs Python code."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def raise_here(error: type[BaseException]) -> bool:
    """Raise ``error`` in this thread soon, in place of what is to be raised there and has not come.

    :returns: whether it is a thread: under gevent it is a greenlet, in which nothing was raised.
    """
    found: int = _raise_in(threading.get_ident(), error)
    return found > 0


def where(thread: threading.Thread) -> str:
    """Return where ``thread`` is now, as the last lines of its stack.  Any thread may ask."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        # A greenlet has no stack of its own that could be looked up.
        return "  (a place that can't be seen)" if thread.is_alive() else "  (its end)"
    return "".join(traceback.format_stack(frame, limit=5)).rstrip()

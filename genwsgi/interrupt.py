"""Another thread: where it is, and how it is made to stop."""

from __future__ import annotations

import ctypes
import sys
import threading
import traceback

from genwsgi.errors import BuildAbandoned


def interrupt(thread: threading.Thread) -> bool:
    """Raise :class:`~genwsgi.errors.BuildAbandoned` in ``thread``, at its next instruction.

    A thread that is blocked in C sees it when it comes back.  Any thread may call this.

    :returns: whether there is such a thread: under gevent it is a greenlet, out of reach.
    """
    found: int = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(BuildAbandoned)
    )
    return found > 0


def where(thread: threading.Thread) -> str:
    """Return where ``thread`` is now, as the last lines of its stack.  Any thread may ask."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        # A greenlet has no stack of its own that could be looked up.
        return "  (a place that can't be seen)" if thread.is_alive() else "  (its end)"
    return "".join(traceback.format_stack(frame, limit=5)).rstrip()

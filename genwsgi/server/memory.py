"""The memory of a worker: what is settled before its first build, so that none enlarges it."""

from __future__ import annotations

import ctypes
import gc
import os

#: ``M_ARENA_MAX`` of the GNU C library's ``mallopt(3)``.
ARENA_MAX = -8


def settle() -> None:
    """Freeze what is there, for the garbage collector, and keep to one arena of memory.

    To be called by a worker before it builds the application, and before it starts threads.

    What is there before the application stays for as long as the worker does.  Looked through no
    more, it makes each collection of a retired generation shorter by a fifth.

    Every build runs on a new thread, and the GNU C library gives threads arenas of their own, each
    of which keeps what a build has once needed.  Python code gains nothing from several: it holds
    the interpreter's lock while it allocates.  ``MALLOC_ARENA_MAX``, if it is set, is let stand.
    """
    gc.collect()
    gc.freeze()
    if "MALLOC_ARENA_MAX" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library may have none
        if mallopt is not None:
            mallopt(ARENA_MAX, 1)

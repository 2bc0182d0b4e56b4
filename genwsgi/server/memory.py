"""The memory of a worker: what is settled before its first build, so that none enlarges it."""

from __future__ import annotations

import ctypes
import gc
import os

#: ``M_ARENA_MAX`` and ``M_MMAP_THRESHOLD`` of the GNU C library's ``mallopt(3)``.
ARENA_MAX, MMAP_THRESHOLD = -8, -3

#: What is at least as large is given back to the system when it is let go of, in bytes: a build
#: needs some large blocks for a moment.  The library begins with this, and raises it with each.
LARGE = 128 << 10


def settle() -> None:
    """Freeze what is there, for the garbage collector, and keep to one arena of memory.

    To be called by a worker before it builds the application, and before it starts threads.

    What is there before the application stays for as long as the worker does.  Looked through no
    more, it makes each collection of a retired generation shorter by a fifth.

    Every build runs on a new thread, and the GNU C library gives threads arenas of their own, each
    of which keeps what a build has once needed.  Python code gains nothing from several: it holds
    the interpreter's lock while it allocates.  ``MALLOC_ARENA_MAX`` and ``MALLOC_MMAP_THRESHOLD_``,
    if they are set, are let stand.
    """
    gc.collect()
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library may have none
    if mallopt is None:
        return
    if "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(ARENA_MAX, 1)
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(MMAP_THRESHOLD, LARGE)

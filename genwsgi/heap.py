"""Gives back to the system what a generation has needed."""

from __future__ import annotations

import ctypes

#: ``malloc_trim(3)`` of the GNU C library; another one may have none.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> None:
    """Have the C library give back the memory that is free, wherever it lies; takes a millisecond.

    By itself it gives back only what is free behind all that is used, so one small object that has
    come late keeps what a whole generation once took.  Other threads run meanwhile, but for those
    that want memory from it.
    """
    if _trim is not None:
        _trim(0)

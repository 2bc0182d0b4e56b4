"""Numbers in words that people read: spans of time, memory, times of day."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Final

_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_PREFIXES: Final = "kMGT"


def span(seconds: float | None) -> str:
    """Return a span of time in its two largest units: ``0.031 s``, ``4.2 s``, ``3 min 20 s``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    (unit, long), (part, short) = next(pair for pair in pairwise(_UNITS) if whole >= pair[0][1])
    rest = whole % long // short
    return f"{whole // long} {unit}" + (f" {rest} {part}" if rest else "")


def size(count: int | None) -> str:
    """Return a number of bytes in words: ``48.3 MB``; nothing for ``None``."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    power = min(len(_PREFIXES), (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.1f} {_PREFIXES[power - 1]}B"


def moment(seconds: float) -> str:
    """Return a time of the wall clock, here: ``2026-03-01 14:05:09``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def counted(number: int, thing: str) -> str:
    """Return ``1 worker``, ``2 workers``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"

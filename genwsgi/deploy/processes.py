"""What the system tells of a process (proc(5)).  Any thread may ask."""

from __future__ import annotations

import os
import time

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int | None:
    """What the process holds in memory (RSS), in bytes; None if that can't be told."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def uptime(pid: int) -> float | None:
    """Since the process began, in seconds; None if that can't be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may hold blanks and parentheses itself.
            fields = file.read().rpartition(b")")[2].split()
        began = int(fields[19]) / _TICKS
    except (OSError, ValueError, IndexError):
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)

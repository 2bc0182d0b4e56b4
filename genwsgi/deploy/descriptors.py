"""How many file descriptors this process may still open."""

from __future__ import annotations

import resource
from select import POLLNVAL, poll
from typing import Final

#: With fewer left than this, what needs several at once begins to fail.
FEW: Final = 16

#: With this many left again it works, and will for a while.
ENOUGH: Final = 32

#: How many numbers are looked at with one system call, where few are free.
_AT_ONCE: Final = 4096


def spare(most: int) -> int:
    """Return how many more descriptors can be opened, up to ``most``.  From any thread.

    The numbers that are free are counted, from the highest that the process may have: a file gets
    the lowest one (POSIX, 2.6), so this is quick unless few are left.  To open some would be as
    quick, and would take them, for a moment, from a request that needs one just then.
    """
    high = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if high == resource.RLIM_INFINITY:
        return most
    free, size = 0, most
    while high > 0 and free < most:
        low = max(0, high - size)
        free += _count_free(range(low, high))
        high, size = low, _AT_ONCE
    return min(free, most)


def has_spare(count: int) -> bool:
    """Whether ``count`` more descriptors can be opened.  From any thread."""
    return spare(count) == count


def _count_free(numbers: range) -> int:
    looked = poll()
    for number in numbers:
        looked.register(number, 0)
    return sum(bool(event & POLLNVAL) for _, event in looked.poll(0))


def shortage(who: str) -> str:
    """Say that ``who`` has few descriptors left, and what to do."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"{who} has fewer than {FEW} of its {most} file descriptors left: builds fail and new "
        "connections wait until some are closed; raise `ulimit -n` (LimitNOFILE= of a systemd unit)"
    )

"""Have so many events come that the system may have thrown others away?  The count alone.

inotify keeps so many events for a reader and drops what comes then.  It says so, but not every
watchdog hands that on, and none says what was lost.  Since the full queue is read afterwards, a
loss shows as many events within a short time; that is also true of many that were all read, which
costs whoever compares one look at files that are unchanged.
"""

from __future__ import annotations

#: Events that the system keeps where it doesn't say, and the part of these that reaches us for
#: certain: a directory that is removed takes three places in the queue and is told once.
KEPT = 16384
PART = 4

#: Seconds within which a full queue is read, even on a busy machine.
WINDOW = 2.0

#: Seconds of fewer events after which a flood is over, and after which it isn't waited for.
QUIET = 1.0
PATIENCE = 10.0


class Flood:
    """Counts events.  Times are seconds of one monotonic clock.

    Not thread-safe: one thread owns it.

    :param kept: how many events the system keeps.
    """

    def __init__(self, kept: int = KEPT) -> None:
        # Where more are kept, KEPT still are too many for a change of source files.
        self._limit = min(kept, KEPT) // PART
        self._start = 0.0
        self._before = 0
        self._recent = 0
        self._first: float | None = None
        self._last = 0.0

    def note(self, at: float) -> None:
        """An event came at ``at``."""
        past = at - self._start
        if past >= WINDOW:
            self._before = self._recent if past < 2 * WINDOW else 0
            self._start, self._recent = at, 0
        self._recent += 1
        if self._before + self._recent > self._limit:
            self._first = at if self._first is None else self._first
            self._last = at

    def over(self, now: float) -> bool:
        """Whether a flood has ended, or lasts too long to wait for it.  True once for each."""
        if self._first is None:
            return False
        if now - self._last < QUIET and now - self._first < PATIENCE:
            return False
        self._first = None
        return True

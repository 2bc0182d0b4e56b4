"""When is a change of files complete?  The decision alone: no files, no clock, no thread.

Whoever watches says what happened and when (:meth:`Settle.touch`, :meth:`Settle.stir`), asks when
to come back (:attr:`Settle.due`), and then asks for the decision (:meth:`Settle.decide`).  A single
file that was replaced needs almost no silence; a burst, or a file that is still being written,
needs more; an :class:`Obstacle` (git at work, a root that is gone) is waited for, and nothing is
waited for without an end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: How many paths a :class:`Change` names.
PATHS_KEPT = 20


@dataclass(frozen=True)
class Change:
    """Something relevant may have changed, and it is quiet now.

    :ivar paths: what was touched, sorted, at most ``PATHS_KEPT`` of them.
    :ivar count: how many different paths were touched.
    """

    paths: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Pace:
    """How long to wait, everything in seconds.

    :ivar single: silence after one path was touched and is complete.
    :ivar burst: silence after several paths, a sync under way, or an incomplete file.
    :ivar cap: from the first touch; an order is given then even without silence.
    :ivar look: between two looks at an obstacle.
    """

    single: float = 0.025
    burst: float = 0.25
    cap: float = 10.0
    look: float = 0.01


@dataclass(frozen=True)
class Obstacle:
    """Why an order should wait although it is quiet.

    :ivar what: a clause for people.
    :ivar patience: seconds after which the order is given all the same.
    :ivar after: seconds of silence that are enough once the obstacle is gone.
    :ivar made: tells it from another of the same words.
    """

    what: str
    patience: float
    after: float
    made: int = 0


@dataclass
class Settle:
    """Decides when a change is complete.  Times are seconds of one monotonic clock.

    Not thread-safe: one thread owns it.
    """

    pace: Pace = field(default_factory=Pace)
    _paths: set[str] = field(default_factory=set)
    _incomplete: set[str] = field(default_factory=set)
    _sync: bool = False
    _first: float = 0.0
    _last: float = 0.0
    _look: float | None = None
    _after: float | None = None
    _since: dict[Obstacle, float] = field(default_factory=dict)

    def touch(self, path: str, now: float, *, complete: bool = True) -> None:
        """A relevant ``path`` changed at ``now``; more of it will come if not ``complete``."""
        self._wake(now)
        if not self._paths:
            self._first = now
        self._paths.add(path)
        if complete:
            self._incomplete.discard(path)
        else:
            self._incomplete.add(path)

    def stir(self, now: float, *, sync: bool = False) -> None:
        """Something that is no change itself happened, so a change under way isn't complete.

        With ``sync`` it shows that a sync is under way: what follows counts as a burst.
        """
        self._wake(now)
        self._sync = self._sync or sync

    @property
    def due(self) -> float | None:
        """When :meth:`decide` should be called next; ``None`` when nothing is pending."""
        if not self._paths:
            return None
        if self._look is not None:
            return self._look
        return min(self._last + self._quiet(), self._first + self.pace.cap)

    @property
    def latest(self) -> float:
        """When something happened last."""
        return self._last

    @property
    def pending(self) -> bool:
        """Whether a change waits to be complete."""
        return bool(self._paths)

    def decide(self, now: float, obstacles: Sequence[Obstacle] = ()) -> Change | None:
        """Return the change if it is complete at ``now``, and begin anew; else ``None``.

        ``obstacles`` are those that exist now.  One that outlasts its patience is disregarded until
        it has been away, so that a forgotten lock delays one order and not all of them.
        """
        if not self._paths:
            return None
        self._since = {obstacle: self._since.get(obstacle, now) for obstacle in obstacles}
        waiting = [o for o, since in self._since.items() if now - since < o.patience]
        if waiting:
            self._look = now + self.pace.look
            self._after = max(obstacle.after for obstacle in waiting)
            return None
        if self._look is not None:
            self._look = None
            if obstacles:
                self._after = None
            else:
                self._first = self._last = now
        due = self.due
        if due is None or now < due:
            return None
        change = Change(tuple(sorted(self._paths)[:PATHS_KEPT]), len(self._paths))
        self._paths = set()
        self._incomplete = set()
        self._sync = False
        self._after = None
        return change

    def _wake(self, now: float) -> None:
        if not self._paths and now - self._last > self.pace.burst:
            self._sync = False
        self._last = max(self._last, now)

    def _quiet(self) -> float:
        if self._after is not None:
            return self._after
        if self._sync or self._incomplete or len(self._paths) > 1:
            return self.pace.burst
        return self.pace.single

"""What is counted about a host, for metrics.

Pure.  One thread, the coordinator's; what it gives away is frozen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from genwsgi.deploy.control import Status
from genwsgi.deploy.protocol import Counts, Ready
from genwsgi.deploy.tallies import Tallies
from genwsgi.generations.counts import Tally

#: The upper ends of the ranges in which the times of builds are counted, in seconds.
BUILDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

#: And those of drains: some last as long as a stream does.
DRAINS: Final = (0.01, 0.1, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


@dataclass(frozen=True)
class Distribution:
    """How many of something took how long.

    :ivar bounds: the upper ends of ranges, in seconds.
    :ivar counts: how many fell into each, and beyond the last.
    :ivar seconds: how long they took together.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Figures:
    """A host at one moment.

    :ivar requests: what has become of them, by release and number of the generation.
    :ivar outcomes: how many orders have ended in which way.
    :ivar builds: how long workers built, of those builds that were ready.
    :ivar drains: how long generations that were replaced still owed a response.
    """

    status: Status
    requests: Mapping[tuple[str, int], Tally]
    outcomes: Mapping[str, int]
    builds: Distribution
    drains: Distribution


class Collection:
    """Counts what workers tell.

    :ivar tallies: their requests.
    """

    def __init__(self) -> None:
        self.tallies = Tallies()
        self._builds = _Times(BUILDS)
        self._drains = _Times(DRAINS)

    def hear(self, message: object) -> None:
        """Take what counts from a worker's message, whichever it is."""
        if isinstance(message, Ready):
            self._builds.add(message.seconds)
        elif isinstance(message, Counts):
            self.tallies.hear(message)
            for seconds in message.drained:
                self._drains.add(seconds)

    def now(self, status: Status, outcomes: Mapping[str, int]) -> Figures:
        """This moment, frozen."""
        return Figures(
            status,
            self.tallies.by_generation(),
            dict(outcomes),
            self._builds.frozen(),
            self._drains.frozen(),
        )


class _Times:
    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def frozen(self) -> Distribution:
        return Distribution(self._bounds, tuple(self._counts), self._seconds)

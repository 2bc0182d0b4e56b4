"""What has become of the requests of this host: what all of its workers have told, added up.

Pure.  What a worker told stays when it is gone: the requests that it has failed have failed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from genwsgi.deploy.protocol import Counts
from genwsgi.generations.counts import Tally

#: Of how many releases requests are known: the latest.
KNOWN: Final = 50

#: Stands for all processes that are gone.
GONE: Final = 0


class Tallies:
    """The requests by release, as the workers label it.  One thread at a time."""

    def __init__(self) -> None:
        # By release, and then by the worker's process and the number of its generation.
        self._by_release: dict[str, dict[tuple[int, int], Tally]] = {}
        self._seconds: dict[tuple[str, int], float] = {}

    def hear(self, counts: Counts) -> None:
        """A worker has told its counts."""
        for one in counts.generations:
            known = self._by_release.setdefault(one.release, {})
            known[counts.pid, one.number] = one.tally
        for release in sorted(self._by_release, key=_number)[:-KNOWN]:
            del self._by_release[release]

    def fold(self, living: Collection[int]) -> None:
        """Put together what workers have told that are gone: all but the processes ``living``.

        Another process may be given the number of one of them, and there may be very many.
        """
        for known in self._by_release.values():
            for pid, number in [key for key in known if key[0] not in living and key[0] != GONE]:
                tally = known.pop((pid, number))
                known[GONE, number] = known.get((GONE, number), Tally()) + tally

    def by_generation(self) -> dict[tuple[str, int], Tally]:
        """What has become of the requests of each release and number of a generation.

        Nothing of it is less than it was.
        """
        found: dict[tuple[str, int], Tally] = {}
        for release in self.releases():
            for (_, number), tally in self._by_release[release].items():
                found[release, number] = found.get((release, number), Tally()) + tally
        for key, tally in found.items():
            # Added up in another order, floats can be a trifle less, and who reads counters would
            # take that for a new beginning.
            seconds = max(tally.seconds, self._seconds.get(key, 0.0))
            found[key] = replace(tally, seconds=seconds)
        self._seconds = {key: tally.seconds for key, tally in found.items()}
        return found

    def of(self, release: str) -> Tally:
        """Return what has become of the requests that ``release`` got."""
        return sum(self._by_release.get(release, {}).values(), Tally())

    def releases(self) -> list[str]:
        """The releases of which requests are known, oldest first."""
        return sorted(self._by_release, key=_number)


def _number(release: str) -> int:
    return int(release.partition("-")[0])

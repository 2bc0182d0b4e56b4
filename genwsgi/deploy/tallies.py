"""What has become of the requests of this host: what all of its workers have told, added up.

Pure.  What a worker told stays when it is gone: the requests that it has failed have failed.
"""

from __future__ import annotations

from typing import Final

from genwsgi.deploy.protocol import Counts
from genwsgi.generations.counts import Tally

#: Of how many releases requests are known: the latest.
KNOWN: Final = 50


class Tallies:
    """The requests by release, as the workers label it.  One thread at a time."""

    def __init__(self) -> None:
        # By release, and then by the worker's process and the number of its generation.
        self._by_release: dict[str, dict[tuple[int, int], Tally]] = {}

    def hear(self, counts: Counts) -> None:
        """A worker has told its counts."""
        for one in counts.generations:
            known = self._by_release.setdefault(one.release, {})
            known[counts.pid, one.number] = one.tally
        for release in sorted(self._by_release, key=_number)[:-KNOWN]:
            del self._by_release[release]

    def of(self, release: str) -> Tally:
        """Return what has become of the requests that ``release`` got."""
        return sum(self._by_release.get(release, {}).values(), Tally())

    def releases(self) -> list[str]:
        """The releases of which requests are known, oldest first."""
        return sorted(self._by_release, key=_number)


def _number(release: str) -> int:
    return int(release.partition("-")[0])

"""The replaced generation that is kept ready, so that going back to it is one pointer assignment.

Belongs to the agent's thread.
"""

from __future__ import annotations

import time
from typing import Protocol

from genwsgi.deploy.protocol import Release, label
from genwsgi.generations.generation import Generation

#: When one that is wanted just as its time is over is looked at again, in seconds.
AGAIN = 1.0


class Swaps(Protocol):
    """What parking needs of the live application."""

    @property
    def parked(self) -> Generation | None:
        """The generation that is kept ready."""

    def swap(self, generation: Generation, *, park: bool = False) -> None:
        """Make a generation the current one."""

    def unpark(self) -> None:
        """Let the parked generation drain."""


class Parking:
    """Keeps what a deploy replaces for a while.

    :param seconds: for how long; 0: not at all.
    """

    def __init__(self, live: Swaps, seconds: float) -> None:
        self._live = live
        self._seconds = seconds
        self._digest = ""
        self._until: float | None = None

    def find(self, release: Release) -> Generation | None:
        """Return the parked generation if it is what ``release`` goes back to.

        Whoever orders a deploy of the same code otherwise wants it built anew.
        """
        back = release.back_to is not None and release.digest == self._digest
        return self._live.parked if back else None

    def swap(self, release: Release, generation: Generation, replaced: Release | None) -> None:
        """Make ``generation`` the current one, as ``release``; keep that of ``replaced``.

        But what is gone back from is not kept.
        """
        revived = generation is self._live.parked
        if revived:
            generation.release = label(release)
        park = self._seconds > 0 and replaced is not None and not revived
        self._live.swap(generation, park=park)
        self._digest = replaced.digest if park and replaced is not None else ""
        self._until = time.monotonic() + self._seconds if park else None

    def attend(self, now: float, wanted: Generation | None) -> None:
        """Let the parked generation go when its time is over, unless it is ``wanted`` just now."""
        if self._until is None or now < self._until:
            return
        if wanted is not None and wanted is self._live.parked:
            self._until = now + AGAIN
        else:
            self._digest, self._until = "", None
            self._live.unpark()

    @property
    def until(self) -> float | None:
        """When :meth:`attend` will have something to do, on the monotonic clock; None: never."""
        return self._until

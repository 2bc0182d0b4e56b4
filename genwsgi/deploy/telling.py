"""What a worker tells the coordinator without being asked, and when.

Belongs to the agent's thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

from genwsgi.deploy import protocol
from genwsgi.deploy.framing import clip
from genwsgi.deploy.health import Health
from genwsgi.generations.counts import GenerationCounts
from genwsgi.live import LiveApplication

#: How often the coordinator is told of old generations as long as there are any, in seconds.
TELL = 1.0

#: How often it is told what has become of requests, where they are counted, in seconds: as a rule,
#: and in a probation.
COUNT = (1.0, 0.25)

#: Of how many generations it is told at most; the rest is in the log.
TOLD = 50


class Teller:
    """Finds out what is news."""

    def __init__(self, live: LiveApplication, health: Health) -> None:
        self._live = live
        self._health = health
        # What was told of the generations, but for what changes all the time; None: tell it anew.
        self._told: tuple[object, ...] | None = ()
        self._tell_at: float | None = None
        self._progress: object = None
        self._counted: tuple[GenerationCounts, ...] = ()
        self._count_at = time.monotonic()
        self._watched_until = 0.0

    def begin(self) -> protocol.Problems | None:
        """Whoever is told now was told nothing before; return what has to be told at once."""
        self._told, self._counted = (), ()
        return self._health.news(anew=True)

    def asked(self) -> None:
        """How the generations stand is to be told, news or not."""
        self._told = None

    def swapped(self, watched: float) -> None:
        """Another generation serves, in a probation of ``watched`` seconds, or in none (0)."""
        self._count_at = time.monotonic()
        self._watched_until = self._count_at + watched

    def news(self) -> Iterator[protocol.FromWorker]:
        """What the coordinator does not know yet."""
        yield from self._generations()
        problems = self._health.news(anew=False)
        if problems is not None:
            yield problems
        yield from self.requests()

    def progress(self, release: int, at: tuple[str, int, int]) -> Iterator[protocol.Building]:
        """How far the build of ``release`` is, if that is news."""
        if (release, at) != self._progress:
            self._progress = (release, at)
            yield protocol.Building(release, *at)

    def requests(self, *, last: bool = False) -> Iterator[protocol.Counts]:
        """What has become of requests, where they are counted.

        :param last: at once, for there is no other time.
        """
        now = time.monotonic()
        if not self._live.counting or (now < self._count_at and not last):
            return
        self._count_at = now + COUNT[now < self._watched_until]
        before, self._counted = self._counted, self._live.counts()
        news = tuple(one for one in self._counted if one not in before)
        drained = self._live.drained()
        if news or drained:
            left = max(0.0, self._watched_until - now)
            yield protocol.Counts(os.getpid(), news, left, drained)

    @property
    def due(self) -> list[float]:
        """The moments at which there will be something to tell, on the monotonic clock."""
        moments = [] if self._tell_at is None else [self._tell_at]
        return [*moments, self._count_at] if self._live.counting else moments

    def _generations(self) -> Iterator[protocol.Generations]:
        found = self._live.status()[-TOLD:]
        now = time.monotonic()
        old = any(one.state != "current" for one in found)
        told = tuple((one.number, one.state, one.holder) for one in found)
        if told != self._told or (self._tell_at is not None and now >= self._tell_at):
            self._told = told
            yield protocol.Generations(
                tuple(
                    replace(one, holder=clip(one.holder, 1000), request=clip(one.request, 200))
                    for one in found
                )
            )
        if not old and not self._live.counting:  # where they are counted, open leases are too
            self._tell_at = None
        elif self._tell_at is None or now >= self._tell_at:
            self._tell_at = now + TELL

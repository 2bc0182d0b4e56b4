"""What a worker has in hand of a release that it does not serve yet: its build, or what was built.

Belongs to the agent's thread; a build runs on a thread of its own and reports through a queue.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from genwsgi.background import BackgroundBuild
from genwsgi.deploy.abandoned import Abandoned
from genwsgi.deploy.protocol import Release, label
from genwsgi.generations.generation import Generation
from genwsgi.live import LiveApplication


@dataclass
class Building:
    """A build that is under way.

    :ivar catch_up: whether it is of what is committed already, and no part of a deploy.
    """

    release: Release
    build: BackgroundBuild
    catch_up: bool


class Workbench:
    """Has one thing in hand at most.

    :param wake: ends the agent's waiting.
    :ivar prepared: what is built and not served.
    :ivar building: the build that is under way.
    """

    def __init__(
        self, live: LiveApplication, log: logging.Logger, wake: Callable[[], None]
    ) -> None:
        self.prepared: tuple[Release, Generation] | None = None
        self.building: Building | None = None
        self._live = live
        self._log = log
        self._wake = wake
        self._abandoned = Abandoned(live, log)
        self._ended: queue.SimpleQueue[BackgroundBuild] = queue.SimpleQueue()

    @property
    def release(self) -> Release | None:
        """What it is a build of."""
        if self.prepared is not None:
            return self.prepared[0]
        return self.building.release if self.building is not None else None

    @property
    def deploying(self) -> Building | None:
        """The build that is under way, if it is part of a deploy."""
        return None if self.building is None or self.building.catch_up else self.building

    def build(self, release: Release, *, catch_up: bool, look: bool, size: int) -> None:
        """Begin to build ``release``.

        :param look: whether to look for what its scope lacks.
        :param size: how many modules there will be, more or less.
        """
        # What is committed, or was, is served with whatever scope it has, and is only warmed up:
        # nothing is to be in the way back.
        proved = catch_up or release.back_to is not None
        build = BackgroundBuild(
            self._live,
            release.digest,
            label(release),
            self._has_ended,
            grow=not proved,
            look=look,
            strict=not proved,
            size=size,
            on_look=self._wake,
        )
        self.building = Building(release, build, catch_up)

    def _has_ended(self, build: BackgroundBuild) -> None:
        """Called on the build's thread, or on the agent's if there is none for it."""
        self._ended.put(build)
        self._wake()

    def ended(self) -> Iterator[Building]:
        """What was being built and has ended; it is in hand no more."""
        while True:
            try:
                build = self._ended.get_nowait()
            except queue.Empty:
                return
            building = self.building
            if building is not None and building.build is build:
                self.building = None
                yield building
            elif build.generation is not None:
                self._abandoned.ready(build.generation)

    def take(self) -> tuple[Release, Generation] | None:
        """Hand out what is prepared."""
        prepared, self.prepared = self.prepared, None
        return prepared

    def drop(self, reason: str) -> None:
        """Discard what is prepared or being built."""
        prepared = self.take()
        if prepared is not None:
            release, generation = prepared
            self._abandoned.ready(generation)
            self._log.info("release %s is discarded: %s", label(release), reason)
        self.drop_build(reason)

    def drop_build(self, reason: str) -> None:
        """Abandon the build that is under way, if there is one."""
        building, self.building = self.building, None
        if building is not None:
            self._abandoned.build(building.release, building.build, reason)

    def attend(self, now: float) -> None:
        """Look after what was given up and does not end."""
        self._abandoned.attend(now)

    @property
    def due(self) -> list[float]:
        """When :meth:`attend` will have something to do, on the monotonic clock."""
        return self._abandoned.due

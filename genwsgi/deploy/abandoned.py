"""Builds that were given up and have not ended yet.

Belongs to the agent's thread.
"""

from __future__ import annotations

import logging
import time

from genwsgi.background import BackgroundBuild
from genwsgi.deploy.protocol import Release, label

#: How long an abandoned build may go on before the log says where it hangs, in seconds.
STOP_WITHIN = 5.0


class AbandonedBuilds:
    """Sees to it that the log names a build that does not stop, once."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._stopping: list[tuple[float, BackgroundBuild, Release]] = []

    def add(self, release: Release, build: BackgroundBuild, reason: str) -> None:
        """Abandon the build of ``release``."""
        where = build.where()
        build.abandon()
        self._stopping.append((time.monotonic() + STOP_WITHIN, build, release))
        self._log.info(
            "the build of release %s is abandoned: %s; it was at\n%s",
            label(release),
            reason,
            where,
        )

    def attend(self, now: float) -> None:
        """Say of those whose time is over where they hang, and forget them."""
        for deadline, build, release in self._stopping:
            if now >= deadline and build.running:
                self._log.warning(
                    "the abandoned build of release %s does not stop; it is at\n%s",
                    label(release),
                    build.where(),
                )
        self._stopping = [entry for entry in self._stopping if now < entry[0] and entry[1].running]

    @property
    def due(self) -> list[float]:
        """When :meth:`attend` will have something to do, on the monotonic clock."""
        return [deadline for deadline, _, _ in self._stopping]

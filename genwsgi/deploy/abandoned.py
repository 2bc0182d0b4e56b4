"""What was given up and has not ended yet: builds, and generations that are discarded.

Belongs to the agent's thread, which waits for none of it.
"""

from __future__ import annotations

import logging
import time

from genwsgi.background import BackgroundBuild, BackgroundDiscard, Builds
from genwsgi.deploy.protocol import Release, label
from genwsgi.generations.generation import Generation

#: How long an abandoned build, or a discard, may go on before the log says where it hangs, in
#: seconds.
STOP_WITHIN = 5.0


class Abandoned:
    """Sees to it that the log names what does not stop, once.

    :param live: what the generations are of.
    """

    def __init__(self, live: Builds, log: logging.Logger) -> None:
        self._live = live
        self._log = log
        self._stopping: list[tuple[float, BackgroundBuild | BackgroundDiscard, str]] = []

    def build(self, release: Release, build: BackgroundBuild, reason: str) -> None:
        """Abandon the build of ``release``."""
        where = build.where()
        build.abandon()
        self._watch(build, f"the abandoned build of release {label(release)} does not stop")
        self._log.info(
            "the build of release %s is abandoned: %s; it was at\n%s",
            label(release),
            reason,
            where,
        )

    def ready(self, generation: Generation) -> None:
        """Discard a ready generation, on a thread of its own."""
        discard = BackgroundDiscard(self._live, generation)
        self._watch(discard, f"what release {generation.release} does at its end does not stop")

    def _watch(self, stopping: BackgroundBuild | BackgroundDiscard, words: str) -> None:
        self._stopping.append((time.monotonic() + STOP_WITHIN, stopping, words))

    def attend(self, now: float) -> None:
        """Say of those whose time is over where they hang, and forget them."""
        for deadline, stopping, words in self._stopping:
            if now >= deadline and stopping.running:
                self._log.warning("%s; it is at\n%s", words, stopping.where())
        self._stopping = [entry for entry in self._stopping if now < entry[0] and entry[1].running]

    @property
    def due(self) -> list[float]:
        """When :meth:`attend` will have something to do, on the monotonic clock."""
        return [deadline for deadline, _, _ in self._stopping]

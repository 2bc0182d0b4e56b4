"""The workers that are connected, how far each is in the running deploy, what they are told.

Pure, like the coordinator that owns it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from genwsgi.deploy.actions import Action, Participant, Send, Stage
from genwsgi.deploy.control import WorkerStatus
from genwsgi.deploy.framing import clip
from genwsgi.deploy.protocol import (
    Abort,
    Commit,
    Hello,
    Prepare,
    Problem,
    Release,
)
from genwsgi.generations.status import GenerationStatus

#: The stages of those that were told to build and are not ready.
AT_WORK: Final = (Stage.TOLD, Stage.BUILDING, Stage.LOOKING)

#: Of how many generations, of all workers, a status tells: it has to fit into one message.
MOST_GENERATIONS: Final = 400

#: Of how many problems of workers a status tells, for the same reason.
MOST_PROBLEMS: Final = 100


@dataclass
class Worker:
    """One connected worker.

    :ivar current: what it serves, as far as it said.
    :ivar prepared: what it was told to build, or said that it has built.
    :ivar stage: how far it is in the running deploy.
    :ivar problem: why it can't run the committed release, if it said so.
    :ivar generations: how its generations stand, as far as it said.
    :ivar problems: what is wrong in it, as far as it said.
    """

    pid: int
    current: Release | None
    prepared: Release | None
    stage: Stage = Stage.CONNECTED
    problem: str = ""
    generations: tuple[GenerationStatus, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def asked(self) -> bool:
        """Whether it was told to build the release in progress, which is not committed yet."""
        return self.stage in (*AT_WORK, Stage.READY)

    def holds(self, release: Release) -> bool:
        """Whether it has built ``release``."""
        return self.prepared is not None and same(self.prepared, release)


class Workers(dict[int, Worker]):
    """The connected workers by their connections, in the order in which they connected."""

    def connect(self, worker: int, hello: Hello) -> tuple[Worker, Stage]:
        """Enter ``worker``; return it with the stage that its process had reached before.

        The agent of a process connects once, so an earlier connection of that process is over,
        whether or not it was reported gone.
        """
        stage = Stage.CONNECTED
        for key in [key for key, one in self.items() if key == worker or one.pid == hello.pid]:
            stage = self.pop(key).stage
        self[worker] = Worker(hello.pid, hello.current, hello.prepared)
        return self[worker], stage

    def at(self, *stages: Stage) -> list[Worker]:
        """The workers at one of ``stages``."""
        return [one for one in self.values() if one.stage in stages]

    def absent(self, pids: Iterable[int]) -> list[int]:
        """Those of ``pids`` that are not connected."""
        return sorted(set(pids) - {one.pid for one in self.values()})

    def prepare_one(self, release: Release, committed: Release) -> list[Action]:
        """Tell one to build ``release`` first and to look at its scope.

        It is one that need not catch up with ``committed``.
        """

        def behind(worker: int) -> bool:
            current = self[worker].current
            return current is None or not same(current, committed)

        return self._prepare([min(self, key=behind)], release, look=True)

    def prepare_others(self, release: Release) -> list[Action]:
        """Tell all who were not told yet to build ``release``."""
        others = [key for key, one in self.items() if one.stage is Stage.CONNECTED]
        return self._prepare(others, release, look=False)

    def _prepare(self, workers: list[int], release: Release, *, look: bool) -> list[Action]:
        for worker in workers:
            self[worker].stage = Stage.TOLD
            self[worker].prepared = release
        return [Send(worker, Prepare(release, look)) for worker in workers]

    def commit(self, number: int) -> list[Action]:
        """Tell all to swap to release ``number``."""
        for one in self.values():
            one.stage = Stage.SWAPPING
        return [Send(worker, Commit(number)) for worker in self]

    def abort(self, number: int, reason: str) -> list[Action]:
        """Tell all who were told to build release ``number``, and not to swap, to discard it."""
        asked = [key for key, one in self.items() if one.asked]
        for worker in asked:
            self[worker].stage = Stage.CONNECTED
            self[worker].prepared = None
        return [Send(worker, Abort(number, clip(reason))) for worker in asked]

    def lateness(self, serving: Iterable[int]) -> str:
        """Who keeps a release from being committed, of those here and of those ``serving``."""
        late = self.at(*AT_WORK) or self.at(Stage.CONNECTED)
        absent = self.absent(serving)
        reasons = [f"{named(one.pid for one in late)} not ready"] if late else []
        reasons += [f"{named(absent)} not connected"] if absent else []
        return ", ".join(reasons or ["no worker is connected"])

    def digests(self) -> set[str]:
        """The snapshots that they serve, have built or were told to build."""
        releases = [held for one in self.values() for held in (one.current, one.prepared)]
        return {release.digest for release in releases if release is not None}

    def status(self) -> tuple[WorkerStatus, ...]:
        """Their part of a ``Status``: of very many generations the latest of each worker."""
        most = max(1, MOST_GENERATIONS // max(1, len(self)))
        return tuple(
            WorkerStatus(
                one.pid, one.current.number if one.current else None, one.generations[-most:]
            )
            for one in self.values()
        )

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong in any of them; of very many problems the first."""
        return tuple(found for one in self.values() for found in one.problems)[:MOST_PROBLEMS]

    def participants(self) -> tuple[Participant, ...]:
        """Their state, frozen."""
        return tuple(
            Participant(
                key, one.pid, one.current.number if one.current else None, one.stage, one.problem
            )
            for key, one in self.items()
        )


def same(one: Release, other: Release) -> bool:
    """Whether both are the same release.

    A coordinator that died may have given the number of one to another.
    """
    return (one.number, one.digest) == (other.number, other.digest)


def named(pids: Iterable[int]) -> str:
    """The processes ``pids``, for a message."""
    known = sorted(pids)
    return f"worker{'s' * (len(known) > 1)} {', '.join(map(str, known))}"

"""What can be asked of a coordinator: nothing here changes it.

Pure.  The inputs are :mod:`genwsgi.deploy.coordinator`'s.
"""

from __future__ import annotations

from genwsgi.deploy.actions import Participant, Phase, Statistics
from genwsgi.deploy.control import Status
from genwsgi.deploy.moves import Moves
from genwsgi.deploy.protocol import OrderOutcome, Problem, Release
from genwsgi.deploy.running import Deploy


class View(Moves):
    """A coordinator, as others see it."""

    @property
    def phase(self) -> Phase:
        """What is being done."""
        return self._phase

    @property
    def release(self) -> Release:
        """The committed release."""
        return self._release

    @property
    def deploy(self) -> Deploy | None:
        """The running deploy, to be read only."""
        return self._deploy

    @property
    def quiet(self) -> str:
        """Why the file watch may leave alone what is on disk; empty: there is no reason."""
        release = self._release
        if not release.aside:
            return ""
        return (
            f"release {release.number} went back to the code of release {release.back_to}: what it"
            " has replaced is not deployed again until the files change, or a deploy is ordered"
        )

    @property
    def last(self) -> OrderOutcome | None:
        """The latest outcome of an order."""
        return self._book.last

    @property
    def participants(self) -> tuple[Participant, ...]:
        """The connected workers, in the order in which they connected."""
        return self._workers.participants()

    @property
    def found(self) -> tuple[Problem, ...]:
        """What the workers find wrong; of very many problems the first."""
        return self._workers.problems()

    def pid(self, worker: int) -> int | None:
        """The process on connection ``worker``, if it is a worker's."""
        return self._workers[worker].pid if worker in self._workers else None

    def needed(self) -> frozenset[str]:
        """The digests of the snapshots that workers serve, have built or may be told to build."""
        releases = {self._release}
        if self._deploy is not None and self._deploy.release is not None:
            releases.add(self._deploy.release)
        return frozenset(self._workers.digests() | {release.digest for release in releases})

    def status(self, triggers: dict[str, object], problems: tuple[Problem, ...] = ()) -> Status:
        """The answer to a ``StatusRequest``.

        :param triggers: each trigger's own status.
        :param problems: the host's.
        """
        workers, wrong = self._workers.status(), (*problems, *self.found)
        return Status(self._release, self._phase.value, workers, triggers, self.last, wrong)

    def statistics(self) -> Statistics:
        """This moment, frozen."""
        deploy, book = self._deploy, self._book
        return Statistics(
            phase=self._phase,
            release=self._release.number,
            in_progress=deploy.release.number if deploy and deploy.release else None,
            workers=len(self._workers),
            running=book.running.order.id if book.running else None,
            waiting=book.waiting.order.id if book.waiting else None,
            orders=book.count,
            ignored=self._ignored,
        )

"""What a coordinator does: how the one running deploy comes from each phase into the next.

Pure.  The inputs, and which of them count, are :mod:`genwsgi.deploy.coordinator`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from genwsgi.deploy.actions import Action, Held, Phase, Record, Stage, TakeSnapshot
from genwsgi.deploy.orders import OrderBook, ahead
from genwsgi.deploy.protocol import Outcome, Release
from genwsgi.deploy.running import Deploy
from genwsgi.deploy.workers import AT_WORK, Workers
from genwsgi.isolation.scope import Addition

#: How long a worker has to say that it swapped, in seconds.
ACKNOWLEDGE_WITHIN: Final = 10.0


class Moves:
    """The state of a coordinator, and what changes it.

    Each move returns the actions that it takes.
    """

    def __init__(self, committed: Release, *, build_timeout: float, patience: float = 1.0) -> None:
        self._release = committed
        self._build_timeout = build_timeout
        self._phase = Phase.IDLE
        self._workers = Workers()
        self._serving: frozenset[int] = frozenset()
        self._book = OrderBook(patience)
        self._deploy: Deploy | None = None
        self._highest = committed.number
        self._reads = 0
        self._unrecorded_over: Release | None = None
        self._failed: frozenset[str] = frozenset()
        self._ignored = 0

    def _serve_next(self, now: float) -> list[Action]:
        """Begin the deploy of the waiting order if none runs."""
        if self._deploy is not None:
            return []
        pending = self._book.serve()
        if pending is None:
            return []
        self._deploy = Deploy(
            pending, started=now, deadline=now + self._build_timeout, hold=pending.hold
        )
        self._phase = Phase.READING
        return self._ask_for_snapshot(self._deploy)

    def _advance(self, now: float) -> list[Action]:
        """Go as far as the workers' stages allow."""
        deploy, workers = self._deploy, self._workers
        if deploy is None or deploy.release is None:
            return []
        if self._phase is Phase.COMMITTING:
            return [] if workers.at(Stage.SWAPPING) else self._conclude(deploy, now)
        if not workers.at(Stage.LOOKING, Stage.READY):
            if not workers or workers.at(*AT_WORK):
                return []
            # Code that was committed before has proved that it kills no process.
            if not deploy.pending.order.back_to:
                return workers.prepare_one(deploy.release, self._release)
        actions = workers.prepare_others(deploy.release)
        if self._phase is Phase.HOLDING:
            return actions
        self._phase = Phase.PREPARING
        late = workers.at(*AT_WORK) or workers.absent(self._serving)
        if not late:
            move = self._hold if deploy.hold else self._commit
            actions += move(deploy, deploy.release, now)
        return actions

    def _hold(self, deploy: Deploy, release: Release, now: float) -> list[Action]:
        self._phase, deploy.deadline = Phase.HOLDING, now + deploy.hold
        # It may have been: a worker that comes while it is held can find the scope too small.
        told, deploy.told = deploy.told, True
        return [] if told else [Held(deploy.pending.order, release.number, now - deploy.started)]

    def _commit(self, deploy: Deploy, release: Release, now: float) -> list[Action]:
        self._unrecorded_over, self._release = self._release, release
        self._phase = Phase.COMMITTING
        deploy.seconds = now - deploy.started
        deploy.deadline = now + ACKNOWLEDGE_WITHIN
        return [Record(release), *self._workers.commit(release.number)]

    def _conclude(self, deploy: Deploy, now: float) -> list[Action]:
        if self._release.digest in self._failed:
            self._failed = frozenset()
        return self._end(Outcome.COMMITTED, "; ".join(deploy.notes), now)

    def _end(self, outcome: str, reason: str, now: float, traceback: str = "") -> list[Action]:
        """End the running deploy with ``outcome``, and begin that of the waiting order."""
        deploy, actions = self._deploy, list[Action]()
        assert deploy is not None, "only a running deploy ends"
        number = deploy.release.number if deploy.release is not None else None
        if outcome == Outcome.UNCHANGED:
            number = self._release.number
        elif number is not None:
            actions += self._workers.abort(number, f"{outcome}: {reason}")
        taken = deploy.seconds if outcome == Outcome.COMMITTED else None
        actions.append(self._book.end(outcome, number, reason, now, traceback, taken))
        self._deploy, self._phase, self._unrecorded_over = None, Phase.IDLE, None
        return actions + self._serve_next(now)

    def _grow(self, additions: tuple[Addition, ...], now: float) -> list[Action]:
        """Read the source anew with what a build has found to belong in the scope, if that helps.

        So the order is not ended: nothing is wrong with its code.
        """
        deploy = self._deploy
        assert deploy is not None, "only a running deploy begins anew"
        assert deploy.release is not None, "only what is built can lack something"
        number = deploy.release.number
        joined = deploy.grow(additions, now + self._build_timeout)
        if not joined:
            return []
        self._phase = Phase.READING
        return [*self._workers.abort(number, joined), *self._ask_for_snapshot(deploy)]

    def _ask_for_snapshot(self, deploy: Deploy) -> list[Action]:
        self._reads += 1
        path = ahead(deploy.pending.path, self._release.path)
        return [TakeSnapshot(deploy.pending.order, deploy.additions, path)]

    def _renumber(self, release: Release, reason: str) -> list[Action]:
        """Begin the build again under a new number: what is told of the old one counts no more."""
        assert self._deploy is not None, "only a running deploy has a number"
        self._deploy.release = replace(release, number=self._next_number())
        self._phase = Phase.CANARY
        return self._workers.abort(release.number, reason)

    def _remember_failure(self) -> None:
        self._failed = self._deploy.digests if self._deploy is not None else frozenset()

    def _next_number(self) -> int:
        self._highest += 1
        return self._highest

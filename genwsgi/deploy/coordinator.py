"""The two-phase decision of one host: every worker takes the new release, or none does.

Pure: no clock, no file, no socket, no thread.  Inputs are method calls that carry the time, in
seconds of a monotonic clock; each returns the actions that the driver performs, in their order,
*before* it calls anything else.  One thread at a time may call a coordinator.

The charter, which the table :data:`LEGAL` keeps (an input that it does not list is ignored):

* idle: nothing to do.  An order asks for a snapshot: reading.
* reading: the source is being read.  It is new code: canary.
* canary: ONE worker builds first, so that code which kills its process can't take them all.
  It is ready, or only still looks at the scope, for all: preparing.
* preparing: all others build.  Every connected worker is ready, and every process that serves is
  connected: Record, and committing.  Anything else (a failure, a death, the deadline): Abort, idle.
  But who dies before it has begun to build is only one less to ask, here and before.
* holding: all are ready, and the order wants the word first: it comes, and it is preparing again;
  the sender calls it off, anybody fails or dies, or the deadline passes: Abort, idle.
* canary, preparing or holding, and a worker found that its scope is too small, in a way that is
  new: Abort, and reading again with what joins the scope; so many times in one deploy.
* committing: the release is committed whatever happens now.  Everybody has swapped: idle.

While a deploy runs, one order may wait; the end of the deploy, whatever it is, serves that order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from genwsgi.deploy.actions import (
    Action,
    Order,
    Phase,
    Record,
    Report,
    Send,
    Stage,
    TakeSnapshot,
)
from genwsgi.deploy.framing import clip
from genwsgi.deploy.moves import ACKNOWLEDGE_WITHIN
from genwsgi.deploy.protocol import (
    Abort,
    Building,
    Committed,
    Failed,
    Generations,
    Hello,
    Outcome,
    Problems,
    Ready,
    Release,
    Step,
    Welcome,
)
from genwsgi.deploy.running import Deploy
from genwsgi.deploy.view import View
from genwsgi.deploy.workers import named

__all__ = ["LEGAL", "Action", "Coordinator", "Order", "Record", "Report", "Send", "TakeSnapshot"]

#: Why a build begins again.
_NOT_LOOKED: Final = "the worker that was looking at its scope is gone"

_ALWAYS: Final = frozenset(
    {
        "order",
        "word",
        "withdraw",
        "hello",
        "failed",
        "committed",
        "leaving",
        "gone",
        "serving",
        "tick",
    }
)
LEGAL: Final = {
    Phase.IDLE: _ALWAYS,
    Phase.READING: _ALWAYS | {"snapshot_taken", "snapshot_failed"},
    Phase.CANARY: _ALWAYS | {"building", "ready"},
    Phase.PREPARING: _ALWAYS | {"building", "ready"},
    Phase.HOLDING: _ALWAYS | {"building", "ready"},
    Phase.COMMITTING: _ALWAYS | {"record_failed"},
}


class Coordinator(View):
    """Decides for one host.

    :param committed: the release that is recorded as committed.
    :param build_timeout: for reading the source, and again for building it everywhere, in seconds.
    :param patience: how long, at least, an order waits before it supersedes the running deploy, in
        seconds, more than 0; the rule is :class:`~genwsgi.deploy.orders.OrderBook`'s.
    """

    def __repr__(self) -> str:
        return (
            f"<Coordinator {self._phase.value}, release {self._release.number} committed,"
            f" workers connected: {len(self._workers)}>"
        )

    # -- orders and what they need

    def order(self, order: Order, now: float) -> list[Action]:
        """``order`` was given.  It starts a deploy, or waits for the end of the one that runs."""
        self._enter("order")
        return [*self._book.take(order, now), *self._serve_next(now)]

    def word(self, order: str, now: float) -> list[Action]:
        """The word has come for ``order``: it need not be held any longer, or at all."""
        self._enter("word")
        self._book.let_go(order)
        deploy = self._deploy
        if deploy is None or deploy.pending.order.id != order:
            return []
        deploy.hold = 0.0
        if self._phase is Phase.HOLDING:
            self._phase, deploy.deadline = Phase.PREPARING, now + self._build_timeout
        return self._advance(now)

    def withdraw(self, order: str, reason: str, now: float) -> list[Action]:
        """Whoever gave ``order`` calls it off.  What is committed stays so."""
        self._enter("withdraw")
        actions: list[Action] = [*self._book.drop(order, reason, now)]
        deploy = self._deploy
        if deploy is None or deploy.pending.order.id != order or self._phase is Phase.COMMITTING:
            return actions
        return actions + self._end(Outcome.FAILED, reason, now)

    def snapshot_taken(
        self, digest: str, now: float, wall: float, path: tuple[str, ...] = ()
    ) -> list[Action]:
        """The snapshot asked for is there.

        :param wall: the time of day, seconds since the epoch.
        :param path: the folders, of those asked for, that code of it was found in.
        """
        deploy = self._read("snapshot_taken")
        if deploy is None:
            return self._ignore()
        pending = deploy.pending
        if (digest, path) == (self._release.digest, self._release.path) and not pending.force:
            reason = f"release {self._release.number} is this code already"
            return self._end(Outcome.UNCHANGED, reason, now)
        if not (pending.force or pending.retry):
            if digest in self._failed:
                reason = "this code failed before; change it, or order its deploy explicitly"
                return self._end(Outcome.UNCHANGED, reason, now)
            if digest in self._release.aside:
                return self._end(Outcome.UNCHANGED, self.quiet, now)
        order = pending.order
        release = Release(
            self._next_number(), digest, order.trigger, clip(order.detail), wall, path
        )
        if order.back_to:
            left = dict.fromkeys((*self._release.aside, self._release.digest))
            left.update(dict.fromkeys(sorted(pending.left)))
            left.pop(digest, None)
            release = replace(release, back_to=order.back_to, aside=tuple(left))
        deploy.read(release, now + self._build_timeout)
        self._phase = Phase.CANARY
        return self._advance(now)

    def snapshot_failed(
        self, reason: str, traceback: str, now: float, *, refused: bool = False
    ) -> list[Action]:
        """The source can't be read, does not compile, or (``refused``) is not what was ordered."""
        if self._read("snapshot_failed") is None:
            return self._ignore()
        outcome = Outcome.REFUSED if refused else Outcome.FAILED
        return self._end(outcome, reason, now, traceback)

    def record_failed(self, reason: str, now: float) -> list[Action]:
        """The Record just asked for failed, and the rest of its list was dropped."""
        before = self._unrecorded_over
        if not self._enter("record_failed") or before is None:
            return self._ignore()
        self._release = before
        for one in self._workers.values():
            one.stage = Stage.READY
        return self._end(Outcome.FAILED, reason, now)

    # -- workers

    def hello(self, worker: int, message: Hello, now: float) -> list[Action]:
        """A worker's agent said Hello on connection ``worker``: it is new, or it is back."""
        self._enter("hello")
        me, stage = self._workers.connect(worker, message)
        numbers = [seen.number for seen in (me.current, me.prepared) if seen is not None]
        self._highest = max(self._highest, *numbers, 0)
        actions: list[Action] = [Send(worker, Welcome(self._release))]
        release = self._deploy.release if self._deploy is not None else None
        committing = self._phase is Phase.COMMITTING
        if committing and stage is Stage.SWAPPING and me.current != release:
            me.stage = stage
        elif release is not None and not committing and me.holds(release):
            me.stage = Stage.READY
            return actions + self._advance(now)
        if me.prepared is not None and me.prepared.number != self._release.number:
            reason = "it is not committed, and nobody waits for it any more"
            actions.append(Send(worker, Abort(me.prepared.number, reason)))
            me.prepared = None
        if release is not None and not committing:
            if release.number <= max(numbers, default=0):
                # An order came before the workers reached a restarted coordinator, which could not
                # know the number that was in progress when its predecessor died.
                actions += self._renumber(release, "another release has its number")
            elif stage is Stage.LOOKING:
                actions += self._renumber(release, _NOT_LOOKED)
        return actions + self._advance(now)

    def building(self, worker: int, message: Building, now: float) -> list[Action]:
        """``worker`` says how far it is with the release in progress."""
        if not self._enter("building") or not self._about_deploy(worker, message.release):
            return self._ignore()
        me = self._workers[worker]
        if me.stage is Stage.TOLD:
            me.stage = Stage.BUILDING
        if me.stage is Stage.BUILDING and message.stage == Step.LOOKING:
            me.stage = Stage.LOOKING
        return self._advance(now)

    def ready(self, worker: int, message: Ready, now: float) -> list[Action]:
        """``worker`` says that it has built the release in progress."""
        if not self._enter("ready") or not self._about_deploy(worker, message.release):
            return self._ignore()
        if self._workers[worker].stage is Stage.READY:
            return self._ignore()
        self._workers[worker].stage = Stage.READY
        return self._advance(now)

    def failed(self, worker: int, message: Failed, now: float) -> list[Action]:
        """``worker`` says that it can't build the release in progress, or the committed one."""
        self._enter("failed")
        me = self._workers.get(worker)
        if me is not None and self._about_deploy(worker, message.release):
            if again := self._grow(message.additions, now):
                return again
            if not message.blameless:
                self._remember_failure()
            reason = f"worker {me.pid}: {message.reason}"
            return self._end(Outcome.FAILED, reason, now, message.traceback)
        if me is None or message.release != self._release.number:
            return self._ignore()
        me.problem = clip(message.reason)
        if self._deploy is not None and me.stage is Stage.SWAPPING:
            me.stage = Stage.CONNECTED
            self._deploy.notes.append(f"worker {me.pid} could not swap: {message.reason}")
        return self._advance(now)

    def committed(self, worker: int, message: Committed, now: float) -> list[Action]:
        """``worker`` says that it serves the committed release."""
        self._enter("committed")
        me = self._workers.get(worker)
        if me is None or message.release != self._release.number:
            return self._ignore()
        me.current, me.problem = self._release, ""
        if me.holds(self._release):
            me.prepared = None
        if me.stage is Stage.SWAPPING:
            me.stage = Stage.CONNECTED
        return self._advance(now)

    def leaving(self, worker: int, now: float) -> list[Action]:
        """``worker`` ends in good order: the running deploy goes on with the others."""
        self._enter("leaving")
        me = self._workers.pop(worker, None)
        if me is None:
            return self._ignore()
        actions: list[Action] = []
        if me.stage is Stage.LOOKING and self._deploy is not None and self._deploy.release:
            actions = self._renumber(self._deploy.release, _NOT_LOOKED)
        return actions + self._advance(now)

    def gone(self, worker: int, now: float) -> list[Action]:
        """Connection ``worker`` is closed: the worker ended, or will connect again."""
        self._enter("gone")
        me = self._workers.pop(worker, None)
        if me is None:
            return self._ignore()
        if not me.asked or me.stage is Stage.TOLD:
            return self._advance(now)
        if me.stage is Stage.BUILDING:
            # Code that ends its process looks like this.  One that was ready had survived it.
            self._remember_failure()
        reason = f"worker {me.pid} went away when it was {me.stage.value}"
        return self._end(Outcome.FAILED, reason, now)

    def serving(self, pids: frozenset[int], now: float) -> list[Action]:
        """``pids`` are the workers that serve on this host right now, connected or not."""
        self._enter("serving")
        self._serving = pids
        return self._advance(now)

    def generations(self, worker: int, message: Generations) -> None:
        """``worker`` says how its generations stand, for the status."""
        if worker in self._workers:
            self._workers[worker].generations = message.generations

    def problems(self, worker: int, message: Problems) -> None:
        """``worker`` says what is wrong in it, for the status."""
        if worker in self._workers:
            self._workers[worker].problems = message.problems

    # -- time

    def tick(self, now: float) -> list[Action]:
        """Time has passed.  Due at :meth:`next_deadline`; more often does no harm."""
        self._enter("tick")
        deploy, deadline = self._deploy, self.next_deadline()
        if deploy is None or deadline is None or now < deadline:
            return []
        if now < deploy.deadline and self._book.waiting is not None:
            self._book.leave(deploy.digests)
            reason = f"order {self._book.waiting.order.id!r} is newer"
            return self._end(Outcome.SUPERSEDED, reason, now)
        limit = f"{self._build_timeout:g} s"
        if self._phase is Phase.READING:
            return self._end(Outcome.FAILED, f"the source was not read within {limit}", now)
        if self._phase is Phase.COMMITTING:
            silent = self._workers.at(Stage.SWAPPING)
            for one in silent:
                one.stage = Stage.CONNECTED
            pids = named(one.pid for one in silent)
            deploy.notes.append(f"{pids} did not confirm the swap in {ACKNOWLEDGE_WITHIN:g} s")
            return self._advance(now)
        if self._phase is Phase.HOLDING:
            reason = f"it was ready, and no word came within {deploy.hold:g} s"
            return self._end(Outcome.FAILED, reason, now)
        if self._workers.at(Stage.BUILDING):
            self._remember_failure()
        reason = f"{self._workers.lateness(self._serving)} within {limit}"
        return self._end(Outcome.FAILED, reason, now)

    def next_deadline(self) -> float | None:
        """When :meth:`tick` will have something to do; None: not by itself."""
        if self._deploy is None:
            return None
        impatient = self._book.impatient_at()
        waiting = self._book.waiting
        # What others hold as well is not given up for an order that can wait.
        urgent = waiting is not None and (waiting.order.force or waiting.order.back_to)
        held = self._phase is Phase.HOLDING and not urgent
        if impatient is None or held or self._phase is Phase.COMMITTING:
            return self._deploy.deadline
        return min(self._deploy.deadline, impatient)

    # -- which inputs count

    def _enter(self, event: str) -> bool:
        """Note that ``event`` happens; return whether it may, in this phase."""
        # Whatever comes after a Record's list shows that it was performed, all of it.
        self._unrecorded_over = None
        return event in LEGAL[self._phase]

    def _read(self, event: str) -> Deploy | None:
        """Return the deploy that this answers: each TakeSnapshot is, those of ended deploys too."""
        self._reads = max(0, self._reads - 1)
        return self._deploy if self._enter(event) and self._reads == 0 else None

    def _ignore(self) -> list[Action]:
        self._ignored += 1
        return []

    def _about_deploy(self, worker: int, number: int) -> bool:
        """Whether a worker's message is about the release that it was told to build."""
        me, release = self._workers.get(worker), self._deploy.release if self._deploy else None
        return me is not None and me.asked and release is not None and release.number == number

"""The two-phase decision of one host: every worker takes the new release, or none does.

Pure: no clock, no file, no socket, no thread.  Inputs are method calls that carry the time; each
returns the actions that the driver performs, in their order, before it calls anything else.  One
thread at a time may call a coordinator.

The charter, which the table :data:`LEGAL` below keeps (whatever it does not list is ignored):

* idle: nothing to do.  An order asks for a snapshot: reading.
* reading: the source is being read.  It is new code: canary.
* canary: ONE worker builds first, so that code which kills its process can't take them all.
  It is ready: preparing.
* preparing: all others build.  Every connected worker is ready, and every process that serves is
  connected: Record, and committing.  Anything else (a failure, a death, the deadline): Abort, idle.
* committing: the release is committed whatever happens now.  Everybody has swapped: idle.

While a deploy runs at most one order waits; leaving the deploy in whatever way starts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from genwsgi.deploy.actions import (
    Action,
    Order,
    Participant,
    Phase,
    Record,
    Report,
    Send,
    Statistics,
    TakeSnapshot,
)
from genwsgi.deploy.protocol import (
    Abort,
    Commit,
    Committed,
    Failed,
    Hello,
    OrderOutcome,
    Outcome,
    Prepare,
    Ready,
    Release,
    Status,
    Welcome,
    WorkerStatus,
    clip,
)

__all__ = ["LEGAL", "Action", "Coordinator", "Order", "Phase", "Record", "Report", "Send"]
__all__ += ["TakeSnapshot"]

_ALWAYS: Final = frozenset({"order", "hello", "failed", "committed", "gone", "serving", "tick"})
LEGAL: Final = {
    Phase.IDLE: _ALWAYS,
    Phase.READING: _ALWAYS | {"snapshot_taken", "snapshot_failed"},
    Phase.CANARY: _ALWAYS | {"ready"},
    Phase.PREPARING: _ALWAYS | {"ready"},
    Phase.COMMITTING: _ALWAYS | {"record_failed"},
}
_BUILDING: Final = (Phase.CANARY, Phase.PREPARING)

#: How long a worker has to say that it swapped, in seconds.
ACKNOWLEDGE_WITHIN: Final = 10.0
#: The trigger that orders on its own and so must not retry what failed.
_WATCH: Final = "watch"
_MOST_STRETCH: Final = 1024.0


@dataclass
class _Worker:
    pid: int
    current: Release | None
    prepared: Release | None
    problem: str = ""


@dataclass(frozen=True)
class _Pending:
    """An order that has no outcome yet, with what it took over from those it superseded."""

    order: Order
    since: float
    force: bool
    retry: bool

    def after(self, older: _Pending) -> _Pending:
        return replace(self, force=self.force or older.force, retry=self.retry or older.retry)


@dataclass
class _Deploy:
    pending: _Pending
    started: float
    deadline: float
    release: Release | None = None
    seconds: float = 0.0
    sent: set[int] = field(default_factory=set)
    ready: set[int] = field(default_factory=set)
    awaited: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def forget(self, worker: int) -> None:
        for group in (self.sent, self.ready, self.awaited):
            group.discard(worker)


class Coordinator:
    """Decides for one host.

    :param committed: the release that is recorded as committed.
    :param build_timeout: for reading the source, and again for building it everywhere, in seconds.
    :param patience: how long an order waits, at least, before it supersedes the running deploy;
        in seconds, more than 0.  See :meth:`tick`.
    """

    def __init__(
        self, committed: Release, *, build_timeout: float, patience: float = 1.0
    ) -> None:
        self._release = committed
        self._build_timeout = build_timeout
        self._patience = patience
        self._phase = Phase.IDLE
        self._workers: dict[int, _Worker] = {}
        self._serving: frozenset[int] = frozenset()
        self._deploy: _Deploy | None = None
        self._waiting: _Pending | None = None
        self._waiting_since = 0.0
        self._highest = committed.number
        self._unanswered_reads = 0
        self._revocable: Release | None = None
        self._failed_digest: str | None = None
        self._usual = 0.0
        self._stretch = 1.0
        self._last: OrderOutcome | None = None
        self._orders = 0
        self._outcomes: Counter[str] = Counter()
        self._ignored = 0

    def __repr__(self) -> str:
        return (
            f"<Coordinator {self._phase.value}, release {self._release.number} committed,"
            f" {len(self._workers)} workers>"
        )

    # -- What happens: orders and snapshots ---------------------------------------------------

    def order(self, order: Order, now: float) -> list[Action]:
        """``order`` was given.  It starts a deploy, or waits for the one that runs."""
        self._enter("order")
        self._orders += 1
        pending = _Pending(order, now, order.force, order.trigger != _WATCH)
        if self._deploy is None:
            return self._begin(pending, now)
        older, actions = self._waiting, list[Action]()
        if older is None:
            self._waiting_since = now
        else:
            # Not the newest order's own time: or a stream of orders would never be served.
            pending = pending.after(older)
            reason = f"order {order.id!r} is newer"
            actions.append(self._report(older, Outcome.SUPERSEDED, None, reason, now))
        self._waiting = pending
        return actions

    def snapshot_taken(self, digest: str, now: float, wall: float) -> list[Action]:
        """The snapshot asked for is there; ``wall`` is the time of day, in seconds since 1970."""
        deploy = self._read("snapshot_taken")
        if deploy is None:
            return self._ignore()
        pending = deploy.pending
        if not pending.force and digest == self._release.digest:
            reason = f"release {self._release.number} is this code already"
            return self._end(Outcome.UNCHANGED, reason, now)
        if not pending.force and not pending.retry and digest == self._failed_digest:
            reason = "this code failed before; change it, or order its deploy explicitly"
            return self._end(Outcome.UNCHANGED, reason, now)
        order, number = pending.order, self._next_number()
        deploy.release = Release(number, digest, order.trigger, clip(order.detail), wall)
        deploy.deadline = now + self._build_timeout
        self._phase = Phase.CANARY
        return self._advance(now)

    def snapshot_failed(self, reason: str, traceback: str, now: float) -> list[Action]:
        """The source can't be read or does not compile."""
        if self._read("snapshot_failed") is None:
            return self._ignore()
        return self._end(Outcome.FAILED, reason, now, traceback)

    def record_failed(self, reason: str, now: float) -> list[Action]:
        """The Record just asked for failed, and the rest of its list was dropped."""
        before = self._revocable
        if not self._enter("record_failed") or before is None:
            return self._ignore()
        self._release = before
        return self._end(Outcome.FAILED, f"it could not be recorded: {reason}", now)

    # -- What happens: workers ----------------------------------------------------------------

    def hello(self, worker: int, message: Hello, now: float) -> list[Action]:
        """A worker's agent has connected, as connection ``worker``."""
        self._enter("hello")
        inherits = self._forget_earlier(worker, message.pid)
        me = _Worker(message.pid, message.current, message.prepared)
        self._workers[worker] = me
        actions: list[Action] = [Send(worker, Welcome(self._release))]
        deploy = self._deploy
        numbers = [seen.number for seen in (me.current, me.prepared) if seen is not None]
        self._highest = max(self._highest, *numbers, 0)
        in_progress = deploy.release if deploy is not None else None
        if me.prepared is not None and me.prepared.number != self._release.number:
            if in_progress is None or not _same(me.prepared, in_progress):
                reason = "it was not committed, and nobody waits for it any more"
                actions.append(Send(worker, Abort(me.prepared.number, reason)))
                me.prepared = None
        if deploy is None or in_progress is None:
            return actions
        if self._phase is Phase.COMMITTING:
            if inherits and not (me.current and me.current.number == in_progress.number):
                deploy.awaited.add(worker)
            return actions + self._settle(now)
        if me.prepared is not None and _same(me.prepared, in_progress):
            deploy.sent.add(worker)
            deploy.ready.add(worker)
        elif in_progress.number <= max(numbers, default=0):
            actions += self._renumber(deploy, in_progress)
        return actions + self._advance(now)

    def ready(self, worker: int, message: Ready, now: float) -> list[Action]:
        """``worker`` says that it has built the release in progress."""
        deploy = self._deploy if self._enter("ready") else None
        if deploy is None or not self._asked(worker, message.release) or worker in deploy.ready:
            return self._ignore()
        deploy.ready.add(worker)
        return self._advance(now)

    def failed(self, worker: int, message: Failed, now: float) -> list[Action]:
        """``worker`` says that it can't build the release in progress, or the committed one."""
        self._enter("failed")
        me, deploy = self._workers.get(worker), self._deploy
        if deploy is not None and me is not None and self._asked(worker, message.release):
            self._remember_failed(deploy)
            reason = f"worker {me.pid}: {message.reason}"
            return self._end(Outcome.FAILED, reason, now, message.traceback)
        if me is None or message.release != self._release.number:
            return self._ignore()
        me.problem = clip(message.reason)
        if deploy is None or worker not in deploy.awaited:
            return []
        deploy.awaited.discard(worker)
        deploy.notes.append(f"worker {me.pid} could not swap: {message.reason}")
        return self._settle(now)

    def committed(self, worker: int, message: Committed, now: float) -> list[Action]:
        """``worker`` says that it serves the committed release."""
        self._enter("committed")
        me, number = self._workers.get(worker), self._release.number
        if me is None or message.release != number:
            return self._ignore()
        me.current, me.problem = self._release, ""
        if me.prepared is not None and me.prepared.number == number:
            me.prepared = None
        if self._deploy is not None:
            self._deploy.awaited.discard(worker)
        return self._settle(now)

    def gone(self, worker: int, now: float) -> list[Action]:
        """Connection ``worker`` is closed: the worker ended, or it will connect again."""
        self._enter("gone")
        me, deploy = self._workers.pop(worker, None), self._deploy
        if me is None:
            return self._ignore()
        if deploy is None:
            return []
        building = self._phase in _BUILDING and worker in deploy.sent
        ready = worker in deploy.ready
        deploy.forget(worker)
        if not building:
            return self._settle(now)
        if not ready:
            # Code that ends its process looks like this; a worker that was ready had survived it.
            self._remember_failed(deploy)
        doing = "was ready to swap" if ready else "was building"
        return self._end(Outcome.FAILED, f"worker {me.pid} went away while it {doing}", now)

    def serving(self, pids: frozenset[int], now: float) -> list[Action]:
        """``pids`` are the workers that serve on this host right now, connected or not."""
        self._enter("serving")
        self._serving = pids
        return self._advance(now)

    # -- What happens: time -------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """Time passes.  Call it at :meth:`next_deadline`, or whenever.

        A deploy that holds up an order for longer than it may be expected to take is superseded:
        longer than ``patience``, and twice what the last committed deploy took.  Each deploy that
        is superseded doubles that for the next, so that one which takes longer than ever before
        still gets its chance however many orders come.
        """
        self._enter("tick")
        deploy, waiting = self._deploy, self._waiting
        if deploy is None:
            return []
        if now >= deploy.deadline:
            return self._expire(deploy, now)
        patience_ends = self._patience_ends()
        if waiting is None or patience_ends is None or now < patience_ends:
            return []
        self._waiting = waiting.after(deploy.pending)
        return self._end(Outcome.SUPERSEDED, f"order {waiting.order.id!r} is newer", now)

    def next_deadline(self) -> float | None:
        """When :meth:`tick` will have something to do, on the same clock; None: not by itself."""
        if self._deploy is None:
            return None
        patience_ends = self._patience_ends()
        deadline = self._deploy.deadline
        return deadline if patience_ends is None else min(deadline, patience_ends)

    def _patience_ends(self) -> float | None:
        if self._waiting is None or self._phase is Phase.COMMITTING:
            return None
        return self._waiting_since + max(self._patience, 2 * self._usual) * self._stretch

    def _expire(self, deploy: _Deploy, now: float) -> list[Action]:
        limit = f"within {self._build_timeout:g} s"
        if self._phase is Phase.COMMITTING:
            silent = [self._workers[worker].pid for worker in sorted(deploy.awaited)]
            deploy.notes.append(f"{_workers(silent)} did not say that it swapped")
            deploy.awaited.clear()
            return self._settle(now)
        if self._phase is Phase.READING:
            return self._end(Outcome.FAILED, f"the source could not be read {limit}", now)
        if not self._workers and not self._serving:
            reason = f"no worker is connected, nor did one connect {limit}"
            return self._end(Outcome.FAILED, reason, now)
        if deploy.sent - deploy.ready:
            self._remember_failed(deploy)
        late = [me.pid for worker, me in self._workers.items() if worker not in deploy.ready]
        absent = self._serving - {me.pid for me in self._workers.values()}
        reasons = [f"{_workers(late)} not ready"] if late else []
        reasons += [f"{_workers(absent)} not connected"] if absent else []
        return self._end(Outcome.FAILED, f"{limit}: {', '.join(reasons)}", now)

    # -- What can be asked --------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What is being done."""
        return self._phase

    @property
    def release(self) -> Release:
        """The committed release."""
        return self._release

    @property
    def last(self) -> OrderOutcome | None:
        """The latest outcome of an order."""
        return self._last

    @property
    def participants(self) -> tuple[Participant, ...]:
        """The connected workers, in the order in which they connected."""
        return tuple(
            Participant(
                worker, me.pid, me.current and me.current.number, self._state(worker), me.problem
            )
            for worker, me in self._workers.items()
        )

    def needed(self) -> frozenset[str]:
        """The digests of the snapshots that a worker may be told to build, serves or has built."""
        releases = [self._release, self._deploy and self._deploy.release]
        for me in self._workers.values():
            releases += [me.current, me.prepared]
        return frozenset(release.digest for release in releases if release is not None)

    def status(self, triggers: dict[str, object]) -> Status:
        """The answer to a ``StatusRequest``; ``triggers`` holds each trigger's own status."""
        workers = tuple(WorkerStatus(one.pid, one.release) for one in self.participants)
        return Status(self._release, self._phase.value, workers, triggers, self._last)

    def statistics(self) -> Statistics:
        """This moment, frozen."""
        deploy = self._deploy
        return Statistics(
            phase=self._phase,
            release=self._release.number,
            in_progress=deploy.release.number if deploy and deploy.release else None,
            workers=len(self._workers),
            running=deploy.pending.order.id if deploy else None,
            waiting=self._waiting.order.id if self._waiting else None,
            orders=self._orders,
            outcomes=dict(self._outcomes),
            ignored=self._ignored,
        )

    # -- The moves ----------------------------------------------------------------------------

    def _begin(self, pending: _Pending, now: float) -> list[Action]:
        self._deploy = _Deploy(pending, started=now, deadline=now + self._build_timeout)
        self._phase = Phase.READING
        self._unanswered_reads += 1
        return [TakeSnapshot(pending.order)]

    def _advance(self, now: float) -> list[Action]:
        """Go as far as the workers' readiness allows."""
        deploy, actions = self._deploy, list[Action]()
        if deploy is None or deploy.release is None or self._phase not in _BUILDING:
            return actions
        if self._phase is Phase.CANARY:
            if deploy.ready:
                self._phase = Phase.PREPARING
            elif not deploy.sent and self._workers:
                return [self._prepare(deploy, deploy.release, self._choose_canary())]
            else:
                return actions
        for worker in self._workers:
            if worker not in deploy.sent:
                actions.append(self._prepare(deploy, deploy.release, worker))
        connected = {me.pid for me in self._workers.values()}
        if deploy.ready >= self._workers.keys() and connected >= self._serving:
            actions += self._commit(deploy, deploy.release, now)
        return actions

    def _choose_canary(self) -> int:
        """A worker that serves the committed release, if there is one: others have that to do."""

        def unfit(worker: int) -> bool:
            current = self._workers[worker].current
            return current is None or current.number != self._release.number

        return min(self._workers, key=unfit)

    def _prepare(self, deploy: _Deploy, release: Release, worker: int) -> Action:
        deploy.sent.add(worker)
        self._workers[worker].prepared = release
        return Send(worker, Prepare(release))

    def _commit(self, deploy: _Deploy, release: Release, now: float) -> Iterator[Action]:
        self._revocable, self._release = self._release, release
        self._phase = Phase.COMMITTING
        deploy.seconds = now - deploy.started
        deploy.deadline = now + ACKNOWLEDGE_WITHIN
        deploy.awaited = set(self._workers)
        yield Record(release)
        for worker in self._workers:
            yield Send(worker, Commit(release.number))

    def _settle(self, now: float) -> list[Action]:
        """End the deploy if it is committed and nobody is waited for any more."""
        deploy = self._deploy
        if deploy is None or self._phase is not Phase.COMMITTING or deploy.awaited:
            return []
        self._usual = deploy.seconds
        if self._failed_digest == self._release.digest:
            self._failed_digest = None
        return self._end(Outcome.COMMITTED, "; ".join(deploy.notes), now)

    def _end(self, outcome: str, reason: str, now: float, traceback: str = "") -> list[Action]:
        """End the running deploy, and begin that of the waiting order."""
        deploy, actions = self._deploy, list[Action]()
        assert deploy is not None, "only a running deploy ends"
        if outcome != Outcome.COMMITTED and deploy.release is not None:
            actions += self._abort(deploy, deploy.release.number, f"{outcome}: {reason}")
        number = deploy.release.number if deploy.release else None
        if outcome == Outcome.UNCHANGED:
            number = self._release.number
        actions.append(self._report(deploy.pending, outcome, number, reason, now, traceback))
        superseded = outcome == Outcome.SUPERSEDED
        self._stretch = min(2 * self._stretch, _MOST_STRETCH) if superseded else 1.0
        self._deploy, self._phase, self._revocable = None, Phase.IDLE, None
        waiting, self._waiting = self._waiting, None
        return actions if waiting is None else actions + self._begin(waiting, now)

    def _abort(self, deploy: _Deploy, number: int, reason: str) -> Iterator[Action]:
        for worker in sorted(deploy.sent):
            self._workers[worker].prepared = None
            yield Send(worker, Abort(number, clip(reason)))
        deploy.sent.clear()
        deploy.ready.clear()

    def _renumber(self, deploy: _Deploy, release: Release) -> list[Action]:
        """Begin the build again under a new number, for another release had this one already.

        So it is when an order came before the workers reached a restarted coordinator, which could
        not know the number that was in progress when it died.
        """
        actions = list(self._abort(deploy, release.number, "its number was taken"))
        deploy.release = replace(release, number=self._next_number())
        self._phase = Phase.CANARY
        return actions

    def _report(
        self,
        pending: _Pending,
        outcome: str,
        number: int | None,
        reason: str,
        now: float,
        traceback: str = "",
    ) -> Report:
        order, seconds = pending.order, now - pending.since
        self._outcomes[outcome] += 1
        self._last = OrderOutcome(
            order.id, outcome, number, clip(reason), clip(traceback), seconds
        )
        return Report(order, self._last)

    def _enter(self, event: str) -> bool:
        """Note that ``event`` happens; return whether it may, in this phase."""
        # Whatever else comes first shows that the Record was written.
        self._revocable = None
        return event in LEGAL[self._phase]

    def _ignore(self) -> list[Action]:
        self._ignored += 1
        return []

    def _read(self, event: str) -> _Deploy | None:
        """Return the deploy that waited for this answer; a deploy given up may get one, too."""
        self._unanswered_reads = max(0, self._unanswered_reads - 1)
        return self._deploy if self._enter(event) and not self._unanswered_reads else None

    def _asked(self, worker: int, number: int) -> bool:
        deploy = self._deploy
        return (
            deploy is not None
            and deploy.release is not None
            and self._phase in _BUILDING
            and worker in deploy.sent
            and number == deploy.release.number
        )

    def _forget_earlier(self, worker: int, pid: int) -> bool:
        """Forget earlier connections of a process; return whether its swap is waited for."""
        earlier = [key for key, me in self._workers.items() if key == worker or me.pid == pid]
        awaited = False
        for key in earlier:
            del self._workers[key]
            if self._deploy is not None:
                awaited = awaited or key in self._deploy.awaited
                self._deploy.forget(key)
        return awaited

    def _remember_failed(self, deploy: _Deploy) -> None:
        self._failed_digest = deploy.release and deploy.release.digest

    def _next_number(self) -> int:
        self._highest += 1
        return self._highest

    def _state(self, worker: int) -> str:
        deploy = self._deploy
        if deploy is None or worker not in deploy.sent:
            return "connected"
        if self._phase is Phase.COMMITTING:
            return "swapping" if worker in deploy.awaited else "connected"
        return "ready" if worker in deploy.ready else "building"


def _same(one: Release, other: Release) -> bool:
    return (one.number, one.digest) == (other.number, other.digest)


def _workers(pids: Iterator[int] | list[int] | frozenset[int]) -> str:
    return "worker " + ", ".join(str(pid) for pid in sorted(pids))

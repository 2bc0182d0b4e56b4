"""What those who operate the server ask of its coordinator besides orders, answered.

One thread, the coordinator's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from genwsgi.deploy import control, processes
from genwsgi.deploy.coordinator import Coordinator
from genwsgi.deploy.differences import compare
from genwsgi.deploy.framing import clean, clip
from genwsgi.deploy.history import History
from genwsgi.deploy.inquiry import Inquiries
from genwsgi.deploy.kept import KeptReleases
from genwsgi.deploy.peers import Peer, Peers
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import Cancel, Cancelled, Generations, Outcome, Tell
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import GenwsgiError
from genwsgi.isolation.store import Store

#: How long a status waits for the workers to say how they stand, in seconds.
TELL_WITHIN = 0.5

#: How long to wait for the workers to end requests, in seconds: longer than they may take.
CANCEL_WITHIN = 5.0

#: How many outcomes a status shows.
RECENT = 10

T = TypeVar("T")


class Answers:
    """Answers requests, some of them after the workers have answered.

    :param triggers: gives the triggers' status, by name.
    :param trial: how the running probation stands; empty: none runs.
    :param resumed: called when automatic orders are taken again.
    """

    def __init__(
        self,
        decision: Coordinator,
        peers: Peers,
        directory: RunDirectory,
        store: Store,
        *,
        history: History,
        kept: KeptReleases,
        problems: ProblemBook,
        log: logging.Logger,
        triggers: Callable[[], dict[str, object]],
        trial: Callable[[], str],
        resumed: Callable[[], object],
    ) -> None:
        self._decision = decision
        self._peers = peers
        self._directory = directory
        self._store = store
        self._history = history
        self._kept = kept
        self._problems = problems
        self._log = log
        self._triggers = triggers
        self._trial = trial
        self._resumed = resumed
        self.inquiries = Inquiries()

    def answer(self, peer: Peer, request: control.Question) -> None:
        """Answer ``request`` of ``peer``, now or soon."""
        if isinstance(request, control.StatusRequest):
            self._ask(
                Tell(), Generations, TELL_WITHIN, lambda _told: self._send(peer, self.status())
            )
        elif isinstance(request, control.CancelRequest):
            self._ask(
                Cancel(request.generation),
                Cancelled,
                CANCEL_WITHIN,
                lambda told: self._send(peer, cancelled(request.generation, told)),
                request.pid,
            )
        elif isinstance(request, control.HistoryRequest):
            entries = self._history.latest(request.count)
            self._send(peer, control.History(tuple(map(self._with_kept, entries))))
        elif isinstance(request, control.DiffRequest):
            self._send(peer, self._diff(request))
        elif isinstance(request, control.PauseRequest):
            self._send(peer, self._pause(request))
        else:
            self._send(peer, self._restart(request))

    def status(self) -> control.Status:
        """How the server stands, as far as the workers have told."""
        status = self._decision.status(self._triggers(), self._problems.now)
        return replace(
            status,
            workers=tuple(
                replace(one, memory=processes.memory(one.pid), uptime=processes.uptime(one.pid))
                for one in status.workers
            ),
            recent=tuple(map(self._with_kept, self._history.latest(RECENT))),
            paused=self._directory.paused(),
            quiet=self._decision.quiet,
            trial=self._trial(),
        )

    def _ask(
        self,
        question: Tell | Cancel,
        kind: type[T],
        seconds: float,
        then: Callable[[dict[int, T]], None],
        pid: int | None = None,
    ) -> None:
        """Ask the workers, or one of them, and go on when they have answered."""
        asked = [one.worker for one in self._decision.participants if pid is None or one.pid == pid]
        # First the list, then the question: to send can be to learn that a worker is gone.
        self.inquiries.ask(asked, kind, time.monotonic() + seconds, then)
        for worker in asked:
            peer = self._peers.get(worker)
            if peer is not None:
                self._peers.send(peer, question)

    def _send(self, peer: Peer, answer: control.ToClient) -> None:
        if self._peers.get(peer.number) is peer:
            self._peers.send(peer, answer)

    def _with_kept(self, entry: control.HistoryEntry) -> control.HistoryEntry:
        kept = entry.outcome == Outcome.COMMITTED and (entry.release, entry.digest) in self._kept
        # It may have been deleted with the run directory.
        return replace(entry, kept=kept and self._store.has(entry.digest))

    def _diff(self, request: control.DiffRequest) -> control.Diff:
        try:
            other = self._kept.find(request.other) if request.other else self._decision.release
            one = self._kept.find(request.one) if request.one else self._kept.before(other)
            with ExitStack() as held:
                snapshots = []
                for release in (one, other):
                    snapshots.append(self._store.open(release.digest))
                    held.callback(snapshots[-1].release)
                found = compare(*snapshots)
        except GenwsgiError as error:
            return control.Diff(None, None, (), (), (), 0, "", clip(str(error)))
        return control.Diff(
            one, other, found.added, found.removed, found.changed, found.more, found.text, ""
        )

    def _pause(self, request: control.PauseRequest) -> control.Done:
        before = self._directory.paused()
        if (before is not None) == request.paused:
            return control.Done(True, f"automatic deploys {in_words(before)} already")
        why = clean(clip(request.detail, 1000))
        after = control.Pause(why, time.time()) if request.paused else None
        try:
            self._directory.pause(after)
        except OSError as error:
            return control.Done(False, f"it can't be written down: {error}")
        self._log.info("automatic deploys %s", in_words(after))
        if after is None:
            self._resumed()
        return control.Done(True, f"automatic deploys {in_words(after)}")

    def _restart(self, request: control.RestartRequest) -> control.Done:
        try:
            self._directory.ask_restart()
        except OSError as error:
            return control.Done(False, f"the master can't be told: {error}")
        self._log.info("the workers are to be replaced: %s", clean(request.detail))
        return control.Done(
            True, "the master replaces the workers; connections that are kept open end with them"
        )


def in_words(pause: control.Pause | None) -> str:
    """What automatic deploys are."""
    if pause is None:
        return "go on"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(pause.since))
    return f"are paused by {pause.by} since {since}"


def cancelled(generation: int, told: Mapping[int, Cancelled]) -> control.Done:
    """Put into words what has become of the requests of a generation."""
    ended = sum(one.ended for one in told.values())
    left = sum(one.left for one in told.values())
    if not ended + left:
        reason = f"no worker has a replaced generation {generation} that owes a response"
        return control.Done(False, reason)
    requests = "1 request" if ended == 1 else f"{ended} requests"
    done = f"{requests} of generation {generation} {'is' if ended == 1 else 'are'} ended"
    if not left:
        return control.Done(True, done)
    return control.Done(
        False, f"{done}; {left} can't be interrupted, and {'go' if left > 1 else 'goes'} on"
    )

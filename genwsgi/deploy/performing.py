"""Carries out what the decision asks for: reads the source, records the commit, tells everybody.

One thread, the coordinator's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from genwsgi.deploy import protocol
from genwsgi.deploy.actions import Action, Held, Order, Record, Report, Send, TakeSnapshot
from genwsgi.deploy.chronicle import Chronicle
from genwsgi.deploy.clients import Clients
from genwsgi.deploy.coordinator import Coordinator
from genwsgi.deploy.desk import Desk
from genwsgi.deploy.framing import clean, clip
from genwsgi.deploy.history import History
from genwsgi.deploy.journal import Journal
from genwsgi.deploy.kept import KeptReleases
from genwsgi.deploy.orders import WATCH
from genwsgi.deploy.peers import Peers
from genwsgi.deploy.problems import NO_MORE
from genwsgi.deploy.protocol import OrderOutcome, Outcome, Progress, Release, Step
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.source import Reading, Source
from genwsgi.deploy.upkeep import Upkeep
from genwsgi.errors import GenwsgiError, OrderError, SnapshotError

#: Between two words on how many files are compiled, in seconds.
PROGRESS: Final = 0.05


class Performer:
    """Carries out lists of actions, each whole, and keeps what has to be known of the outcomes.

    :param announce: called before anything that takes its time.
    :param moved: called with the folders and files to watch from now on: a commit may change them.
    :param watched: those that triggers watch.
    :param committed: called with each release that is committed.
    """

    def __init__(
        self,
        directory: RunDirectory,
        source: Source,
        decision: Coordinator,
        *,
        peers: Peers,
        clients: Clients,
        desk: Desk,
        kept: KeptReleases,
        history: History,
        upkeep: Upkeep,
        chronicle: Chronicle,
        log: logging.Logger,
        watched: Sequence[str] = (),
        moved: Callable[[Sequence[str]], None] = lambda _places: None,
        announce: Callable[[], None] = lambda: None,
        committed: Callable[[Release], None] = lambda _release: None,
    ) -> None:
        self._directory = directory
        self._source = source
        self._decision = decision
        self._peers = peers
        self._clients = clients
        self._desk = desk
        self._kept = kept
        self._history = history
        self._upkeep = upkeep
        self._chronicle = chronicle
        self._log = log
        self._moved = moved
        self._announce = announce
        self._committed = committed
        self.journal = Journal(directory, upkeep.failed)
        # What triggers watch, and what concerns the release that was read last.
        self._watched = self._read = tuple(watched)
        self._swept: frozenset[str] | None = None
        self._lists: deque[list[Action]] = deque()
        self._departed: deque[int] = deque()
        self._performing = False

    def order(self, order: Order, attempt: int = 1) -> None:
        """Have ``order`` decided, for the ``attempt``-th time."""
        # It may be made of a file's name, or of anything that a client says.
        order = replace(order, detail=clean(order.detail))
        self.journal.add(order, attempt)
        self._chronicle.ordered(order)
        self.perform(self._decision.order(order, time.monotonic()))

    def gone(self, worker: int) -> None:
        """The connection of ``worker`` is closed."""
        self._departed.append(worker)
        self.perform(())

    def perform(self, actions: Iterable[Action]) -> None:
        """Carry out one list of actions after the other, each whole.

        To send can be to learn that a worker is gone, which the decision must not be told in the
        middle of what it has just decided: so both wait in line here.
        """
        self._lists.append(list(actions))
        if self._performing:
            return
        self._performing = True
        try:
            while self._lists or self._departed:
                if self._lists:
                    self._carry_out(self._lists.popleft())
                else:
                    now = time.monotonic()
                    self._lists.append(self._decision.gone(self._departed.popleft(), now))
        finally:
            self._performing = False

    def sweep(self) -> None:
        """Remove the snapshots that nobody needs and that are not kept."""
        try:
            if not self._directory.is_whole() or not self._directory.is_ours():
                return  # what was there is still to be made again, or what is there is another's
        except OSError:
            return  # it can't be seen
        store = self._source.store
        needed = self._decision.needed() | set(filter(store.has, self._kept.digests))
        if needed == self._swept:
            return
        self._swept = needed
        try:
            self._upkeep.remember(needed)
            store.sweep(needed)
            if not needed.issuperset(store.digests()):
                self._swept = None  # a generation that drains holds one: look again later
        except (OSError, ValueError) as error:
            self._log.warning("old snapshots can't be removed: %s", error)

    def progress(self, pid: int | None, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell whoever follows the order that is being served how far it is."""
        order = self._decision.statistics().running
        if order is not None:
            self._clients.progress(Progress(order, pid, stage, done, total))

    def _carry_out(self, actions: list[Action]) -> None:
        recorded: Release | None = None
        for action in actions:
            if isinstance(action, TakeSnapshot):
                self._announce()
                self._take_snapshot(action)
            elif isinstance(action, Record):
                try:
                    self._directory.record(action.release)
                except OSError as error:
                    self._upkeep.failed(error)
                    reason = f"the commit can't be recorded: {error}"
                    # The very next thing the decision hears; the rest of the list is void.
                    failed = self._decision.record_failed(reason, time.monotonic())
                    self._lists.appendleft(failed)
                    return
                self._chronicle.ready(self._decision.deploy, time.monotonic())
                recorded = action.release
            elif isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Report):
                self.report(action.order, action.outcome)
            elif isinstance(action, Held):
                self._hold(action)
        if recorded is not None:
            self._recorded(recorded)

    def _send(self, action: Send) -> None:
        peer = self._peers.get(action.worker)
        if peer is None:
            return
        self._peers.send(peer, action.message)
        if isinstance(action.message, protocol.Prepare):
            self.progress(self._decision.pid(action.worker), Step.BUILDING)

    def _take_snapshot(self, action: TakeSnapshot) -> None:
        self._swept = None
        if action.additions:
            self._chronicle.grows(action.order, action.additions)
        order = action.order
        try:
            self._directory.guard()
            reading = self._restore(order.back_to) if order.back_to else self._look(action)
        except (GenwsgiError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in NO_MORE:
                self._upkeep.failed(cause)
            trace = getattr(error, "traceback", "")
            now = time.monotonic()
            refused = isinstance(error, OrderError)
            self.perform(
                self._decision.snapshot_failed(clip(str(error)), clip(trace), now, refused=refused)
            )
        else:
            self._read = reading.watched
            now = time.monotonic()
            self.perform(self._decision.serving(self._directory.serving(), now))
            actions = self._decision.snapshot_taken(reading.digest, now, time.time(), reading.path)
            self._chronicle.read(self._decision.deploy, now)
            self.perform(actions)

    def _look(self, action: TakeSnapshot) -> Reading:
        """Read the source as it is on disk now."""
        self.progress(None, Step.READING)
        order = action.order
        due = time.monotonic() + PROGRESS

        def compiles(done: int, total: int) -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due:
                due = now + PROGRESS
                self.progress(None, Step.COMPILING, done, total)

        return self._source.read(
            self._decision.release.digest,
            action.additions,
            action.path,
            order.modules,
            order.path,
            compiles,
        )

    def _restore(self, number: int) -> Reading:
        """What was read for a release that is kept.

        :raises OrderError: it is not kept.
        """
        release = self._kept.find(number)
        try:
            self._source.store.open(release.digest).release()
        except SnapshotError as error:
            raise OrderError(f"release {number} can't be gone back to: {error}") from error
        watched = self._watched
        if release.path != self._decision.release.path:
            with contextlib.suppress(GenwsgiError):  # its folders may be gone; its snapshot is not
                watched = tuple(self._source.scope(release.path).watched)
        return Reading(release.digest, release.path, watched)

    def _recorded(self, release: Release) -> None:
        """A release is committed, and the workers are told: what else there is to do."""
        self._committed(release)
        self._kept.commit(release)
        try:
            self._directory.keep_releases(self._kept.releases)
        except OSError as error:
            self._upkeep.failed(error)
        self._follow()

    def _follow(self) -> None:
        """Have the folders watched that the code of the committed release is imported from."""
        if self._read == self._watched:
            return
        self._watched = self._read
        try:
            self._moved(self._watched)
        except Exception:  # noqa: BLE001 -- it is logged; a trigger may be somebody else's code
            self._log.exception("the folders that code comes from now can't be watched")

    def _hold(self, held: Held) -> None:
        self._chronicle.held(held.order)
        self._desk.held(held.order, held.release, held.seconds)

    def report(self, order: Order, outcome: OrderOutcome) -> None:
        """Tell the log, the history and whoever gave ``order`` how it has ended."""
        self.journal.remove(order)
        release = self._decision.release
        # It may be what the application has raised, or made of a file's name.
        outcome = replace(outcome, reason=clean(outcome.reason))
        outcome = self._desk.ended(outcome, release)
        self._chronicle.ended(order, outcome, release)
        if outcome.outcome == Outcome.COMMITTED and release.aside:
            self._log.info("%s", self._decision.quiet)
        # That the watch has found nothing new is no news.
        if order.trigger != WATCH or outcome.outcome != Outcome.UNCHANGED:
            about = release if outcome.outcome == Outcome.COMMITTED else None
            self._history.add(outcome, order.trigger, order.detail, about, time.time())
        self._clients.ended(outcome)

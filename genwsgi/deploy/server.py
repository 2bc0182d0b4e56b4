"""The coordinator's sockets: carries out what :mod:`genwsgi.deploy.coordinator` decides.

One thread runs the loop and owns everything in it; :meth:`CoordinatorServer.submit` is the only way
in for others (triggers), through a queue.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from genwsgi.deploy import control, framing, protocol
from genwsgi.deploy.answers import Answers
from genwsgi.deploy.chronicle import Chronicle
from genwsgi.deploy.clients import Clients
from genwsgi.deploy.coordinator import Coordinator
from genwsgi.deploy.desk import Desk
from genwsgi.deploy.entrance import Entrance
from genwsgi.deploy.figures import Collection, Figures
from genwsgi.deploy.history import History
from genwsgi.deploy.intake import SIGHUP, Intake
from genwsgi.deploy.kept import KeptReleases
from genwsgi.deploy.orders import WATCH
from genwsgi.deploy.peers import Peer, Peers
from genwsgi.deploy.performing import Performer
from genwsgi.deploy.probation import Probation
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import Step
from genwsgi.deploy.questions import Questions
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.source import Source
from genwsgi.deploy.standing import Word, in_brief
from genwsgi.deploy.trials import Trials
from genwsgi.deploy.upkeep import Upkeep

#: How often a deploy looks which workers there are, in seconds: some go without a word.
SERVING = 0.1

#: What the master writes into the coordinator's pipe when it got a SIGHUP.
HANG_UP = b"H"

#: And when it can't start workers, again and again, and when it can again.
WORKERS_LACK, WORKERS_START = b"w", b"W"


class CoordinatorServer:
    """The coordinator of one host's server.

    :param source: reads the application's tree.
    :param build_timeout: how long a worker may take to build, in seconds.
    :param master: read end of a pipe whose write end only the master has: it ends with the master.
    :param triggers: gives the triggers' status, by name.
    :param watched: the folders and files that triggers watch.
    :param moved: called with those to watch from now on: a commit may change them.
    :param recovered: called when deploys that the system did not allow are possible again.
    :param announce: called with what there is to say of the host, whenever that has changed.
    :param keep: how many releases before the committed one can be gone back to.
    :param trusted: returns the real path of a folder that a client's order names, or raises
        :class:`~genwsgi.errors.OrderError`.
    :param state: the folder of what outlives the server: the history.
    :param probation: the rule by which a release is kept or left; ``None``: each is kept.
    :ivar tallies: what has become of the requests, where they are counted.
    """

    def __init__(
        self,
        directory: RunDirectory,
        source: Source,
        *,
        build_timeout: float,
        log: logging.Logger,
        master: int | None = None,
        triggers: Callable[[], dict[str, object]] = dict,
        watched: Sequence[str] = (),
        moved: Callable[[Sequence[str]], None] = lambda _places: None,
        recovered: Callable[[], object] = lambda: None,
        announce: Callable[[Word], object] | None = None,
        keep: int = 0,
        state: str | None = None,
        trusted: Callable[[str], str] = os.path.realpath,
        probation: Probation | None = None,
    ) -> None:
        self._directory = directory
        self._log = log
        self._master = master
        self._triggers = triggers
        self._announce = announce
        self._announced: Word | None = None
        self._collection = Collection()
        self.tallies = self._collection.tallies
        self._questions = Questions(self._wake)
        self._decision = Coordinator(directory.committed(), build_timeout=build_timeout)
        self._problems = ProblemBook(log)
        self._upkeep = Upkeep(directory, source.store, self._problems, self._write_again, recovered)
        self._desk = Desk(self._wake, log)
        self._chronicle = Chronicle(log)
        self._wake_in, self._wake_out = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._peers = Peers(self._selector, log, self._hear, self._forget, self._cant_accept)
        self._entrance = Entrance(directory.socket, self._selector, self._peers.accept)
        # As it was at the last look, should it be deleted.
        self._paused = directory.paused()
        self._clients = Clients(self._peers)
        self._kept = KeptReleases([*directory.releases(), self._decision.release], keep)
        self._history = History(state, self._problems, log)
        self._trials = Trials(
            probation,
            self.tallies,
            self._decision.release,
            lambda release, reason, then: self._intake.condemn(release, reason, then),
            self._problems,
            lambda: self._decision.phase == "idle",
            log,
        )
        self._performer = Performer(
            directory,
            source,
            self._decision,
            peers=self._peers,
            clients=self._clients,
            desk=self._desk,
            kept=self._kept,
            history=self._history,
            upkeep=self._upkeep,
            chronicle=self._chronicle,
            log=log,
            watched=watched,
            moved=moved,
            announce=self._say,
            committed=self._commits,
        )
        self._intake = Intake(
            directory,
            self._decision,
            self._performer,
            clients=self._clients,
            desk=self._desk,
            kept=self._kept,
            history=self._history,
            log=log,
            watched=lambda: WATCH in self._ask_triggers(),
            trusted=trusted,
        )
        self._answers = Answers(
            self._decision,
            self._peers,
            directory,
            source.store,
            history=self._history,
            kept=self._kept,
            problems=self._problems,
            log=log,
            triggers=self._ask_triggers,
            trial=lambda: self._trials.standing(time.monotonic()),
            resumed=self._intake.look_again,
        )
        self._serving_due = 0.0
        self._stopped = False

    def submit(self, trigger: str, detail: str, **order: Any) -> str:
        """Hand in an order and return its id, as :meth:`Desk.submit` does.  Any thread."""
        return self._desk.submit(trigger, detail, **order)

    def figures(self, timeout: float) -> Figures:
        """What there is to measure, now.  Any thread but the coordinator's.

        :param timeout: how long to wait, as while the source is read, in seconds.
        :raises TimeoutError: the coordinator was busy for that long.
        """
        return self._questions.ask(self._measure, timeout)

    def _measure(self) -> Figures:
        return self._collection.now(self._answers.status(), self._desk.outcomes)

    def stop(self) -> None:
        """End :meth:`run` soon.  Any thread, or a signal handler, may call this."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.send(b"!")

    def run(self) -> None:
        """Coordinate until the master is gone or :meth:`stop` is called."""
        self._open()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._take_submitted)
        if self._master is not None:
            os.set_blocking(self._master, False)
            self._selector.register(self._master, selectors.EVENT_READ, self._hear_master)
        try:
            self._history.begin(self._decision.release)
            self._intake.resume()
            while not self._stopped:
                for key, events in self._selector.select(self._patience()):
                    if isinstance(key.data, Peer):
                        self._peers.serve(key.data, events)
                    else:
                        key.data(key.fileobj)
                self._tick()
        finally:
            self._peers.close()
            self._entrance.close()
            for end in (self._wake_in, self._wake_out):
                end.close()
            self._selector.close()

    def _open(self) -> None:
        self._entrance.open()
        self._upkeep.listening()

    def _cant_accept(self, error: OSError) -> None:
        """There is no descriptor for the next connection."""
        self._upkeep.failed(error)
        self._entrance.shut_out()

    def _patience(self) -> float:
        moments = [
            self._decision.next_deadline(),
            self._answers.inquiries.next_deadline(),
            self._trials.deadline,
        ]
        due = min([self._upkeep.due, *(moment for moment in moments if moment is not None)])
        left = max(0.0, due - time.monotonic())
        return left if self._decision.phase == "idle" else min(SERVING, left)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._decision.phase != "idle" and now >= self._serving_due:
            self._serving_due = now + SERVING
            self._performer.perform(self._decision.serving(self._directory.serving(), now))
        self._performer.perform(self._decision.tick(now))
        self._answers.inquiries.tick(now)
        self._trials.tick(now)
        if self._decision.phase == "idle":
            self._performer.sweep()
        if now >= self._upkeep.due:
            self._look(now)
        self._say()

    def _look(self, now: float) -> None:
        """Look after the run directory, and at what is wrong elsewhere."""
        self._upkeep.look(now, self._decision.release)
        if self._directory.is_whole():
            self._paused = self._directory.paused()
        if "descriptors" not in self._problems:
            self._entrance.let_in()
        for name, status in self._ask_triggers().items():
            problem = status.get("problem") if isinstance(status, dict) else None
            if problem:
                self._problems.begin(name, f"{name}: {problem}", logged=True)
            else:
                self._problems.end(name)

    def _write_again(self) -> None:
        """Write into the run directory what it has lost but for snapshots.

        :raises OSError: it can't be written.
        """
        self._directory.record(self._decision.release)
        self._directory.keep_releases(self._kept.releases)
        self._directory.pause(self._paused)
        self._performer.journal.write()
        for one in self._decision.participants:
            if one.release is not None:
                self._directory.begin_serving(one.pid)
                self._directory.first("served")
        self._open()

    def _say(self) -> None:
        """Announce how the host stands, if that is news."""
        if self._announce is None:
            return
        decision = self._decision
        standing = decision.statistics()
        word = in_brief(
            decision.release,
            standing.workers,
            deploying=standing.running,
            last=decision.last,
            problems=(*self._problems.now, *decision.found),
        )
        if word != self._announced:
            self._announced = word
            self._announce(word)

    # -- connections

    def _hear(self, peer: Peer, message: framing.Message) -> None:
        if isinstance(message, protocol.FromWorker):
            self._collection.hear(message)
            self._hear_worker(peer, message)
            self._answers.inquiries.hear(peer.number, message)
        elif isinstance(message, protocol.OrderRequest | protocol.RollbackRequest):
            self._intake.ask(peer, message)
        elif isinstance(message, control.Question):
            self._answers.answer(peer, message)
        else:
            self._log.error("a peer sent a %s, which is not for the coordinator", message)
            self._peers.lose(peer)

    def _hear_worker(self, peer: Peer, message: protocol.FromWorker) -> None:
        now, worker = time.monotonic(), peer.number
        decision, performer = self._decision, self._performer
        if isinstance(message, protocol.Hello):
            self._peers.watch(peer)
            # One that is there in the place of others, and may have the number of one of them.
            living = {one.pid for one in decision.participants}
            self.tallies.fold(living | self._directory.serving())
            performer.perform(decision.hello(worker, message, now))
        elif isinstance(message, protocol.Building):
            performer.progress(decision.pid(worker), message.stage, message.done, message.total)
            performer.perform(decision.building(worker, message, now))
        elif isinstance(message, protocol.Ready):
            performer.progress(decision.pid(worker), Step.READY)
            # The decision needs to know who serves before it can say that all are ready.
            performer.perform(decision.serving(self._directory.serving(), now))
            performer.perform(decision.ready(worker, message, now))
        elif isinstance(message, protocol.Failed):
            performer.perform(decision.failed(worker, message, now))
        elif isinstance(message, protocol.Committed):
            self._desk.serves(message)
            performer.progress(decision.pid(worker), Step.COMMITTED)
            performer.perform(decision.committed(worker, message, now))
        elif isinstance(message, protocol.Generations):
            decision.generations(worker, message)
        elif isinstance(message, protocol.Problems):
            decision.problems(worker, message)
        elif isinstance(message, protocol.Counts):
            self._trials.heard(message, now)
        elif isinstance(message, protocol.Leaving):
            performer.perform(decision.leaving(worker, now))

    def _forget(self, peer: Peer) -> None:
        self._clients.forget(peer)
        if peer.worker:
            self._performer.gone(peer.number)
        self._answers.inquiries.lost(peer.number)

    # -- orders

    def _commits(self, release: protocol.Release) -> None:
        self._trials.committed(release, time.monotonic())
        self._intake.committed(release)

    def _take_submitted(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        self._questions.answer()
        for submission in self._desk.submissions():
            self._intake.take(submission)

    def _hear_master(self, pipe: int) -> None:
        try:
            data = os.read(pipe, 4096)
        except BlockingIOError:
            return
        if not data:
            self._stopped = True
        if HANG_UP in data:
            self.submit(SIGHUP, "the master was told to reload", force=True)
        if WORKERS_LACK in data:
            text = "the master can't start workers, and its log says why; those there are serve on"
            self._problems.begin("workers", text, logged=True)
        if data.rfind(WORKERS_START) > data.rfind(WORKERS_LACK):
            self._problems.end("workers")

    def _ask_triggers(self) -> dict[str, object]:
        try:
            return self._triggers()
        except Exception:  # noqa: BLE001 -- it is logged; a trigger may be somebody else's code
            self._log.exception("a trigger can't say how it stands")
            return {}

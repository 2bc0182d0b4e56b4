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
from dataclasses import replace
from typing import Any

from genwsgi.deploy import control, framing, protocol
from genwsgi.deploy.actions import Order
from genwsgi.deploy.answers import Answers, in_words
from genwsgi.deploy.chronicle import Chronicle
from genwsgi.deploy.clients import Clients
from genwsgi.deploy.coordinator import Coordinator
from genwsgi.deploy.desk import Desk, Submission, new_id
from genwsgi.deploy.figures import Collection, Figures
from genwsgi.deploy.history import History
from genwsgi.deploy.kept import KeptReleases
from genwsgi.deploy.orders import WATCH
from genwsgi.deploy.peers import Peer, Peers
from genwsgi.deploy.performing import Performer
from genwsgi.deploy.probation import Probation
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import OrderOutcome, Outcome, Step
from genwsgi.deploy.questions import Questions
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.source import Source
from genwsgi.deploy.standing import Word, in_brief
from genwsgi.deploy.trials import PROBATION, Trials
from genwsgi.deploy.upkeep import Upkeep
from genwsgi.errors import OrderError

#: How often an order is taken up again after the coordinator died over it.
ATTEMPTS = 2

#: What the master writes into the coordinator's pipe when it got a SIGHUP.
HANG_UP = b"H"

#: And when it can't start workers, again and again, and when it can again.
WORKERS_LACK, WORKERS_START = b"w", b"W"

#: The triggers of orders that are given here; what is given by others can be paused.
SIGHUP = "SIGHUP"
ROLLBACK = "rollback"


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
        self._trusted = trusted
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
        self._listener: socket.socket | None = None
        # As it was at the last look, should it be deleted.
        self._paused = directory.paused()
        # Whether nobody looks for new connections, since there is no descriptor for them.
        self._deaf = False
        self._clients = Clients(self._peers)
        self._kept = KeptReleases([*directory.releases(), self._decision.release], keep)
        self._history = History(state, self._problems, log)
        self._trials = Trials(probation, self.tallies, self._decision.release, self._condemn, log)
        self._condemning = ""
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
            resumed=self._look_again,
        )
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
        pids = {one.pid for one in self._decision.participants}
        self.tallies.fold(pids | self._directory.serving())
        return self._collection.now(self._answers.status(), self._decision.statistics().outcomes)

    def stop(self) -> None:
        """End :meth:`run` soon.  Any thread, or a signal handler, may call this."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.send(b"!")

    def run(self) -> None:
        """Coordinate until the master is gone or :meth:`stop` is called."""
        self._listen()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._take_submitted)
        if self._master is not None:
            os.set_blocking(self._master, False)
            self._selector.register(self._master, selectors.EVENT_READ, self._hear_master)
        try:
            self._history.begin(self._decision.release)
            self._resume_orders()
            while not self._stopped:
                for key, events in self._selector.select(self._patience()):
                    if isinstance(key.data, Peer):
                        self._peers.serve(key.data, events)
                    else:
                        key.data(key.fileobj)
                self._tick()
        finally:
            self._peers.close()
            self._stop_listening()
            for end in (self._wake_in, self._wake_out):
                end.close()
            self._selector.close()

    def _listen(self) -> None:
        """Make the socket, in place of the one before."""
        self._stop_listening()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._directory.socket)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._directory.socket)
        os.chmod(self._directory.socket, 0o600)
        listener.listen(128)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._peers.accept)
        self._listener = listener
        self._upkeep.listening()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(KeyError):  # there was no descriptor for who waits there
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _cant_accept(self, error: OSError) -> None:
        """There is no descriptor for the next connection, which would be shown all the time."""
        self._upkeep.failed(error)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._deaf = True

    def _patience(self) -> float:
        moments = [
            self._decision.next_deadline(),
            self._answers.inquiries.next_deadline(),
            self._trials.deadline,
        ]
        due = min([self._upkeep.due, *(moment for moment in moments if moment is not None)])
        left = max(0.0, due - time.monotonic())
        # Workers come and go without a word to us; see _tick.
        return left if self._decision.phase == "idle" else min(0.1, left)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._decision.phase != "idle":
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
        if self._deaf and self._listener is not None and "descriptors" not in self._problems:
            self._deaf = False
            self._selector.register(self._listener, selectors.EVENT_READ, self._peers.accept)
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
        self._listen()

    def _say(self) -> None:
        """Announce how the host stands, if that is news."""
        if self._announce is None:
            return
        decision = self._decision
        status, running = decision.status({}, self._problems.now), decision.statistics().running
        word = in_brief(
            status.release,
            len(status.workers),
            deploying=running,
            last=status.last,
            problems=status.problems,
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
            self._hear_order(peer, message)
        elif isinstance(message, control.Question):
            self._answers.answer(peer, message)
        else:
            self._log.error("a peer sent a %s, which is not for the coordinator", message)
            self._peers.lose(peer)

    def _hear_worker(self, peer: Peer, message: protocol.FromWorker) -> None:
        now, worker = time.monotonic(), peer.number
        decision, performer = self._decision, self._performer
        if isinstance(message, protocol.Hello):
            peer.worker = True
            performer.perform(decision.hello(worker, message, now))
        elif isinstance(message, protocol.Building):
            performer.progress(decision.pid(worker), message.stage, message.done, message.total)
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

    def _hear_order(
        self, peer: Peer, request: protocol.OrderRequest | protocol.RollbackRequest
    ) -> None:
        self._clients.wait(peer, request.id, follow=request.follow)
        if request.id in self._performer.journal:
            return  # it asks again, after a connection broke
        ended = self._desk.outcome(request.id) or self._history.outcome(request.id)
        if ended is not None:
            self._clients.ended(ended)
        elif isinstance(request, protocol.RollbackRequest):
            self._go_back(request.id, ROLLBACK, request.detail, request.release)
        else:
            self._deploy(request)

    def _forget(self, peer: Peer) -> None:
        self._clients.forget(peer)
        if peer.worker:
            self._performer.gone(peer.number)
        self._answers.inquiries.lost(peer.number)

    # -- orders

    def _deploy(self, request: protocol.OrderRequest) -> None:
        order = Order(request.id, request.trigger, request.force, request.detail)
        try:
            path = self._trusted(request.path) if request.path else ""
        except OrderError as error:
            self._refuse(order, str(error))
        else:
            self._performer.order(replace(order, path=path, modules=request.modules))

    def _go_back(self, name: str, trigger: str, detail: str, release: int | None) -> None:
        """Order that the code of ``release`` is served again; None: of the one before."""
        order = Order(name, trigger, False, detail)
        try:
            # Now, for what is the one before may be another when the order is served.
            number = self._kept.find(release).number
        except OrderError as error:
            self._refuse(order, str(error))
        else:
            self._performer.order(replace(order, back_to=number))

    def _condemn(self, release: int | None, reason: str) -> None:
        """The committed release is not to be kept: go back to ``release``; None: the one before."""
        self._condemning = new_id()
        self._go_back(self._condemning, PROBATION, reason, release)

    def _commits(self, release: protocol.Release) -> None:
        now = time.monotonic()
        self._trials.committed(release, now)
        if release.trigger == PROBATION:
            self._look_again("their mend may have been superseded")
        condemning, self._condemning = self._condemning, ""
        if condemning and release.trigger != PROBATION:
            # It waits for the end of this deploy, and would go back from what was not condemned.
            reason = f"release {release.number} has taken the place of what was condemned"
            self._performer.perform(self._decision.withdraw(condemning, reason, now))

    def _refuse(self, order: Order, reason: str) -> None:
        outcome = OrderOutcome(order.id, Outcome.REFUSED, None, reason, "", 0.0)
        self._performer.report(order, outcome)

    def _pass_over(self, order: Order, reason: str) -> None:
        """Don't obey an automatic order.  What the watch has seen, it will see again."""
        if order.trigger == WATCH:
            self._log.info("order %s by %s: refused: %s", order.id, order.trigger, reason)
            refused = OrderOutcome(order.id, Outcome.REFUSED, None, reason, "", 0.0)
            self._desk.ended(refused, self._decision.release)
        else:
            self._refuse(order, f"{reason}: genwsgictl resume, and order it once more")

    def _look_again(self, why: str = "automatic deploys go on") -> None:
        """Have the newest state deployed, if it is watched."""
        if WATCH in self._ask_triggers():
            self.submit(WATCH, f"a look at the files, for {why}")

    def _take_submitted(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        self._questions.answer()
        for submission in self._desk.submissions():
            self._take(submission)

    def _take(self, submission: Submission) -> None:
        order = submission.order
        if submission.withdraw:
            now = time.monotonic()
            self._performer.perform(self._decision.withdraw(order.id, order.detail, now))
        elif order.id in self._performer.journal:
            if not order.hold:
                self._log.info("order %s: the word has come", order.id)
                self._performer.perform(self._decision.word(order.id, time.monotonic()))
        elif self._desk.tell_again(order.id):
            pass
        elif order.trigger != SIGHUP and (pause := self._directory.paused()):
            self._pass_over(order, f"automatic deploys {in_words(pause)}")
        else:
            self._performer.order(order, self._desk.attempts.pop(order.id, 0) + 1)

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

    def _resume_orders(self) -> None:
        """Take up what the coordinator before this one had accepted when it died."""
        for order, attempts in self._performer.journal.take_over():
            if order.hold and attempts < ATTEMPTS:
                # Whether it is still wanted, and still to be held, its trigger knows, and gives it
                # again.
                self._desk.attempts[order.id] = attempts
                self._performer.journal.remove(order)
            elif attempts < ATTEMPTS:
                self._performer.order(order, attempts + 1)
            else:
                reason = f"the coordinator died over it {attempts} times"
                outcome = OrderOutcome(order.id, Outcome.FAILED, None, reason, "", 0.0)
                self._performer.report(order, outcome)

    def _ask_triggers(self) -> dict[str, object]:
        try:
            return self._triggers()
        except Exception:  # noqa: BLE001 -- it is logged; a trigger may be somebody else's code
            self._log.exception("a trigger can't say how it stands")
            return {}

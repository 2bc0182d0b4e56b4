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
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from genwsgi.deploy import control, framing, protocol
from genwsgi.deploy.actions import Held
from genwsgi.deploy.chronicle import Chronicle
from genwsgi.deploy.coordinator import (
    Action,
    Coordinator,
    Order,
    Record,
    Report,
    Send,
    TakeSnapshot,
)
from genwsgi.deploy.desk import Desk, Submission
from genwsgi.deploy.framing import clip
from genwsgi.deploy.journal import Journal
from genwsgi.deploy.peers import Peer, Peers
from genwsgi.deploy.problems import NO_MORE, ProblemBook
from genwsgi.deploy.protocol import OrderOutcome, Outcome
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.source import Source
from genwsgi.deploy.standing import Word, in_brief
from genwsgi.deploy.tallies import Tallies
from genwsgi.deploy.upkeep import Upkeep
from genwsgi.errors import GenwsgiError, OrderError

#: How often an order is taken up again after the coordinator died over it.
ATTEMPTS = 2

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
    ) -> None:
        self._directory = directory
        self._source = source
        self._log = log
        self._master = master
        self._triggers = triggers
        self._moved = moved
        self._announce = announce
        self._announced: Word | None = None
        committed = directory.committed()
        # What triggers watch, and what concerns the release that was read last.
        self._watched = self._read = tuple(watched)
        self._decision = Coordinator(committed, build_timeout=build_timeout)
        self.tallies = Tallies()
        self._clients: dict[str, Peer] = {}
        self._problems = ProblemBook(log)
        self._upkeep = Upkeep(directory, source.store, self._problems, self._write_again, recovered)
        self._journal = Journal(directory, self._upkeep.failed)
        self._desk = Desk(self._wake, log)
        self._chronicle = Chronicle(log)
        self._wake_in, self._wake_out = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._peers = Peers(self._selector, log, self._hear, self._forget, self._cant_accept)
        self._listener: socket.socket | None = None
        # Whether nobody looks for new connections, since there is no descriptor for them.
        self._deaf = False
        self._stopped = False
        self._swept: frozenset[str] | None = None
        self._lists: deque[list[Action]] = deque()
        self._departed: deque[int] = deque()
        self._performing = False

    def submit(self, trigger: str, detail: str, **order: Any) -> str:
        """Hand in an order and return its id, as :meth:`Desk.submit` does.  Any thread."""
        return self._desk.submit(trigger, detail, **order)

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
        deadline = self._decision.next_deadline()
        if self._decision.phase != "idle":
            # Workers come and go without a word to us; see _tick.
            return 0.1 if deadline is None else max(0.0, min(0.1, deadline - time.monotonic()))
        due = self._upkeep.due if deadline is None else min(deadline, self._upkeep.due)
        return max(0.0, due - time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        if self._decision.phase != "idle":
            self._perform(self._decision.serving(self._directory.serving(), now))
        self._perform(self._decision.tick(now))
        if self._decision.phase == "idle":
            self._sweep()
        if now >= self._upkeep.due:
            self._look(now)
        self._say()

    def _look(self, now: float) -> None:
        """Look after the run directory, and at what is wrong elsewhere."""
        self._upkeep.look(now, self._decision.release)
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
        self._journal.write()
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

    def _sweep(self) -> None:
        needed = self._decision.needed()
        if needed == self._swept:
            return
        self._swept = needed
        store = self._source.store
        try:
            self._upkeep.remember(needed)
            store.sweep(needed)
            if not needed.issuperset(store.digests()):
                self._swept = None  # a generation that drains holds one: look again later
        except (OSError, ValueError) as error:
            self._log.warning("old snapshots can't be removed: %s", error)

    # -- connections

    def _hear(self, peer: Peer, message: framing.Message) -> None:
        now = time.monotonic()
        decision = self._decision
        if isinstance(message, protocol.Hello):
            peer.worker = True
            self._perform(decision.hello(peer.number, message, now))
        elif isinstance(message, protocol.Ready):
            # The decision needs to know who serves before it can say that all are ready.
            actions = decision.serving(self._directory.serving(), now)
            self._perform(actions)
            self._perform(decision.ready(peer.number, message, now))
        elif isinstance(message, protocol.Failed):
            self._perform(decision.failed(peer.number, message, now))
        elif isinstance(message, protocol.Committed):
            self._desk.serves(message)
            self._perform(decision.committed(peer.number, message, now))
        elif isinstance(message, protocol.Generations):
            decision.generations(peer.number, message)
        elif isinstance(message, protocol.Problems):
            decision.problems(peer.number, message)
        elif isinstance(message, protocol.Counts):
            self.tallies.hear(message)
        elif isinstance(message, protocol.Leaving):
            self._perform(decision.leaving(peer.number, now))
        elif isinstance(message, protocol.OrderRequest):
            self._clients[message.id] = peer
            if message.id not in self._journal:  # or else it asks again, after a connection broke
                self._order(
                    Order(
                        message.id,
                        message.trigger,
                        message.force,
                        message.detail,
                        message.path,
                        message.modules,
                    )
                )
        elif isinstance(message, control.StatusRequest):
            self._peers.send(peer, self._status())
        else:
            self._log.error("a peer sent a %s, which is not for the coordinator", message)
            self._peers.lose(peer)

    def _forget(self, peer: Peer) -> None:
        waiting = {order: client for order, client in self._clients.items() if client is not peer}
        self._clients = waiting
        if peer.worker:
            self._departed.append(peer.number)
            self._perform(())

    # -- orders

    def _take_submitted(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        for submission in self._desk.submissions():
            self._take(submission)

    def _take(self, submission: Submission) -> None:
        order = submission.order
        if submission.withdraw:
            self._perform(self._decision.withdraw(order.id, order.detail, time.monotonic()))
        elif order.id in self._journal:
            if not order.hold:
                self._log.info("order %s: the word has come", order.id)
                self._perform(self._decision.word(order.id, time.monotonic()))
        elif not self._desk.tell_again(order.id):
            self._order(order, self._desk.attempts.pop(order.id, 0) + 1)

    def _hear_master(self, pipe: int) -> None:
        try:
            data = os.read(pipe, 4096)
        except BlockingIOError:
            return
        if not data:
            self._stopped = True
        if HANG_UP in data:
            self.submit("SIGHUP", "the master was told to reload", force=True)
        if WORKERS_LACK in data:
            text = "the master can't start workers, and its log says why; those there are serve on"
            self._problems.begin("workers", text, logged=True)
        if data.rfind(WORKERS_START) > data.rfind(WORKERS_LACK):
            self._problems.end("workers")

    def _order(self, order: Order, attempt: int = 1) -> None:
        self._journal.add(order, attempt)
        self._chronicle.ordered(order)
        self._perform(self._decision.order(order, time.monotonic()))

    def _resume_orders(self) -> None:
        """Take up what the coordinator before this one had accepted when it died."""
        for order, attempts in self._journal.take_over():
            if order.hold and attempts < ATTEMPTS:
                # Whether it is still wanted, and still to be held, its trigger knows, and gives it
                # again.
                self._desk.attempts[order.id] = attempts
                self._journal.remove(order)
            elif attempts < ATTEMPTS:
                self._order(order, attempts + 1)
            else:
                reason = f"the coordinator died over it {attempts} times"
                self._report(order, OrderOutcome(order.id, Outcome.FAILED, None, reason, "", 0.0))

    # -- what the decision asks for

    def _perform(self, actions: Iterable[Action]) -> None:
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

    def _carry_out(self, actions: list[Action]) -> None:
        self._say()  # before the source is read, which takes its time
        for action in actions:
            if isinstance(action, TakeSnapshot):
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
                self._follow()
            elif isinstance(action, Send):
                peer = self._peers.get(action.worker)
                if peer is not None:
                    self._peers.send(peer, action.message)
            elif isinstance(action, Report):
                self._report(action.order, action.outcome)
            elif isinstance(action, Held):
                self._hold(action)

    def _take_snapshot(self, action: TakeSnapshot) -> None:
        self._swept = None
        if action.additions:
            self._chronicle.grows(action.order, action.additions)
        order = action.order
        try:
            reading = self._source.read(
                self._decision.release.digest,
                action.additions,
                action.path,
                order.modules,
                order.path,
            )
        except (GenwsgiError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in NO_MORE:
                self._upkeep.failed(cause)
            trace = getattr(error, "traceback", "")
            now = time.monotonic()
            refused = isinstance(error, OrderError)
            self._perform(
                self._decision.snapshot_failed(clip(str(error)), clip(trace), now, refused=refused)
            )
        else:
            self._read = reading.watched
            now = time.monotonic()
            self._perform(self._decision.serving(self._directory.serving(), now))
            actions = self._decision.snapshot_taken(reading.digest, now, time.time(), reading.path)
            self._chronicle.read(self._decision.deploy, now)
            self._perform(actions)

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

    def _report(self, order: Order, outcome: OrderOutcome) -> None:
        self._journal.remove(order)
        release = self._decision.release
        self._desk.ended(outcome, release)
        self._chronicle.ended(order, outcome, release)
        client = self._clients.pop(order.id, None)
        if client is not None:
            self._peers.send(client, outcome)

    def _status(self) -> control.Status:
        return self._decision.status(self._ask_triggers(), self._problems.now)

    def _ask_triggers(self) -> dict[str, object]:
        try:
            return self._triggers()
        except Exception:  # noqa: BLE001 -- it is logged; a trigger may be somebody else's code
            self._log.exception("a trigger can't say how it stands")
            return {}

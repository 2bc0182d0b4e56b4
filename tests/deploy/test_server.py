from __future__ import annotations

import dataclasses
import errno
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from genwsgi.deploy import answers, peers, trials, upkeep
from genwsgi.deploy.control import Pause, Status, StatusRequest
from genwsgi.deploy.framing import MAX_FRAME
from genwsgi.deploy.intake import ATTEMPTS
from genwsgi.deploy.probation import Probation
from genwsgi.deploy.protocol import (
    Abort,
    Building,
    Commit,
    Committed,
    Counts,
    Failed,
    Generations,
    Hello,
    Leaving,
    OrderOutcome,
    OrderRequest,
    Outcome,
    Prepare,
    Ready,
    Release,
    Step,
    Welcome,
    label,
)
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.server import HANG_UP, CoordinatorServer
from genwsgi.deploy.source import Reading, Source
from genwsgi.generations.counts import GenerationCounts, Tally
from genwsgi.generations.status import GenerationStatus
from genwsgi.isolation.scope import Addition, ScopeRules
from genwsgi.isolation.store import Store
from tests.deploy.real import DEADLINE, LOG, Connection, directory, release, short
from tests.helpers import wait_until

__all__ = ["directory", "short"]

#: A real worker: for each line of its input it answers one request with a line of its output.
WORKER = """\
import logging, os, sys
from genwsgi.deploy.agent import Agent
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.isolation.store import Store
from genwsgi.live import LiveApplication
from genwsgi.target import parse

directory = RunDirectory(sys.argv[1])
live = LiveApplication(parse("shop"), Store(directory.store))
agent = Agent(live, directory, logging.getLogger("worker"))
agent.boot()
agent.start()
print("serves", flush=True)
for line in sys.stdin:
    environ = {"REQUEST_METHOD": "GET"}
    body = live.application(environ, lambda *_: lambda data: None)
    print(b"".join(body).decode(), flush=True)
    getattr(body, "close", lambda: None)()
agent.leave()
"""

#: A worker whose connection is held by a process that it has forked, until its input ends.
FORKING = """\
import os, socket, sys
from genwsgi.deploy import framing
from genwsgi.deploy.protocol import Counts, Hello
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.generations.counts import GenerationCounts, Tally

directory, connection = RunDirectory(sys.argv[1]), socket.socket(socket.AF_UNIX)
connection.connect(directory.socket)
if os.fork():
    told = GenerationCounts(1, "1-code", Tally(7))
    connection.sendall(framing.encode(Hello(os.getpid(), directory.committed(), None)))
    connection.sendall(framing.encode(Counts(os.getpid(), (told,))))
    print("told", flush=True)
sys.stdin.read()
"""

#: What it serves.
SHOP = """\
V = {version}
def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{{V}} {{environ['genwsgi.release']}}".encode()]
"""


class Host:
    """A source tree and a coordinator that runs on a thread.

    :ivar tree: the folder of the source.
    :ivar server: the coordinator, once it was started.
    """

    def __init__(self, directory: RunDirectory, tree: Path) -> None:
        self.directory, self.tree = directory, tree
        self.write(1)
        self.source = Source(ScopeRules("shop", (str(tree),)), Store(directory.store))
        self.directory.record(release(1, self.source.take()))
        self.server: CoordinatorServer
        self.error: RuntimeError | None = None
        self._thread: threading.Thread | None = None
        self._connections: list[Connection] = []
        #: The clients that tests keep.
        self.trail: list[Connection] = []

    def write(self, version: object) -> None:
        """Edit the source."""
        (self.tree / "shop.py").write_text(SHOP.format(version=version))

    def start(self, *orders: str, **options: Any) -> CoordinatorServer:
        """Make a coordinator, submit ``orders`` of the watch, and run it."""
        self.server = CoordinatorServer(
            self.directory, self.source, **{"build_timeout": DEADLINE, "log": LOG, **options}
        )
        for detail in orders:
            self.server.submit("watch", detail)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self.server

    def _run(self) -> None:
        try:
            self.server.run()
        except RuntimeError as error:  # what a test makes it die of
            self.error = error

    def join(self) -> None:
        """Wait for the coordinator's end."""
        if self._thread is not None:
            self._thread.join(DEADLINE)
            assert not self._thread.is_alive(), "the coordinator did not end"

    def stop(self) -> None:
        """End the coordinator wherever it is."""
        self.server.stop()
        self.join()
        for connection in self._connections:
            connection.close()
        assert self.error is None, repr(self.error)

    def connect(self) -> Connection:
        """A connection to the coordinator."""
        self._connections.append(Connection.to(self.directory))
        return self._connections[-1]

    def worker(self, pid: int, prepared: Release | None = None) -> Connection:
        """A worker ``pid`` that serves what is committed, played by hand."""
        connection = self.connect()
        committed = self.directory.committed()
        connection.send(Hello(pid, committed, prepared))
        assert connection.expect(Welcome).committed == committed
        self.directory.begin_serving(pid)
        return connection

    def order(self, name: str, trigger: str = "ctl", force: bool = False) -> Connection:
        """A client that has given an order."""
        connection = self.connect()
        connection.send(OrderRequest(name, trigger, force, "by hand"))
        return connection

    def settled(self) -> Status:
        """The coordinator's status, when it has done what it was told before."""
        connection = self.connect()
        connection.send(StatusRequest())
        status = connection.expect(Status)
        assert isinstance(status, Status)
        return status


def prepare(worker: Connection) -> Release:
    """Receive a Prepare and say that it is done."""
    message = worker.expect(Prepare)
    worker.send(Ready(message.release.number, 0.1))
    release = message.release
    assert isinstance(release, Release)
    return release


def commit(worker: Connection) -> int:
    """Receive a Commit and say that it is done."""
    message = worker.expect(Commit)
    worker.send(Committed(message.release, message.release))
    return int(message.release)


@pytest.fixture
def host(
    directory: RunDirectory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Host]:
    """A host whose coordinator is not started."""
    caplog.set_level(logging.INFO)
    # Workers that are played by hand don't say how they stand when they are asked.
    monkeypatch.setattr(answers, "TELL_WITHIN", 0.01)
    (tmp_path / "src").mkdir()
    made = Host(directory, tmp_path / "src")
    yield made
    made.stop()


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """A pipe like the master's; whoever closes an end takes it out of the list."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


# -- orders


def test_submitted_order_is_deployed(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """An order of a trigger goes through prepare, record and commit to its outcome."""
    server = host.start()
    one, other = host.worker(101), host.worker(102)
    host.write(2)
    name = server.submit("watch", "shop.py has changed")
    new = one.expect(Prepare).release
    assert (new.number, new.trigger, new.detail) == (2, "watch", "shop.py has changed")
    assert host.settled().phase == "canary"
    assert other.quiet(), "the others wait for the first"
    one.send(Ready(2, 0.1))
    assert prepare(other) == new
    for worker in (one, other):
        assert worker.expect(Commit) == Commit(2)
        assert host.directory.committed() == new
        worker.send(Committed(2, 2))
    told = f"order {name} by watch: committed: release 2-{new.digest[:8]} is live after "
    wait_until(lambda: told in caplog.text, what="the outcome")
    assert f"order {name}: deploy by watch: shop.py has changed" in caplog.text
    assert host.directory.orders() == []


def test_why_an_order_is_given_is_one_line(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A file's name, or what a client says, neither adds lines to the log nor steers a terminal."""
    server = host.start()
    one = host.worker(101)
    host.write(2)
    server.submit("watch", "changed: a\n[INFO] all is well\x1b[2J.py")
    assert one.expect(Prepare).release.detail == "changed: a [INFO] all is well [2J.py"
    assert "deploy by watch: changed: a [INFO] all is well [2J.py" in caplog.text


def test_order_given_before_the_coordinator_runs(host: Host) -> None:
    """What a trigger submits before the loop runs is done by it."""
    host.write(2)
    host.start("early")
    worker = host.worker(101)
    assert prepare(worker).detail == "early"
    assert commit(worker) == 2


def test_client_hears_the_outcome(host: Host) -> None:
    """A client that orders a deploy is told how it ended."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    client = host.order("a")
    prepare(worker)
    commit(worker)
    outcome = client.expect(OrderOutcome)
    assert (outcome.id, outcome.outcome, outcome.release) == ("a", "committed", 2)
    assert 0 < outcome.seconds < DEADLINE


def test_unchanged_code_is_no_deploy(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """An order to deploy the committed code has that for an outcome, unless it is forced."""
    host.start()
    worker = host.worker(101)
    outcome = host.order("a").expect(OrderOutcome)
    assert (outcome.outcome, outcome.release) == ("unchanged", 1)
    assert worker.quiet()
    assert "order a by ctl: unchanged: release 1 is this code already" in caplog.text
    client = host.order("b", force=True)
    assert prepare(worker).digest == host.directory.committed().digest
    commit(worker)
    assert client.expect(OrderOutcome).outcome == "committed"


def test_why_an_order_fails_is_one_line(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """What an application has raised adds no line to the log but its traceback's, nor steers it."""
    host.start()
    one = host.worker(101)
    host.write(2)
    client = host.order("a")
    one.expect(Prepare)
    one.send(Failed(2, "KeyError: 'x'\n[INFO] all is well\x1b[2J\udcff", "Traceback"))
    reason = "worker 101: KeyError: 'x' [INFO] all is well [2J "
    assert client.expect(OrderOutcome).reason == reason
    assert f"failed: {reason}; release 1" in caplog.text


def test_failed_build_is_reported_whole(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A failure in one worker ends the deploy everywhere; client and log get the traceback."""
    host.start()
    one, other = host.worker(101), host.worker(102)
    host.write(2)
    client = host.order("a")
    prepare(one)
    other.expect(Prepare)
    other.send(Failed(2, "KeyError: 'x'", "Traceback: all of it"))
    for worker in (one, other):
        assert worker.expect(Abort).release == 2
    outcome = client.expect(OrderOutcome)
    assert (outcome.outcome, outcome.traceback) == ("failed", "Traceback: all of it")
    assert outcome.reason == "worker 102: KeyError: 'x'"
    told = f"failed: worker 102: KeyError: 'x'; release 1-{host.directory.committed().digest[:8]}"
    assert f"{told} serves on\nTraceback: all of it" in caplog.text
    assert host.directory.committed().number == 1


def test_scope_that_is_too_small(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that names what belongs in the scope gets a release that has it, and no failure."""
    installed = host.tree.parent / "site-packages"
    installed.mkdir()
    (installed / "kit.py").write_text("")
    rules = host.source.rules
    host.source.rules = dataclasses.replace(rules, path=(*rules.path, str(installed)))
    host.start()
    one, other = host.worker(101), host.worker(102)
    host.write(2)
    client = host.order("a")
    small = one.expect(Prepare).release
    one.send(Failed(2, "too small", "", (Addition("kit", "imports shop (kit: import shop)"),)))
    assert "kit joins the scope: imports shop" in one.expect(Abort).reason
    large = prepare(one)
    assert prepare(other) == large
    assert (large.number, large.digest != small.digest) == (3, True)
    for worker in (one, other):
        commit(worker)
    outcome = client.expect(OrderOutcome)
    assert (outcome.outcome, outcome.release) == ("committed", 3)
    assert outcome.reason == "kit joins the scope: imports shop (kit: import shop)"
    assert "order a begins anew, for its scope was too small: kit joins the scope" in caplog.text
    committed = host.source.store.open(large.digest)
    committed.release()
    assert "kit" in committed.tops
    assert host.directory.orders() == []


def test_coordinator_that_dies_while_a_scope_grows(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next coordinator takes the order up from its beginning, and finds the same again."""
    (host.tree / "site-packages").mkdir()
    (host.tree / "site-packages" / "kit.py").write_text("")
    rules = host.source.rules
    path = (*rules.path, str(host.tree / "site-packages"))
    host.source.rules = dataclasses.replace(rules, path=path)
    read = host.source.read
    addition = Addition("kit", "imports shop")

    def die(committed: str, additions: Iterable[Addition], *more: Any) -> Reading:
        if additions:
            raise RuntimeError("killed")
        return read(committed, additions, *more)

    monkeypatch.setattr(host.source, "read", die)
    host.write(2)
    host.start("an edit")
    worker = host.worker(101)
    worker.expect(Prepare)
    worker.send(Failed(2, "too small", "", (addition,)))
    host.join()
    assert isinstance(host.error, RuntimeError)
    host.error = None
    assert len(host.directory.orders()) == 1
    monkeypatch.undo()
    host.start()
    again = host.worker(101)
    again.send(Failed(again.expect(Prepare).release.number, "too small", "", (addition,)))
    again.expect(Abort)
    prepare(again)
    commit(again)
    wait_until(lambda: host.directory.orders() == [], what="the outcome")
    snapshot = host.source.store.open(host.directory.committed().digest)
    snapshot.release()
    assert "kit" in snapshot.tops


def test_folder_that_joins_the_scope_is_watched(host: Host, tmp_path: Path) -> None:
    """What triggers watch follows the committed release, and nothing that was only read."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "extra.py").write_text("")
    moved: list[Sequence[str]] = []
    host.start(watched=[str(host.tree)], moved=moved.append)
    worker = host.worker(101)
    host.write(2)
    client = host.order("a")
    addition = Addition("", "the application puts it on sys.path", str(folder))
    for end in (Failed, Ready):
        worker.send(Failed(worker.expect(Prepare).release.number, "small", "", (addition,)))
        worker.expect(Abort)
        number = worker.expect(Prepare).release.number
        assert moved == []
        if end is Failed:
            worker.send(Failed(number, "KeyError", ""))
            worker.expect(Abort)
            assert client.expect(OrderOutcome).outcome == "failed"
            client = host.order("b")
    worker.send(Ready(number, 0.1))
    commit(worker)
    assert client.expect(OrderOutcome).outcome == "committed"
    assert moved == [(str(host.tree), str(folder))]


def test_syntax_error_disturbs_no_worker(host: Host) -> None:
    """Source that does not compile fails the order, with the line, and no worker hears of it."""
    host.start()
    worker = host.worker(101)
    host.write("1 +")
    outcome = host.order("a").expect(OrderOutcome)
    assert (outcome.outcome, outcome.release) == ("failed", None)
    assert "does not compile" in outcome.reason
    assert "V = 1 +" in outcome.traceback
    assert worker.quiet()


def test_target_that_vanished_fails_the_order(host: Host) -> None:
    """Source that is not there fails the order, and the next order is served again."""
    host.start()
    host.worker(101)
    (host.tree / "shop.py").unlink()
    outcome = host.order("a").expect(OrderOutcome)
    assert outcome.outcome == "failed"
    assert "no module named 'shop'" in outcome.reason
    host.write(1)
    assert host.order("b").expect(OrderOutcome).outcome == "unchanged"


def test_client_that_leaves_before_the_outcome(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """An order is served though its client is gone, and its outcome is in the log."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    client = host.order("a")
    new = prepare(worker)
    client.close()
    host.settled()
    commit(worker)
    wait_until(lambda: "order a by ctl: committed" in caplog.text, what="the outcome")
    assert host.directory.committed() == new


def test_client_that_asks_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """An order that comes again over a new connection is one order, and is answered there."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    first = host.order("a")
    worker.expect(Prepare)
    again = host.order("a")
    host.settled()
    worker.send(Ready(2, 0.1))
    commit(worker)
    assert again.expect(OrderOutcome).outcome == "committed"
    assert host.settled().phase == "idle"
    assert first.quiet()
    assert caplog.text.count("order a: deploy by ctl") == 1


def test_superseded_order_is_answered(host: Host) -> None:
    """A waiting order that a newer one replaces hears of it at once."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    clients = [host.order("a")]
    worker.expect(Prepare)
    for name in ("b", "c"):
        clients.append(host.order(name))
        host.settled()
    assert clients[1].expect(OrderOutcome).outcome == "superseded"
    worker.send(Ready(2, 0.1))
    commit(worker)
    assert clients[0].expect(OrderOutcome).outcome == "committed"
    assert clients[2].expect(OrderOutcome).outcome == "unchanged"


def test_status(host: Host) -> None:
    """The status says what is committed, what is done, who is connected and what triggers say."""
    host.start(triggers=lambda: {"watch": {"folders": 3}})
    worker = host.worker(101)
    committed = host.directory.committed()
    status = host.settled()
    assert [(one.pid, one.release) for one in status.workers] == [(101, 1)]
    assert (status.release, status.phase) == (committed, "idle")
    assert (status.triggers, status.last) == ({"watch": {"folders": 3}}, None)
    assert (status.paused, status.quiet, status.problems) == (None, "", ())
    host.write(2)
    client = host.order("a")
    prepare(worker)
    assert worker.expect(Commit)
    assert host.settled().phase == "committing"
    worker.send(Committed(2, 2))
    outcome = client.expect(OrderOutcome)
    status = host.settled()
    assert outcome.generation == 2
    assert status.last == dataclasses.replace(outcome, generation=None)
    assert [(one.pid, one.release) for one in status.workers] == [(101, 2)]
    assert [(one.order, one.release) for one in status.recent] == [("a", 2), ("", 1)]


def test_status_tells_of_generations(host: Host) -> None:
    """The status has of each worker how its generations stand, as it last said."""
    host.start()
    worker, other = host.worker(101), host.worker(102)
    found = tuple(
        GenerationStatus(number, "1-code", state, 0, None, "a cache" if number == 1 else "")
        for number, state in ((1, "retired"), (2, "current"))
    )
    worker.send(Generations(found))
    wait_until(lambda: host.settled().workers[0].generations == found, what="the status")
    told = [(one.pid, one.release, one.generations) for one in host.settled().workers]
    assert told == [(101, 1, found), (102, 1, ())]
    worker.send(Generations(found[1:]))
    wait_until(lambda: host.settled().workers[0].generations == found[1:], what="the status")
    assert other is not worker


def test_requests_are_added_up(host: Host) -> None:
    """What the workers tell of their requests is known by release."""
    server = host.start()
    for pid in (101, 102):
        told = GenerationCounts(1, "1-code", Tally(pid))
        host.worker(pid).send(Counts(pid, (told,)))
    wait_until(lambda: server.tallies.of("1-code") == Tally(203), what="both")


def test_requests_of_workers_that_are_gone_are_put_together(host: Host) -> None:
    """What those have told that are gone takes no room of its own, and counts also for one's heir.

    The heir is the process that the system gives the number of one that is gone.
    """
    server = host.start()
    for pid in (101, 102, 101):
        worker = host.worker(pid)
        worker.send(Counts(pid, (GenerationCounts(1, "1-code", Tally(7)),)))
        host.settled()
        worker.close()
        wait_until(lambda: host.settled().workers == (), what="the worker's end")
        host.directory.end_serving(pid)
    assert server.tallies.of("1-code") == Tally(21)
    assert len(server.tallies._by_release["1-code"]) == 2


def failing(pid: int, number: int, release: Release) -> Counts:
    """A worker tells that all requests of a release have failed."""
    return Counts(pid, (GenerationCounts(number, label(release), Tally(9, 9)),))


def test_release_that_fails_is_left(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """In a probation the coordinator itself orders what was before, from its kept snapshot."""
    host.start(probation=Probation(60.0, 0.05), keep=1, triggers=lambda: {"watch": {}})
    worker = host.worker(101)
    host.write(2)
    client = host.order("change")
    bad = prepare(worker)
    assert commit(worker) == 2
    assert client.expect(OrderOutcome).outcome == Outcome.COMMITTED
    worker.send(failing(101, 2, bad))
    back = prepare(worker)
    assert (back.back_to, back.trigger) == (1, "probation")
    assert back.detail.startswith("release 2-")
    host.write(3)
    assert commit(worker) == 3
    assert host.settled().quiet
    assert "has failed 9 of the 9 requests" in caplog.text
    # A mend that was under way, and given up for this, is looked for on the disk.
    assert prepare(worker).trigger == "watch"
    assert commit(worker) == 4


def test_release_that_can_not_be_left_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """When to go back fails, it is a problem until it has worked, and is tried again."""
    monkeypatch.setattr(trials, "AGAIN", (0.02, 0.02))
    host.start(probation=Probation(60.0, 0.05), keep=1)
    worker = host.worker(101)
    host.write(2)
    host.order("change")
    bad = prepare(worker)
    assert commit(worker) == 2
    worker.send(failing(101, 2, bad))
    for attempt in range(2):
        back = worker.expect(Prepare).release
        assert back.back_to == 1
        assert [one.name for one in host.settled().problems] == ["probation"] * attempt
        if attempt == 0:
            worker.send(Failed(back.number, "the machine is full", ""))
            assert worker.expect(Abort).release == back.number
    worker.send(Ready(back.number, 0.1))
    commit(worker)
    assert host.settled().problems == ()


def test_release_that_fails_as_the_next_is_committed(host: Host) -> None:
    """What is condemned at the very moment in which another takes its place is not gone back from.

    Its mend may be just that.
    """
    host.start(probation=Probation(60.0, 0.05), keep=1)
    worker = host.worker(101)
    host.write(2)
    host.order("change")
    bad = prepare(worker)
    commit(worker)
    host.write(3)
    client = host.order("mend")
    release = worker.expect(Prepare).release
    worker.send(failing(101, 2, bad), Ready(release.number, 0.1))
    assert commit(worker) == 3
    assert client.expect(OrderOutcome).outcome == Outcome.COMMITTED
    status = host.settled()
    assert (status.release.number, status.phase) == (3, "idle")
    assert status.recent[0].order == "mend"
    (left,) = [entry for entry in status.recent if entry.trigger == "probation"]
    assert (left.outcome, left.reason) == (
        Outcome.FAILED,
        "release 3 has taken the place of what was condemned",
    )


# -- the master


def test_hang_up_is_a_forced_deploy(host: Host, pipe: list[int]) -> None:
    """SIGHUP deploys, and builds anew even if the code is the committed code."""
    host.start(master=pipe[0])
    worker = host.worker(101)
    os.write(pipe[1], HANG_UP)
    new = prepare(worker)
    assert (new.trigger, new.digest) == ("SIGHUP", host.directory.committed().digest)
    assert commit(worker) == 2


def test_hang_up_while_there_was_no_coordinator(host: Host, pipe: list[int]) -> None:
    """What the master wrote before the coordinator ran is not lost, and is one deploy."""
    os.write(pipe[1], HANG_UP * 3)
    host.start(master=pipe[0])
    worker = host.worker(101)
    prepare(worker)
    commit(worker)
    assert host.settled().release.number == 2
    assert host.settled().phase == "idle"


def test_end_of_the_master_ends_the_coordinator(host: Host, pipe: list[int]) -> None:
    """When the master's end of the pipe is closed the coordinator ends and hangs up on all."""
    host.start(master=pipe[0])
    worker = host.worker(101)
    os.close(pipe.pop())
    host.join()
    assert worker.receive() is None


def test_stop_hangs_up(host: Host) -> None:
    """A coordinator that is stopped ends, and a trigger that is late does no harm."""
    server = host.start()
    worker = host.worker(101)
    server.stop()
    host.join()
    assert worker.receive() is None
    server.submit("watch", "too late")
    server.stop()


# -- peers that can't be trusted, or don't behave


def test_garbage_cuts_off_one_peer(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A peer that can't be understood is cut off; the others are not disturbed."""
    host.start()
    worker = host.worker(101)
    peer = host.connect()
    peer.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
    assert peer.receive() is None
    assert "a peer can't be understood and is cut off: frame of" in caplog.text
    host.write(2)
    client = host.order("a")
    prepare(worker)
    commit(worker)
    assert client.expect(OrderOutcome).outcome == "committed"


def test_message_for_somebody_else_cuts_off(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A peer that says what only a coordinator may is cut off, with all that came with it."""
    host.start()
    peer = host.connect()
    peer.send(Commit(1), Hello(103, None, None), StatusRequest())
    assert peer.receive() is None
    assert "a peer sent a Commit(release=1), which is not for the coordinator" in caplog.text
    assert host.settled().workers == ()


def test_peer_of_another_user_is_refused(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection of another user is closed before a word of it is read; root may connect."""
    monkeypatch.setattr(peers, "peer_uid", lambda connection: 4711)
    host.start()
    client = host.order("a")
    assert client.receive() is None
    assert "a connection of user 4711 was refused" in caplog.text
    assert "order a" not in caplog.text
    monkeypatch.setattr(peers, "peer_uid", lambda connection: 0)
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    assert host.order("b").expect(OrderOutcome).outcome == "unchanged"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_real_peer_of_another_user_is_refused(
    host: Host, short: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Even where the files' modes would let another user in, the coordinator does not."""
    host.start()
    host.settled()
    for place in (short, host.directory.path, host.directory.socket):
        os.chmod(place, 0o777)
    code = (
        "import os, socket, sys; os.setuid(65534)\n"
        "end = socket.socket(socket.AF_UNIX); end.connect(sys.argv[1]); end.settimeout(10)\n"
        "sys.exit(len(end.recv(1)))"
    )
    ended = subprocess.run([sys.executable, "-c", code, host.directory.socket], timeout=30)
    assert ended.returncode == 0
    assert "a connection of user 65534 was refused" in caplog.text


def test_peer_that_does_not_read_is_cut_off(host: Host) -> None:
    """A peer that leaves too much unread is taken for gone, and costs no more memory."""
    host.start(triggers=lambda: {"watch": "x" * (MAX_FRAME - 1000)})
    peer = host.connect()
    peer.send(*[StatusRequest()] * 20)
    received = 0
    while peer.receive() is not None:
        received += 1
    assert received < 20
    assert host.settled().phase == "idle"


def test_peer_that_is_cut_off_as_it_reads_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that can be written to again a moment after it was cut off is no surprise."""
    asked, go = threading.Event(), threading.Event()
    go.set()

    def triggers() -> dict[str, object]:
        asked.set()
        assert go.wait(DEADLINE)
        return {"watch": "x" * (MAX_FRAME - 1000)}

    host.start(triggers=triggers)
    worker = host.worker(101)
    host.write(2)
    client = host.order("a")
    worker.expect(Prepare)
    client.send(StatusRequest())
    host.settled()
    go.clear()
    asked.clear()
    other = host.connect()
    other.send(StatusRequest())
    assert asked.wait(DEADLINE)
    # While it waits: the end of the client's order, who gets more than he may leave unread, and
    # makes room at the same time.
    worker.send(Failed(2, "no", ""))
    assert client.read(MAX_FRAME // 2) > 0
    with monkeypatch.context() as patch:
        patch.setattr(peers, "BACKLOG", 0)
        go.set()
        for peer in (other, worker):
            while peer.receive() is not None:
                pass
        while client.read(MAX_FRAME):
            pass
    assert host.settled().phase == "idle"


def test_answer_that_comes_in_pieces(host: Host) -> None:
    """An answer longer than the socket's buffer arrives whole."""
    text = "x" * (MAX_FRAME - 1000)
    host.start(triggers=lambda: {"watch": text})
    peer = host.connect()
    peer.send(*[StatusRequest()] * 3)
    for _ in range(3):
        assert peer.expect(Status).triggers == {"watch": text}


def test_trigger_that_can_not_say_how_it_stands(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """A trigger whose status raises costs the status that trigger, and the coordinator nothing."""

    def broken() -> dict[str, object]:
        raise RuntimeError("not today")

    host.start(triggers=broken)
    peer = host.connect()
    peer.send(StatusRequest())
    assert peer.expect(Status).triggers == {}
    assert "not today" in caplog.text


def test_answer_that_has_no_message(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be said in a message costs the one who asked his connection, and nobody else."""
    host.start(triggers=lambda: {"watch": object()})
    worker = host.worker(101)
    peer = host.connect()
    peer.send(StatusRequest(), StatusRequest())
    assert peer.receive() is None
    assert "a peer can't be answered and is cut off: message 'status'" in caplog.text
    host.write(2)
    host.server.submit("watch", "")
    prepare(worker)
    assert commit(worker) == 2


# -- workers


def test_worker_that_goes_away_fails_the_deploy(host: Host) -> None:
    """A worker that vanishes while it builds fails the deploy, and all others discard."""
    host.start()
    one, other = host.worker(101), host.worker(102)
    host.write(2)
    client = host.order("a")
    prepare(one)
    other.expect(Prepare)
    other.send(Building(2, Step.BUILDING, 0, 0))
    other.close()
    assert one.expect(Abort).release == 2
    outcome = client.expect(OrderOutcome)
    assert (outcome.outcome, outcome.reason) == (
        "failed",
        "worker 102 went away when it was building",
    )


def test_worker_that_leaves_does_not_fail_the_deploy(host: Host) -> None:
    """A worker that ends in good order is not waited for, and the deploy goes on."""
    host.start()
    one, other = host.worker(101), host.worker(102)
    host.write(2)
    client = host.order("a")
    prepare(one)
    other.expect(Prepare)
    host.directory.end_serving(102)
    other.send(Leaving())
    other.close()
    commit(one)
    assert client.expect(OrderOutcome).outcome == "committed"


def test_worker_that_serves_without_a_connection_is_waited_for(host: Host) -> None:
    """Nothing is committed as long as a process serves that the coordinator can't reach."""
    host.start()
    one = host.worker(101)
    host.directory.begin_serving(102)
    host.write(2)
    client = host.order("a")
    prepare(one)
    assert host.settled().phase == "preparing"
    assert one.quiet()
    other = host.worker(102)
    prepare(other)
    for worker in (one, other):
        commit(worker)
    assert client.expect(OrderOutcome).outcome == "committed"


def test_worker_that_ends_without_a_word_is_noticed(host: Host) -> None:
    """A process that serves no more is no longer waited for, though nobody said anything."""
    host.start()
    one = host.worker(101)
    host.directory.begin_serving(102)
    host.write(2)
    client = host.order("a")
    prepare(one)
    host.settled()
    host.directory.end_serving(102)
    commit(one)
    assert client.expect(OrderOutcome).outcome == "committed"


def test_worker_whose_connection_a_forked_process_holds(host: Host) -> None:
    """A worker is gone when its process is, once all that it had said is read."""
    server = host.start()
    # It listens, then.
    assert host.settled().workers == ()
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, host.directory.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"told\n"
        assert [one.pid for one in host.settled().workers] == [worker.pid]
        worker.kill()
        worker.wait()
        wait_until(lambda: host.settled().workers == (), what="the worker's end")
        assert server.tallies.of("1-code") == Tally(7)


def test_worker_that_has_ended_when_it_is_heard(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process has said before its end is heard, though it is gone by then."""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    monkeypatch.setattr(peers, "peer_pid", lambda _connection: ended.pid)
    server = host.start()
    worker = host.connect()
    told = GenerationCounts(1, "1-code", Tally(7))
    worker.send(Hello(101, host.directory.committed(), None), Counts(101, (told,)))
    worker.expect(Welcome)
    assert worker.receive() is None
    assert host.settled().workers == ()
    assert server.tallies.of("1-code") == Tally(7)


def test_worker_whose_end_can_not_be_watched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no descriptor for that, a worker is gone when its connection is."""

    def fail(_pid: int) -> int:
        raise OSError(errno.EMFILE, "no descriptor")

    monkeypatch.setattr(os, "pidfd_open", fail)
    host.start()
    worker = host.worker(101)
    assert [one.pid for one in host.settled().workers] == [101]
    worker.close()
    wait_until(lambda: host.settled().workers == (), what="the worker's end")


def test_build_that_takes_too_long(host: Host) -> None:
    """A worker that is not ready within the time-out fails the deploy and is told to give up."""
    host.start(build_timeout=0.05)
    worker = host.worker(101)
    host.write(2)
    client = host.order("a")
    worker.expect(Prepare, Abort)
    assert client.expect(OrderOutcome).reason == "worker 101 not ready within 0.05 s"


def test_workers_that_vanish_together(host: Host) -> None:
    """Messages to workers that are gone already are no obstacle, and the order has its outcome."""
    host.start()
    workers = [host.worker(pid) for pid in range(101, 105)]
    host.write(2)
    client = host.order("a")
    workers[0].expect(Prepare)
    workers[0].send(Ready(2, 0.1))
    for worker in workers:
        worker.close()
    assert client.expect(OrderOutcome).outcome == "failed"
    assert host.settled().workers == ()


def test_prepared_release_of_a_dead_coordinator(host: Host) -> None:
    """What a worker has prepared and no deploy is about any more is aborted when it says Hello."""
    host.start()
    worker = host.worker(101, prepared=release(2))
    assert worker.expect(Abort).release == 2


# -- the commit point and what is written down


def test_record_that_fails_aborts(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A commit that can't be recorded is none: all discard, and the next deploy may succeed."""

    def full(_release: Release) -> None:
        raise OSError(28, "No space left on device")

    host.start()
    one, other = host.worker(101), host.worker(102)
    host.write(2)
    with monkeypatch.context() as patch:
        patch.setattr(host.directory, "record", full)
        client = host.order("a")
        prepare(one)
        prepare(other)
        for worker in (one, other):
            assert worker.expect(Abort).release == 2
        outcome = client.expect(OrderOutcome)
    assert outcome.outcome == "failed"
    assert outcome.reason == "the commit can't be recorded: [Errno 28] No space left on device"
    assert host.directory.committed().number == 1
    client = host.order("b")
    for worker in (one, other):
        prepare(worker)
    for worker in (one, other):
        assert commit(worker) == 3
    assert client.expect(OrderOutcome).outcome == "committed"


def test_orders_that_can_not_be_written_down(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A journal that can't be written is named in the log; the deploy goes on."""

    def full(_orders: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host.directory, "keep_orders", full)
    host.start()
    assert host.order("a").expect(OrderOutcome).outcome == "unchanged"
    assert "can't be written: No space left on device; make room" in caplog.text


def test_next_coordinator_takes_the_orders_up(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Orders that a coordinator had accepted when it died get their outcomes from the next one."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    host.order("a")
    prepare_of_first = worker.expect(Prepare).release
    host.order("b", trigger="watch")
    host.settled()
    host.stop()
    attempts = {str(entry["id"]): entry["attempts"] for entry in host.directory.orders()}
    assert attempts == {"a": 1, "b": 1}

    host.start()
    worker = host.worker(101, prepared=prepare_of_first)
    assert commit(worker) == 2
    wait_until(lambda: "order b by watch: unchanged" in caplog.text, what="the last outcome")
    assert "order a by ctl: committed" in caplog.text
    assert host.directory.orders() == []


def test_order_is_given_up_after_so_many_attempts(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """An order that several coordinators died over has failed, and the next order is served."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    host.order("a")
    worker.expect(Prepare)
    for attempt in range(2, ATTEMPTS + 1):
        host.stop()
        host.start()
        worker = host.worker(101)
        worker.expect(Prepare)
        assert [entry["attempts"] for entry in host.directory.orders()] == [attempt]
    host.stop()
    host.start()
    worker = host.worker(101)
    assert f"order a by ctl: failed: the coordinator died over it {ATTEMPTS} times" in caplog.text
    assert host.directory.orders() == []
    assert worker.quiet()
    client = host.order("b")
    prepare(worker)
    commit(worker)
    assert client.expect(OrderOutcome).outcome == "committed"


def test_coordinator_that_dies_over_the_first_of_its_orders(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that was waiting is not lost, and not blamed, when the one before it is deadly."""

    def deadly(*_asked: object) -> Reading:
        raise RuntimeError("deadly")

    given = [
        {"id": name, "trigger": "ctl", "force": False, "detail": "", "attempts": 1} for name in "ab"
    ]
    host.directory.keep_orders([{"id": "damaged"}, *given])
    with monkeypatch.context() as patch:
        patch.setattr(host.source, "read", deadly)
        host.start()
        host.join()
    assert isinstance(host.error, RuntimeError)
    host.error = None
    attempts = {str(entry["id"]): entry["attempts"] for entry in host.directory.orders()}
    assert attempts == {"a": 2, "b": 1}


# -- the store


def stored(host: Host) -> Callable[[set[str]], None]:
    """Return what waits until exactly these snapshots are kept."""

    def wait(digests: set[str]) -> None:
        wait_until(lambda: set(host.source.store.digests()) == digests, what=f"only {digests}")

    return wait


def test_old_snapshots_are_removed(host: Host) -> None:
    """After a deploy only the committed snapshot is kept."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    host.order("a")
    new = prepare(worker)
    assert len(host.source.store.digests()) == 2
    commit(worker)
    stored(host)({new.digest})


def test_snapshot_of_a_failed_deploy_is_removed(host: Host) -> None:
    """Broken deploys one after another leave nothing in the store."""
    host.start()
    worker = host.worker(101)
    committed = host.directory.committed().digest
    for version in (2, 3):
        host.write(version)
        client = host.order(f"order-{version}")
        message = worker.expect(Prepare)
        worker.send(Failed(message.release.number, "no", ""))
        worker.expect(Abort)
        assert client.expect(OrderOutcome).outcome == "failed"
        stored(host)({committed})


def test_snapshot_that_a_generation_still_needs(host: Host) -> None:
    """A snapshot that somebody holds is kept as long as that, and removed later."""
    host.start()
    worker = host.worker(101)
    old = host.directory.committed().digest
    held = host.source.store.open(old)
    host.write(2)
    client = host.order("a")
    new = prepare(worker)
    commit(worker)
    client.expect(OrderOutcome)
    host.settled()
    assert set(host.source.store.digests()) == {old, new.digest}
    held.release()
    host.settled()
    stored(host)({new.digest})


def test_store_of_another_server_is_not_swept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another server writes into the directory that it has now is left alone."""
    monkeypatch.setattr(host.directory, "is_ours", lambda: False)
    unfinished = os.path.join(host.source.store.path, "snapshots", "code.json.new")
    with open(unfinished, "w"):
        pass
    host.start()
    for _ in range(3):
        host.settled()
    assert os.path.exists(unfinished)
    monkeypatch.undo()
    host.settled()
    wait_until(lambda: not os.path.exists(unfinished), what="it is swept where it is ours")


def test_store_that_can_not_be_swept(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that can't be cleared is named in the log once, and stops no deploy."""

    def fail(_keep: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(host.source.store, "sweep", fail)
    host.start()
    for _ in range(3):
        host.settled()
    assert host.order("a").expect(OrderOutcome).outcome == "unchanged"
    told = "old snapshots can't be removed: [Errno 13] Permission denied"
    wait_until(lambda: caplog.text.count(told) == 2, what="one for the start, one for the order")


# -- the whole, with real workers


@pytest.fixture
def workers(host: Host) -> Iterator[list[subprocess.Popen[str]]]:
    """Two real workers of a real coordinator."""
    host.start()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, host.directory.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "serves\n"
        yield started
    finally:
        for process in started:
            try:
                process.communicate(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def ask(process: subprocess.Popen[str]) -> str:
    """One request to a worker."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_real_workers_go_together(host: Host, workers: list[subprocess.Popen[str]]) -> None:
    """Real workers take good code together, and whatever bad code does none of them takes it."""
    assert {ask(worker)[:4] for worker in workers} == {"1 1-"}
    host.write(2)
    assert host.order("good").expect(OrderOutcome).outcome == "committed"
    assert {ask(worker)[:4] for worker in workers} == {"2 2-"}

    host.write("1 / 0")
    outcome = host.order("broken").expect(OrderOutcome)
    assert outcome.outcome == "failed"
    assert re.search(r"V = 1 / 0\n.*ZeroDivisionError: division by zero$", outcome.traceback, re.S)
    host.write("[None for _ in iter(int, 1)]")
    endless = host.order("endless")
    wait_until(lambda: host.settled().phase == "canary", what="the endless build")
    host.write(4)
    assert host.order("mended").expect(OrderOutcome).outcome == "committed"
    assert endless.expect(OrderOutcome).outcome == "superseded"
    assert {ask(worker)[:2] for worker in workers} == {"4 "}
    assert len({ask(worker) for worker in workers}) == 1


def test_real_workers_survive_their_coordinator(
    host: Host, workers: list[subprocess.Popen[str]]
) -> None:
    """Workers serve on while there is no coordinator, and obey the next one."""
    host.stop()
    assert {ask(worker)[:4] for worker in workers} == {"1 1-"}
    host.write(2)
    host.start()
    wait_until(lambda: len(host.settled().workers) == 2, what="both are back")
    assert host.order("good").expect(OrderOutcome).outcome == "committed"
    assert {ask(worker)[:4] for worker in workers} == {"2 2-"}


def test_what_is_deleted_is_written_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory that was deleted, and that the master has made again, everything is written.

    What is paused stays so, whoever empties its directory.
    """
    monkeypatch.setattr(upkeep, "LOOK", 0.02)
    pause = Pause("somebody", 1.0)
    host.directory.pause(pause)
    host.start()
    host.worker(1)
    committed = host.directory.committed()
    os.utime(host.directory.lock, (1e9, 1e9))
    gone = f"{host.directory.path}-gone"
    os.rename(host.directory.path, gone)
    host.directory.restore(os.geteuid(), os.getegid(), "shop")
    assert os.stat(host.directory.lock).st_mtime == 1e9, "since when the server runs"
    wait_until(lambda: os.path.exists(host.directory.socket), what="the socket")
    assert host.directory.committed() == committed
    assert host.directory.paused() == pause
    assert host.directory.serves(1)
    assert host.directory.happened("served")
    assert host.settled().problems == ()
    shutil.rmtree(gone)


def test_socket_that_is_made_again_while_nobody_can_be_heard(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is deleted while there are no descriptors is listened at when it is there."""
    monkeypatch.setattr(upkeep, "LOOK", 0.02)
    accept = peers.Peers.accept
    errors = [OSError(errno.EMFILE, "Too many open files")]

    def full(self: peers.Peers, listener: socket.socket) -> None:
        if errors:
            os.unlink(host.directory.socket)
            self._failed(errors.pop())
        else:
            accept(self, listener)

    monkeypatch.setattr(peers.Peers, "accept", full)
    host.start()
    host.connect()
    wait_until(lambda: not errors, what="the refusal")
    assert host.settled().phase == "idle"

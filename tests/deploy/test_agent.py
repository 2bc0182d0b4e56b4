from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from genwsgi.build import at_once
from genwsgi.deploy import abandoned
from genwsgi.deploy import agent as module
from genwsgi.deploy.agent import Agent, same
from genwsgi.deploy.control import StatusRequest
from genwsgi.deploy.protocol import (
    Abort,
    Building,
    Cancel,
    Commit,
    Committed,
    Counts,
    Failed,
    Generations,
    Hello,
    Leaving,
    Prepare,
    Problems,
    Ready,
    Step,
    Welcome,
    label,
)
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import BuildError, RunDirectoryError, ScopeError, SnapshotError
from genwsgi.generations.counts import GenerationCounts, Tally
from genwsgi.generations.status import GenerationStatus
from genwsgi.interrupt import where
from genwsgi.isolation.scope import Addition
from tests.deploy.real import DEADLINE, LOG, Connection, directory, in_thread, release, short
from tests.helpers import wait_until
from tests.isolation.fixtures import site
from tests.isolation.sources import Site, call

__all__ = ["directory", "short", "site"]

BROKEN = BuildError("myapp", "KeyError: 'x'", "Traceback: all of it")


class FakeGeneration:
    """What a build of the fake gives."""

    def __init__(self, number: int, release: str) -> None:
        self.number, self.release, self.name = number, release, f"generation {number}"


class FakeLive:
    """A live application that builds what a test says.

    :ivar codes: what the build of a digest does, if it is not to succeed at once.
    :ivar growing: the labels of the builds that may ask for a larger scope.
    :ivar looking: the labels of those that look at theirs.
    :ivar looked: set when they may have looked.
    :ivar served: the labels of what was swapped in, in order; ``discarded`` is alike.
    """

    size = 0

    def __init__(self) -> None:
        self.codes: dict[str, Callable[[Callable[[int], None]], None]] = {}
        self.begun: list[str] = []
        self.growing: list[str] = []
        self.looking: list[str] = []
        self.looked = threading.Event()
        self.looked.set()
        self.strict: list[str] = []
        self.served: list[str] = []
        self.discarded: list[str] = []
        self.current: FakeGeneration | None = None
        self.parked: FakeGeneration | None = None
        self.generations: tuple[GenerationStatus, ...] = ()
        self.counting = False
        self.counted: tuple[GenerationCounts, ...] = ()
        self.drains: list[float] = []

    def counts(self) -> tuple[GenerationCounts, ...]:
        """What a test says."""
        return self.counted

    def drained(self) -> tuple[float, ...]:
        """What a test says, once."""
        # What the test adds at this moment is not lost.
        drains = tuple(self.drains)
        del self.drains[: len(drains)]
        return drains

    def status(self) -> tuple[GenerationStatus, ...]:
        """What a test says."""
        return self.generations

    def build(
        self,
        digest: str,
        release: str,
        on_module: Callable[[int], None] = lambda modules: None,
        *,
        grow: bool = True,
        look: bool = True,
        strict: bool = True,
        on_check: Callable[[int, int], None] | None = None,
        on_look: Callable[[], object] = lambda: None,
        run: Callable[..., Any] = at_once,
    ) -> FakeGeneration:
        """Run the digest's code, and look as long as a test lets it."""
        self.begun.append(release)
        if strict:
            self.strict.append(release)
        if look:
            self.looking.append(release)
        if grow:
            self.growing.append(release)
        number = len(self.begun)
        run(self.codes.get(digest, lambda on_module: None), on_module)
        on_look()
        assert self.looked.wait(10)
        return FakeGeneration(number, release)

    def swap(self, generation: FakeGeneration, *, park: bool = False) -> None:
        """Note it."""
        self.served.append(generation.release)
        self.parked = self.current if park else None
        self.current = generation

    def unpark(self) -> None:
        """Note it."""
        self.parked = None

    def busy(self) -> bool:
        """Nobody is served here."""
        return False

    def discard(self, generation: FakeGeneration) -> None:
        """Note it."""
        self.discarded.append(generation.release)


class FakeCoordinator:
    """Listens where the coordinator does."""

    def __init__(self, directory: RunDirectory) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory.socket)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(directory.socket)
        self._listener.listen()
        self._listener.settimeout(DEADLINE)
        self._accepted: list[Connection] = []

    def accept(self) -> Connection:
        """The next agent's connection."""
        self._accepted.append(Connection(self._listener.accept()[0]))
        return self._accepted[-1]

    def close(self) -> None:
        """Be gone, with all connections."""
        self._listener.close()
        for connection in self._accepted:
            connection.close()


class Worker:
    """One agent with what is around it.

    :ivar live: its application, a fake if the test asks for no other.
    """

    live: Any

    def __init__(self, directory: RunDirectory, live: Any = None, **options: Any) -> None:
        self.directory = directory
        self.live = live or FakeLive()
        self.agent = Agent(self.live, directory, LOG, **options)
        self.coordinator = FakeCoordinator(directory)

    def start(self) -> Connection:
        """Boot, start and connect to a coordinator that welcomes it."""
        self.agent.boot()
        with in_thread(self.agent.start, DEADLINE):
            connection = self.coordinator.accept()
            connection.expect(Hello)
            connection.send(Welcome(self.directory.committed()))
        return connection

    def lose_coordinator(self) -> None:
        """The coordinator dies, and another one listens."""
        self.coordinator.close()
        self.coordinator = FakeCoordinator(self.directory)

    def behind(self) -> Connection:
        """Start a worker that could not build release 2 when that was committed."""
        connection = self.start()
        self.live.codes["code2"] = fails
        self.directory.record(release(2))
        connection.send(Welcome(release(2)))
        assert connection.expect(Failed).release == 2
        del self.live.codes["code2"]
        return connection

    def close(self) -> None:
        """End the agent's thread and everything it could still wait for."""
        self.coordinator.close()
        if thread_of_agent() is not None:
            self.agent.leave(DEADLINE)
        else:
            self.agent._link.close()
        wait_until(lambda: thread_of_agent() is None, what="the agent's thread ends")
        wait_until(lambda: not builds(), what="its builds end")


def thread_of_agent() -> threading.Thread | None:
    """The thread of the one agent there may be."""
    return next((one for one in threading.enumerate() if one.name == "genwsgi-agent"), None)


def builds() -> list[str]:
    """The releases that are being built."""
    threads = [one.name for one in threading.enumerate()]
    return [name.split()[1] for name in threads if name.startswith("genwsgi-build ")]


def fails(on_module: Callable[[int], None]) -> None:
    """A build of code that raises."""
    raise BROKEN


def endless(on_module: Callable[[int], None]) -> None:
    """A build that never ends by itself."""
    while True:
        on_module(1)


def waits_for(gate: threading.Event) -> Callable[[Callable[[int], None]], None]:
    """A build that a test ends, and nothing else can."""

    def wait(on_module: Callable[[int], None]) -> None:
        gate.wait(2 * DEADLINE)

    return wait


#: Where such a build hangs, as a stack has it.
HANGS = "gate.wait(2 * DEADLINE)"


def hanging(name: str) -> bool:
    """Whether the thread ``name`` has come to where it waits for a gate."""
    return any(HANGS in where(one) for one in threading.enumerate() if one.name == name)


@contextlib.contextmanager
def held_up(words: str, until: Callable[[], bool]) -> Iterator[threading.Event]:
    """The agent goes on from where it logs ``words`` when ``until()``; set when it is there."""
    heard = threading.Event()

    class Handler(logging.Handler):
        """Holds the agent's thread up."""

        def emit(self, record: logging.LogRecord) -> None:
            """Wait."""
            if words in record.getMessage():
                heard.set()
                wait_until(until, what=f"what is waited for at {words!r}")

    handler = Handler()
    LOG.addHandler(handler)
    try:
        yield heard
    finally:
        LOG.removeHandler(handler)


@pytest.fixture
def worker(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker that is not started, with a fake application and a fake coordinator.

    However slow the machine is, what has failed is not tried again before a test says so.
    """
    monkeypatch.setattr(module, "RETRY", 10 * DEADLINE)
    made = Worker(directory)
    yield made
    made.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Open when the test is over, at the latest."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the system refuse a thread for the next build."""
    refusals: list[int] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if refusals and thread.name.startswith("genwsgi-build"):
            refusals.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return lambda: refusals.append(1)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


# -- booting and starting


def test_boot_serves_the_committed_release(worker: Worker) -> None:
    """A worker boots the committed release and names it in its generation."""
    worker.directory.record(release(5, "0123456789abcdef"))
    assert "on release None" in repr(worker.agent)
    worker.agent.boot()
    assert worker.live.served == ["5-01234567"]
    assert repr(worker.agent) == f"<Agent of process {os.getpid()} on release 5-01234567>"
    assert label(release(5, "0123456789abcdef")) == "5-01234567"


def test_boot_follows_when_its_release_is_swept_away(worker: Worker) -> None:
    """A worker that finds its release replaced and removed boots the one that replaced it."""

    def swept(on_module: Callable[[int], None]) -> None:
        worker.directory.record(release(2))
        raise SnapshotError("code1", "is not there")

    worker.live.codes["code1"] = swept
    worker.agent.boot()
    assert worker.live.served == ["2-code2"]


@pytest.mark.parametrize("error", [SnapshotError("code1", "is not there"), BROKEN])
def test_boot_fails_with_the_reason(worker: Worker, error: Exception) -> None:
    """A worker that can't build the committed release serves nothing and says why."""

    def fail(on_module: Callable[[int], None]) -> None:
        raise error

    worker.live.codes["code1"] = fail
    with pytest.raises(type(error)) as caught:
        worker.agent.boot()
    assert caught.value is error
    assert worker.live.begun == ["1-code1"]
    assert not worker.live.served


def test_worker_serves_only_when_the_coordinator_agrees(worker: Worker) -> None:
    """A worker says who it is, and serves as soon as it hears that its release is committed."""
    worker.agent.boot()
    with in_thread(worker.agent.start, DEADLINE):
        connection = worker.coordinator.accept()
        assert connection.receive() == Hello(os.getpid(), release(1), None)
        assert not worker.directory.serving()
        connection.send(Welcome(release(1)))
    assert worker.directory.serving() == {os.getpid()}


def test_worker_that_is_late_catches_up_before_it_serves(worker: Worker) -> None:
    """A worker that booted what is not committed any more serves the newer release first."""
    worker.agent.boot()
    worker.directory.record(release(2))
    with in_thread(worker.agent.start, DEADLINE):
        connection = worker.coordinator.accept()
        connection.expect(Hello)
        connection.send(Welcome(release(2)))
        assert connection.expect(Committed) == Committed(2, 2)
    assert worker.live.served == ["1-code1", "2-code2"]


def test_worker_starts_without_a_coordinator(worker: Worker) -> None:
    """Where no coordinator is, a worker serves after the time-out and connects when one is."""
    worker.coordinator.close()
    worker.agent.boot()
    worker.agent.start(timeout=0.05)
    assert worker.directory.serving() == {os.getpid()}
    worker.coordinator = FakeCoordinator(worker.directory)
    assert worker.coordinator.accept().expect(Hello).current == release(1)


def test_worker_serves_though_the_coordinator_is_silent(worker: Worker) -> None:
    """A coordinator that accepts and says nothing holds a worker up until the time-out."""
    worker.agent.boot()
    worker.agent.start(timeout=0.05)
    assert worker.directory.serving() == {os.getpid()}


# -- a deploy


def test_prepare_and_commit(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """What is prepared is served from the commit on, not before, and the swap is confirmed."""
    connection = worker.start()
    connection.send(Prepare(release(2)))
    ready = connection.expect(Ready)
    assert ready.release == 2
    assert 0 <= ready.seconds < DEADLINE
    assert worker.live.served == ["1-code1"]
    worker.directory.record(release(2))
    connection.send(Commit(2))
    assert connection.expect(Committed) == Committed(2, 2)
    assert worker.live.served == ["1-code1", "2-code2"]
    assert not worker.live.discarded
    assert "release 2-code2 is live as generation 2" in caplog.text


def test_commit_of_what_is_served_is_confirmed_again(worker: Worker) -> None:
    """A commit of the current release is answered, for the answer before may be lost."""
    connection = worker.start()
    connection.send(Commit(1))
    assert connection.expect(Committed) == Committed(1, 1)
    assert worker.live.served == ["1-code1"]


@pytest.fixture
def parking(directory: RunDirectory) -> Iterator[Worker]:
    """A worker that keeps what it replaces, as :func:`worker`."""
    made = Worker(directory, probation=100.0, park=True)
    yield made
    made.close()


def deploy(worker: Worker, connection: Connection, number: int, back_to: int | None = None) -> int:
    """Have release ``number``, perhaps the code of an older one, go live; the generation of it."""
    made = dataclasses.replace(release(number, f"code{back_to or number}"), back_to=back_to)
    connection.send(Prepare(made))
    assert connection.expect(Ready).release == number
    worker.directory.record(made)
    connection.send(Commit(number))
    generation = connection.expect(Committed).generation
    assert isinstance(generation, int)
    return generation


def test_parked_generation_is_ready_at_once(parking: Worker) -> None:
    """Going back to the code of a parked generation takes no build: it serves as the new release.

    What is gone back from is not kept.
    """
    connection = parking.start()
    assert deploy(parking, connection, 2) == 2
    assert parking.live.parked is not None
    assert deploy(parking, connection, 3, back_to=1) == 1
    assert parking.live.begun == ["1-code1", "2-code2"]
    assert parking.live.served == ["1-code1", "2-code2", "3-code1"]
    assert parking.live.parked is None


def test_code_that_is_parked_and_deployed_anew(parking: Worker) -> None:
    """An order that is no rollback has the code built, though it is that of the parked one."""
    connection = parking.start()
    deploy(parking, connection, 2)
    again = release(3, "code1")
    connection.send(Prepare(again))
    connection.expect(Ready)
    assert parking.live.begun[-1] == "3-code1"


def test_rollback_is_not_refused_for_its_verification(worker: Worker) -> None:
    """What is new has to pass; what was served before, or is committed, is only warmed up.

    Nor is its scope held against it.
    """
    connection = worker.start()
    deploy(worker, connection, 2)
    deploy(worker, connection, 3, back_to=1)
    worker.directory.record(release(4))
    connection.send(Welcome(release(4)))
    wait_until(lambda: worker.live.served[-1] == "4-code4", what="it has caught up")
    assert worker.live.begun == ["1-code1", "2-code2", "3-code1", "4-code4"]
    assert worker.live.strict == ["1-code1", "2-code2"]
    assert worker.live.growing == ["2-code2"]


def test_rollback_that_is_aborted(parking: Worker) -> None:
    """A parked generation that was prepared and not committed stays parked, for the next try."""
    connection = parking.start()
    deploy(parking, connection, 2)
    back = dataclasses.replace(release(3, "code1"), back_to=1)
    connection.send(Prepare(back), Abort(3, "worker 7 is gone"))
    connection.expect(Ready)
    assert deploy(parking, connection, 4, back_to=1) == 1
    assert parking.live.begun == ["1-code1", "2-code2"]


def test_parked_generation_is_let_go_in_time(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its time is over it is let go, but not between the Prepare and the Commit of it."""
    monkeypatch.setattr("genwsgi.deploy.parking.AGAIN", 0.05)
    worker = Worker(directory, probation=0.05, park=True)
    try:
        connection = worker.start()
        connection.send(Prepare(release(2)))
        connection.expect(Ready)
        worker.directory.record(release(2))
        back = dataclasses.replace(release(3, "code1"), back_to=1)
        # Both at once: between them its time could be over.
        connection.send(Commit(2), Prepare(back))
        connection.expect(Committed, Ready)
        until = worker.agent._parking.until
        assert until is not None
        wait_until(lambda: (worker.agent._parking.until or 0.0) > until + 0.1, what="two looks")
        assert worker.live.parked is not None
        connection.send(Abort(3, "enough"))
        wait_until(lambda: worker.live.parked is None, what="it is let go")
    finally:
        worker.close()


def test_requests_are_told_of(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where requests are counted, the coordinator hears of generations that had some."""
    monkeypatch.setattr("genwsgi.deploy.telling.COUNT", (0.02, 0.02))
    one = GenerationCounts(1, "1-code1", Tally(3))
    worker.live.counting, worker.live.counted = True, (one,)
    connection = worker.start()
    assert connection.expect(Counts) == Counts(os.getpid(), (one,))
    two = GenerationCounts(2, "2-code2", Tally(1))
    worker.live.counted = (one, two)
    assert connection.expect(Counts) == Counts(os.getpid(), (two,))
    worker.live.drains += [0.5, 1.5]
    assert connection.expect(Counts) == Counts(os.getpid(), (), 0.0, (0.5, 1.5))


def test_the_last_requests_are_told_of_before_it_leaves(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ends in good order takes no count with it."""
    monkeypatch.setattr("genwsgi.deploy.telling.COUNT", (60.0, 60.0))
    worker.live.counting = True
    connection = worker.start()
    wait_until(
        lambda: worker.agent._teller._count_at > time.monotonic() + 30, what="the first count"
    )
    worker.live.counted = (GenerationCounts(1, "1-code1", Tally(7)),)
    worker.agent.leave()
    assert connection.expect(Counts) == Counts(os.getpid(), worker.live.counted)
    connection.expect(Leaving)


def test_old_generations_are_told_of(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator hears how the generations stand: when it changes, and while one is old."""
    monkeypatch.setattr("genwsgi.deploy.telling.TELL", 0.05)
    current = GenerationStatus(2, "2-code2", "current", 3, 0.5, "")
    worker.live.generations = (current,)
    connection = worker.start()
    assert connection.expect(Generations) == Generations((current,))
    old = GenerationStatus(1, "1-code1", "draining", 1, 7.5, "", "GET /slow", 7.0)
    worker.live.generations = (old, current)
    connection.send(Commit(1))
    connection.expect(Committed)
    for _ in range(3):  # as time passes
        assert connection.expect(Generations) == Generations((old, current))
    held = dataclasses.replace(old, state="retired", leases=0, oldest=None, holder="x" * 5000)
    held = dataclasses.replace(held, request="y" * 5000)
    worker.live.generations = (held, current)
    wait_until(lambda: connection.expect(Generations).generations[0].state == "retired")
    (told, _) = connection.expect(Generations).generations
    assert (len(told.holder) <= 1000, len(told.request) <= 200) == (True, True)
    worker.live.generations = (current,)
    wait_until(lambda: connection.expect(Generations) == Generations((current,)))
    worker.live.generations = tuple(dataclasses.replace(held, number=n) for n in range(99))
    connection.send(Commit(1))
    connection.expect(Committed)
    assert [one.number for one in connection.expect(Generations).generations] == [*range(49, 99)]


def test_abort_discards_what_is_prepared(worker: Worker) -> None:
    """After an abort the prepared generation is gone and the old one serves on."""
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    connection.send(Abort(2, "worker 7 failed"), Commit(1))
    connection.expect(Committed)
    wait_until(lambda: worker.live.discarded == ["2-code2"], what="the discarded generation")
    assert worker.live.served == ["1-code1"]


def test_abort_of_another_release_is_not_for_what_is_prepared(worker: Worker) -> None:
    """An abort that comes too late, for a release that is gone, does no harm."""
    connection = worker.start()
    connection.send(Prepare(release(3)))
    connection.expect(Ready)
    worker.directory.record(release(3))
    connection.send(Abort(2, "late"), Commit(3))
    assert connection.expect(Committed) == Committed(3, 2)
    assert worker.live.begun == ["1-code1", "3-code3"]
    assert not worker.live.discarded


def test_failed_build_sends_the_traceback(worker: Worker) -> None:
    """A build that fails sends the reason and the whole traceback; the old release serves on."""
    worker.live.codes["code2"] = fails
    connection = worker.start()
    connection.send(Prepare(release(2)))
    assert connection.expect(Failed) == Failed(2, str(BROKEN), BROKEN.traceback)
    assert worker.live.served == ["1-code1"]
    connection.send(Prepare(release(3)))
    assert connection.expect(Ready).release == 3


def test_build_that_no_thread_is_left_for(worker: Worker, no_threads: Callable[[], None]) -> None:
    """It is not the code that is to blame, and the next order finds the worker as it was."""
    connection = worker.start()
    no_threads()
    connection.send(Prepare(release(2)))
    failed = connection.expect(Failed)
    assert failed.blameless
    assert "can't start new thread" in failed.reason
    connection.send(Prepare(release(2)))
    assert connection.expect(Ready).release == 2


def test_scope_that_is_too_small_is_said(worker: Worker) -> None:
    """A build that lacks something in its scope sends what, and how it failed for want of it."""
    additions = (
        Addition("kit", "imports shop (kit: import shop)"),
        Addition("", "the application has put it on sys.path", "/srv/shop/lib"),
    )
    error = ScopeError("myapp", additions, "Traceback: all of it")

    def lack(on_module: Callable[[int], None]) -> None:
        raise error

    worker.live.codes["code2"] = lack
    connection = worker.start()
    connection.send(Prepare(release(2)))
    failed = Failed(2, str(error), "Traceback: all of it", additions)
    assert connection.expect(Failed) == failed
    assert worker.live.served == ["1-code1"]


def test_what_is_committed_is_built_with_the_scope_it_has(worker: Worker) -> None:
    """Only a build that is part of a deploy may ask for a larger scope: who boots or is behind
    must serve what is committed.  Who is told to looks at its scope.
    """
    connection = worker.start()
    for number, look in ((2, False), (3, True)):
        connection.send(Prepare(release(number), look))
        connection.expect(Ready)
    worker.directory.record(release(4))
    connection.send(Welcome(release(4)))
    connection.expect(Committed)
    assert worker.live.growing == ["2-code2", "3-code3"]
    assert worker.live.looking == ["1-code1", "3-code3"]


def test_how_far_a_build_is_is_told_before_it_begins_and_when_it_only_looks(
    worker: Worker,
) -> None:
    """The coordinator hears that a build is about to begin, so that it knows what has killed a
    worker; and that only the look at the scope is left, so that the others can begin.
    """
    begun = threading.Event()

    def slowly(on_module: Callable[[int], None]) -> None:
        assert begun.wait(10)

    worker.live.codes["code2"] = slowly
    connection = worker.start()
    worker.live.looked.clear()
    connection.send(Prepare(release(2)))
    assert connection.expect(Building) == Building(2, Step.BUILDING, 0, 0)
    begun.set()
    message = connection.expect(Building)
    while message.stage != Step.LOOKING:
        message = connection.expect(Building)
    worker.live.looked.set()
    connection.expect(Ready)
    connection.send(Prepare(release(3), False))
    connection.expect(Building, Ready)


def test_failure_too_long_for_a_message_is_cut(worker: Worker) -> None:
    """A traceback of any length comes through, cut in the middle."""

    def fail(on_module: Callable[[int], None]) -> None:
        raise BuildError("myapp", "r" * 2_000_000, "first " + "t" * 2_000_000 + " last")

    worker.live.codes["code2"] = fail
    connection = worker.start()
    connection.send(Prepare(release(2)))
    failed = connection.expect(Failed)
    assert failed.traceback.startswith("first ttt")
    assert failed.traceback.endswith("ttt last")
    assert len(failed.reason) < 70_000


def test_abort_abandons_an_endless_build(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """A build that would never end is ended by an abort, and leaves nothing."""
    worker.live.codes["code2"] = endless
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(builds, what="the build")
    connection.send(Abort(2, "it took too long"))
    wait_until(lambda: not builds(), what="the end of the build")
    connection.send(Commit(1))
    connection.expect(Committed)
    assert connection.quiet()
    assert worker.live.served == ["1-code1"]
    assert "the build of release 2-code2 is abandoned: it took too long; it was at\n" in caplog.text


def test_log_says_where_an_abandoned_build_hangs(
    worker: Worker,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An abandoned build that does not stop is named in the log once, with its stack."""
    monkeypatch.setattr(abandoned, "STOP_WITHIN", 0.02)
    worker.live.codes["code2"] = waits_for(gate)
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(lambda: hanging("genwsgi-build 2-code2"), what="the build to hang")
    connection.send(Abort(2, "it took too long"))
    message = "the abandoned build of release 2-code2 does not stop; it is at\n"
    wait_until(lambda: message in caplog.text, what="the log")
    assert HANGS in caplog.text.partition(message)[2]
    gate.set()
    wait_until(lambda: not builds(), what="the end of the build")
    connection.send(Commit(1))
    connection.expect(Committed)
    assert connection.quiet()
    assert caplog.text.count(message) == 1


def test_log_says_where_a_discard_hangs(
    worker: Worker,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an application does at its end may block: the agent obeys on, and the log names it."""
    monkeypatch.setattr(abandoned, "STOP_WITHIN", 0.02)
    worker.live.discard = lambda generation: waits_for(gate)(lambda modules: None)
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    # It is there before the agent looks where it is.
    at_its_end = partial(hanging, "genwsgi-discard 2-code2")
    with held_up("release 2-code2 is discarded", at_its_end):
        connection.send(Abort(2, "worker 7 failed"), Prepare(release(3)))
        assert connection.expect(Ready).release == 3
    message = "what release 2-code2 does at its end does not stop; it is at\n"
    wait_until(lambda: message in caplog.text, what="the log")
    assert HANGS in caplog.text.partition(message)[2]
    gate.set()


def test_newer_prepare_replaces_what_is_prepared(worker: Worker) -> None:
    """One generation at most is kept ready: a newer one makes the older go."""
    connection = worker.start()
    for number in (2, 3):
        connection.send(Prepare(release(number)))
        assert connection.expect(Ready).release == number
    wait_until(lambda: worker.live.discarded == ["2-code2"], what="the discarded generation")
    worker.directory.record(release(3))
    connection.send(Commit(3))
    assert connection.expect(Committed).release == 3


def test_newer_prepare_replaces_the_build_under_way(worker: Worker) -> None:
    """A build that a newer one replaces is ended and never heard of again."""
    worker.live.codes["code2"] = endless
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(builds, what="the build")
    connection.send(Prepare(release(3)))
    assert connection.expect(Ready).release == 3
    wait_until(lambda: not builds(), what="the end of the build")
    assert connection.quiet()


def test_build_that_ends_as_it_is_abandoned(worker: Worker, gate: threading.Event) -> None:
    """A generation that was ready a moment before its abort was heard is discarded as well."""
    worker.live.codes["code2"] = waits_for(gate)
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(builds, what="the build")
    with held_up("not for workers", lambda: not builds()) as heard:
        connection.send(StatusRequest(), Abort(2, "late"))
        assert heard.wait(DEADLINE)
        gate.set()
        wait_until(lambda: worker.live.discarded == ["2-code2"], what="the discarded generation")
    connection.send(Commit(1))
    connection.expect(Committed)
    assert connection.quiet()


# -- connections that break


def test_commit_that_was_lost_with_its_coordinator(worker: Worker) -> None:
    """A worker that is ready and loses the coordinator swaps if its release was recorded."""
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    worker.directory.record(release(2))
    worker.coordinator.close()
    wait_until(lambda: worker.live.served == ["1-code1", "2-code2"], what="the swap")
    worker.coordinator = FakeCoordinator(worker.directory)
    assert worker.coordinator.accept().receive() == Hello(os.getpid(), release(2), None)


def test_release_committed_while_the_coordinator_is_away(worker: Worker) -> None:
    """A worker builds what it finds committed though nobody tells it."""
    worker.start()
    worker.directory.record(release(2))
    worker.coordinator.close()
    wait_until(lambda: worker.live.served == ["1-code1", "2-code2"], what="the swap")


def test_prepared_release_is_told_to_the_next_coordinator(worker: Worker) -> None:
    """What is ready and not committed is kept over a broken connection, for it may be yet."""
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    worker.lose_coordinator()
    connection = worker.coordinator.accept()
    assert connection.receive() == Hello(os.getpid(), release(1), release(2))
    connection.send(Welcome(release(1)))
    worker.directory.record(release(2))
    connection.send(Commit(2))
    assert connection.expect(Committed) == Committed(2, 2)
    assert worker.live.begun == ["1-code1", "2-code2"]


def test_prepared_release_that_nobody_waits_for(worker: Worker) -> None:
    """What the next coordinator does not want is discarded."""
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    worker.lose_coordinator()
    connection = worker.coordinator.accept()
    connection.send(Welcome(release(1)), Abort(2, "nobody waits for it"), Commit(1))
    connection.expect(Hello, Committed)
    wait_until(lambda: worker.live.discarded == ["2-code2"], what="the discarded generation")


def test_build_under_way_when_the_connection_breaks(worker: Worker) -> None:
    """What is still being built when the connection breaks is given up before the next Hello."""
    worker.live.codes["code2"] = endless
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(builds, what="the build")
    worker.lose_coordinator()
    connection = worker.coordinator.accept()
    assert connection.receive() == Hello(os.getpid(), release(1), None)
    wait_until(lambda: not builds(), what="the end of the build")
    connection.send(Welcome(release(1)), Prepare(release(2, "fixed")))
    assert connection.expect(Ready).release == 2
    assert worker.live.begun[-1] == "2-fixed"


def test_build_that_ends_while_the_coordinator_is_away(
    worker: Worker, gate: threading.Event
) -> None:
    """A release that is ready only after the connection broke is in the next Hello."""
    worker.live.codes["code2"] = waits_for(gate)
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(builds, what="the build")
    worker.coordinator.close()
    gate.set()
    wait_until(lambda: worker.agent._bench.prepared is not None, what="it to be prepared")
    worker.coordinator = FakeCoordinator(worker.directory)
    assert worker.coordinator.accept().expect(Hello).prepared == release(2)


def test_number_that_was_given_twice(worker: Worker) -> None:
    """A release is not taken for the one that a dead coordinator gave the same number."""
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    worker.directory.record(release(2, "other"))
    worker.lose_coordinator()
    connection = worker.coordinator.accept()
    wait_until(lambda: worker.live.served == ["1-code1", "2-other"], what="the other code")
    wait_until(lambda: worker.live.discarded == ["2-code2"], what="the discarded generation")
    assert not same(release(2), release(2, "other"))


def test_late_abort_does_not_stop_catching_up(
    worker: Worker, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The abort of an old release leaves the build of the committed one alone."""
    worker.live.codes["code3"] = waits_for(gate)
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    worker.directory.record(release(3))
    connection.send(Welcome(release(3)), Abort(2, "nobody waits for it"), StatusRequest())
    wait_until(lambda: "StatusRequest" in caplog.text, what="all are heard")
    wait_until(lambda: worker.live.discarded == ["2-code2"], what="the discarded generation")
    gate.set()
    assert connection.expect(Committed).release == 3
    assert worker.live.served == ["1-code1", "3-code3"]


def test_garbage_from_the_coordinator(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be understood ends the connection; the worker serves on and connects again."""
    connection = worker.start()
    connection.send_bytes(b"\xff" * 64)
    assert connection.receive() is None
    assert "the coordinator can't be understood: frame of" in caplog.text
    connection = worker.coordinator.accept()
    connection.expect(Hello)
    connection.send(Welcome(release(1)), Prepare(release(2)))
    assert connection.expect(Ready).release == 2


def test_message_that_is_not_for_workers(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """A message for somebody else is named in the log and changes nothing."""
    connection = worker.start()
    connection.send(StatusRequest(), Commit(1))
    connection.expect(Committed)
    assert "the coordinator sent a StatusRequest(), which is not for workers" in caplog.text


def test_connection_that_is_reset_while_the_agent_speaks(
    worker: Worker, gate: threading.Event
) -> None:
    """An answer that can't be sent any more is not lost: the next Hello says it."""
    worker.live.codes["code2"] = waits_for(gate)
    connection = worker.start()
    # Of its look at the scope there would be something to say before it is ready.
    connection.send(Prepare(release(2), look=False))
    connection.expect(Building, Building)  # and no more until then
    # It can still be read from, but not written to.
    connection._socket.shutdown(socket.SHUT_RD)
    gate.set()
    assert worker.coordinator.accept().expect(Hello).prepared == release(2)


# -- catching up


def test_catching_up_is_tried_again(
    worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that can't build the committed release says so, serves on, and tries again."""
    monkeypatch.setattr(module, "RETRY", 0.02)
    failures = [BROKEN, BROKEN]

    def recover(on_module: Callable[[int], None]) -> None:
        if failures:
            raise failures.pop()

    worker.live.codes["code2"] = recover
    connection = worker.start()
    worker.directory.record(release(2))
    connection.send(Welcome(release(2)))
    assert connection.expect(Failed) == Failed(2, str(BROKEN), BROKEN.traceback)
    (problem,) = connection.expect(Problems).problems
    assert connection.expect(Failed) == Failed(2, str(BROKEN), BROKEN.traceback)
    assert (problem.name, problem.pid) == ("release", os.getpid())
    assert "the committed release 2-code2 can't be built here" in problem.text
    assert connection.expect(Committed).release == 2
    assert connection.expect(Problems) == Problems(())
    told = "the committed release 2-code2 can't be built here, and release 1-code1 is served on"
    assert caplog.text.count(told) == 2
    assert BROKEN.traceback in caplog.text


def test_catching_up_that_no_thread_is_left_for(
    worker: Worker,
    no_threads: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is committed is built when there are threads again, and until then that is a problem."""
    monkeypatch.setattr(module, "RETRY", 0.02)
    connection = worker.start()
    no_threads()
    worker.directory.record(release(2))
    connection.send(Welcome(release(2)))
    assert connection.expect(Failed).blameless
    (problem,) = connection.expect(Problems).problems
    assert "can't start new thread" in problem.text
    assert connection.expect(Committed).release == 2
    assert connection.expect(Problems) == Problems(())
    assert "stumbled" not in caplog.text


@pytest.mark.parametrize("end", ["abort", "failure"])
def test_deploy_that_interrupts_catching_up(worker: Worker, end: str) -> None:
    """A worker that is behind catches up when the deploy that came between has come to nothing."""
    connection = worker.behind()
    if end == "failure":
        worker.live.codes["code3"] = fails
    connection.send(Prepare(release(3)))
    if end == "failure":
        assert connection.expect(Failed).release == 3
    else:
        connection.expect(Ready)
        connection.send(Abort(3, "worker 7 failed"))
    assert connection.expect(Committed).release == 2
    assert worker.live.served == ["1-code1", "2-code2"]


def test_deploy_under_way_is_not_given_up_to_catch_up(worker: Worker) -> None:
    """A worker that is behind and ready for a newer release keeps that over a new connection."""
    connection = worker.behind()
    connection.send(Prepare(release(3)))
    connection.expect(Ready)
    worker.lose_coordinator()
    connection = worker.coordinator.accept()
    assert connection.expect(Hello).prepared == release(3)
    connection.send(Welcome(release(2)))
    worker.directory.record(release(3))
    connection.send(Commit(3))
    assert connection.expect(Committed).release == 3
    assert worker.live.begun == ["1-code1", "2-code2", "3-code3"]


def test_release_being_built_that_turns_out_to_be_committed(
    worker: Worker, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A build under way of what is committed now is not begun again, and ends in a swap."""
    worker.live.codes["code2"] = waits_for(gate)
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(builds, what="the build")
    worker.directory.record(release(2))
    connection.send(Commit(2), StatusRequest())
    wait_until(lambda: "StatusRequest" in caplog.text, what="both are heard")
    gate.set()
    assert connection.expect(Committed).release == 2
    assert worker.live.begun == ["1-code1", "2-code2"]


def test_committed_release_replaces_the_build_of_another(worker: Worker) -> None:
    """What is committed comes before what was to be prepared."""
    worker.live.codes["code2"] = endless
    connection = worker.start()
    connection.send(Prepare(release(2)))
    wait_until(builds, what="the build")
    worker.directory.record(release(3))
    connection.send(Welcome(release(3)))
    assert connection.expect(Committed).release == 3


# -- what goes wrong in the agent itself


def test_agent_survives_an_exception(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """An agent that stumbles says so with its traceback, connects again and obeys."""
    connection = worker.start()
    connection.send(Prepare(release(2)))
    connection.expect(Ready)
    worker.live.cancel = {}.__getitem__  # raises TypeError
    connection.send(Cancel(2))
    assert connection.receive() is None
    assert "the agent stumbled and starts again\nTraceback" in caplog.text
    connection = worker.coordinator.accept()
    connection.expect(Hello)
    connection.send(Welcome(release(1)), Prepare(release(3)))
    assert connection.expect(Ready).release == 3


def test_agent_survives_an_exception_without_a_coordinator(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that stumbles while the coordinator is away still comes back to it."""
    worker.start()
    swap = worker.live.swap
    worker.live.swap = {}.pop  # raises KeyError
    worker.directory.record(release(2))
    worker.coordinator.close()
    wait_until(lambda: "the agent stumbled" in caplog.text, what="the log")
    worker.live.swap = swap
    wait_until(lambda: worker.live.served == ["1-code1", "2-code2"], what="the swap")
    worker.coordinator = FakeCoordinator(worker.directory)
    assert worker.coordinator.accept().expect(Hello).current == release(2)


def test_agent_survives_a_lost_run_directory(
    worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody can say what is committed the worker serves on, without a noise in the log."""
    tries = threading.Semaphore(0)

    def lost() -> None:
        tries.release()
        raise RunDirectoryError(worker.directory.path, "the committed release is lost")

    worker.start()
    with monkeypatch.context() as patch:
        patch.setattr(worker.directory, "committed", lost)
        worker.coordinator.close()
        for _ in range(3):
            assert tries.acquire(timeout=DEADLINE)
    worker.coordinator = FakeCoordinator(worker.directory)
    worker.coordinator.accept().expect(Hello)
    assert "stumbled" not in caplog.text


# -- leaving


def test_worker_that_leaves_says_so(worker: Worker) -> None:
    """A worker that ends in good order tells the coordinator, serves no more and hangs up."""
    connection = worker.start()
    worker.agent.leave()
    connection.expect(Leaving)
    assert connection.receive() is None
    assert not worker.directory.serving()
    wait_until(lambda: thread_of_agent() is None, what="the agent's thread ends")


def test_worker_that_leaves_without_a_coordinator(worker: Worker) -> None:
    """A worker that ends while the coordinator is away does not wait for one."""
    worker.coordinator.close()
    worker.agent.boot()
    worker.agent.start(timeout=0.0)
    began = time.monotonic()
    worker.agent.leave(DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2
    wait_until(lambda: thread_of_agent() is None, what="the agent's thread ends")


# -- a real application


@pytest.fixture
def real(directory: RunDirectory, site: Site) -> Iterator[Worker]:
    """A worker with a real application, whose first release is version 1."""
    site.write(shop="V = 1\n")
    directory.record(release(1, site.take()))
    made = Worker(directory, site.live)
    yield made
    made.close()


def test_real_deploys(real: Worker, site: Site, tmp_path: Path) -> None:
    """Real code goes through prepare and commit, failure, endless loop and abort unharmed."""
    connection = real.start()
    first = site.live.current
    assert first is not None
    assert first.release == label(real.directory.committed())

    site.write(shop="V = 2\n")
    second = release(2, site.take())
    connection.send(Prepare(second))
    connection.expect(Ready)
    assert call(first, "shop", "create_app") is not None
    assert site.live.current is first
    real.directory.record(second)
    connection.send(Commit(2))
    assert connection.expect(Committed) == Committed(2, 2)
    current = site.live.current
    assert current is not None
    assert current.release == label(second)

    site.write(shop="V = 1 / 0\n")
    connection.send(Prepare(release(3, site.take())))
    failed = connection.expect(Failed)
    assert failed.release == 3
    assert failed.traceback.startswith("Traceback (most recent call last):")
    assert "V = 1 / 0" in failed.traceback
    assert failed.traceback.endswith("ZeroDivisionError: division by zero")

    begun = tmp_path / "begun"
    site.write(shop=f"open({str(begun)!r}, 'w').close()\nwhile True:\n    pass\n")
    connection.send(Prepare(release(4, site.take())))
    wait_until(begun.exists, what="the build")
    connection.send(Abort(4, "it took too long"))
    wait_until(lambda: not builds(), what="the end of the build")

    site.write(shop="V = 5\n")
    connection.send(Prepare(release(5, site.take())))
    assert connection.expect(Ready).release == 5
    connection.send(Abort(5, "another worker failed"), Commit(2))
    connection.expect(Committed)
    assert site.live.current is current

"""Ending the requests of a replaced generation, and nobody else's."""

from __future__ import annotations

import gc
import logging
import select
import socket
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from genwsgi.errors import RequestCancelled
from genwsgi.generations import cancelling
from genwsgi.generations.cancelling import Cancellation, raise_in_thread, runs
from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Open
from genwsgi.generations.lifecycle import Event, State
from genwsgi.generations.middleware import Middleware
from genwsgi.generations.switch import Switch
from tests.helpers import wait_until

# An interruption may come in a finalizer, of which Python tells on stderr that it was ignored.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def own(frame):
    """Whether the frame is of the application: of this module."""
    return frame.f_code.co_filename == __file__


class Site:
    """A switch with its middleware, and generations of one application."""

    def __init__(self, application):
        self.retired: list[Generation] = []
        self.switch = Switch(self.retired.append)
        self.middleware = Middleware(self.switch)
        self.application = application
        self.count = 0
        self.deploy()

    def deploy(self):
        """Make a new generation the current one; return it."""
        self.count += 1
        generation = Generation(self.count)
        generation.application = self.application
        generation.advance(Event.BUILT)
        self.switch.swap(generation)
        return generation

    @property
    def current(self):
        """The current generation."""
        current = self.switch.current
        assert current is not None
        return current

    def get(self, path="/"):
        """One request, as a server makes it; its whole body."""
        body = self.middleware(
            {"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda *_: lambda data: None
        )
        try:
            return b"".join(body)
        finally:
            getattr(body, "close", lambda: None)()

    def cancel(self, generation, *means):
        """Cancel the generation's requests until all is done."""
        cancellation = Cancellation(
            self.switch, generation, means or (partial(raise_in_thread, own),)
        )
        wait_until(cancellation.step, what="the end of the cancellation")
        return cancellation.ended, cancellation.left


def run(site, path="/"):
    """Make a request on a thread; return the thread and what became of it."""
    found = SimpleNamespace(error=None, body=None)

    def target():
        try:
            found.body = site.get(path)
        except BaseException as error:  # noqa: BLE001 -- it is what is looked at
            found.error = error

    found.thread = threading.Thread(target=target, daemon=True)
    found.thread.start()
    return found


NEVER = socket.socketpair()


def comes(awaited):
    """Wait a turn for something to be said, or for the end; between turns a thread is interrupted.

    In no code but its own: an event would have it wait inside of ``threading``, with a lock.
    """
    return bool(select.select(awaited[:1], [], [], 0.001)[0])


def spin(environ, start_response):
    """An application that computes for ever, or streams for ever."""
    if environ["PATH_INFO"] == "/stream":
        return endless()
    while not comes(NEVER):
        pass
    return []


def endless():
    """A body without an end."""
    while not comes(NEVER):
        yield b"x"


@pytest.fixture
def brief(monkeypatch):
    """Cancellations that give up soon."""
    monkeypatch.setattr(cancelling, "WITHIN", 0.3)


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_a_request_of_a_cancelled_generation_raises_and_its_generation_retires(path, caplog):
    """The application's code is interrupted, its lease ends, and the generation retires with it."""
    caplog.set_level(logging.WARNING)
    site = Site(spin)
    old = site.current
    request = run(site, path)
    wait_until(lambda: len(old.leases), what="the request")
    site.deploy()
    # As an operator does, should a finalizer have swallowed it.
    wait_until(lambda: site.cancel(old) in [(1, 0), (0, 0)], what="the end of the request")
    request.thread.join(10)
    assert isinstance(request.error, RequestCancelled)
    assert isinstance(request.error, ConnectionResetError)
    assert site.retired == [old]
    assert f"GET {path} of generation 1 is cancelled" in caplog.text


def test_what_catches_everything_is_interrupted_once_and_then_let_alone(brief):
    """Code that goes on whatever is raised in it is counted as left, and keeps its lease."""
    enough, caught = socket.socketpair(), []

    def deaf(environ, start_response):
        while True:
            try:
                while not comes(enough):
                    pass
                break
            except RequestCancelled:
                caught.append(1)
        return [b"done"]

    site = Site(deaf)
    old = site.current
    request = run(site)
    wait_until(lambda: len(old.leases), what="the request")
    site.deploy()
    assert site.cancel(old) == (0, 1)
    wait_until(lambda: caught, what="the interruption")
    assert len(caught) == 1
    assert old.state is State.DRAINING
    enough[1].close()
    request.thread.join(10)
    enough[0].close()
    assert request.body == b"done"
    assert site.retired == [old]


def test_a_lock_of_shared_code_is_not_left_taken():
    """A request that waits for a lock is cancelled when it has given that back, and not before."""
    lock, asked = threading.Lock(), threading.Event()
    shared: dict[str, Any] = {"lock": lock, "asked": asked}
    code = """
def locked():
    asked.set()
    lock.acquire()
    try:
        pass
    finally:
        lock.release()
"""
    exec(compile(code, "shared.py", "exec"), shared)

    def locking(environ, start_response):
        while not comes(NEVER):
            shared["locked"]()

    site = Site(locking)
    old = site.current
    with lock:
        request = run(site)
        assert asked.wait(10)
        site.deploy()
        cancellation = Cancellation(site.switch, old, (partial(raise_in_thread, own),))
        assert not cancellation.step()
    wait_until(cancellation.step, what="the end of the cancellation")
    request.thread.join(10)
    assert isinstance(request.error, RequestCancelled)
    assert lock.acquire(timeout=10)


def test_a_lease_that_nobody_can_end_any_more_is_ended():
    """Where an interruption came just before the end of a lease, the generation still retires."""
    site = Site(spin)
    old = site.current
    old.leases.taken[time.monotonic()] = {}
    site.deploy()
    assert site.cancel(old) == (1, 0)
    assert site.retired == [old]


def test_a_generation_whose_last_lease_ended_unseen_retires():
    """Where one came between the end of the last lease and the look at it, it retires as well."""
    site = Site(spin)
    old = site.current
    lease = site.switch.lease()
    site.deploy()
    cancellation = Cancellation(site.switch, old, ())
    old.leases.end(lease.since)
    assert cancellation.step()
    assert (cancellation.generation, cancellation.ended, cancellation.left) == (1, 1, 0)
    assert site.retired == [old]


def test_whose_code_runs_is_seen_on_the_stack():
    """Only a stack with the middleware's frame for just this lease is the request's."""
    seen: list[tuple[bool, bool]] = []

    def application(environ, start_response):
        (lease,) = old.leases.open()
        frame = sys._getframe()
        seen.append((runs(frame, old, lease), runs(frame, old, other)))
        return [b""]

    site = Site(application)
    old = site.current
    other = Open(old.leases.take(old).since, None)
    old.leases.end(other.since)
    site.get()
    assert seen == [(True, False)]
    assert not runs(sys._getframe(), old, other)


@pytest.mark.parametrize("collects", [True, False])
def test_something_is_done_while_a_lease_is_open_or_not_at_all(collects):
    """The action is called if the lease is open, and whether garbage is collected stays so."""
    generation = Generation(1)
    lease = generation.leases.take(generation).since
    done: list[str] = []
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        generation.leases.while_open(lease, done.append, "once")
        generation.leases.end(lease)
        generation.leases.while_open(lease, done.append, "never")
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()
    assert done == ["once"]


def test_no_python_code_comes_between_the_look_and_what_is_done():
    """The action is called by code in C, which no other thread interrupts, and by nothing else."""
    generation = Generation(1)
    since = generation.leases.take(generation).since
    done: list[str] = []
    act = done.append
    calls: list[object] = []
    sys.setprofile(lambda frame, event, arg: calls.append(arg) if event == "c_call" else None)
    try:
        generation.leases.while_open(since, act, "once")
    finally:
        sys.setprofile(None)
    assert done == ["once"]
    assert calls
    assert act not in calls


def test_no_other_request_is_ever_interrupted(brief):
    """Threads that serve one short request after the other, while old generations are cancelled all
    the time: an interruption only ever comes to a request of a cancelled one.
    """
    cancelled: set[int] = set()
    wrong: list[object] = []
    stop = threading.Event()

    def short(environ, start_response):
        number = environ["genwsgi.generation"]
        try:
            for _ in range(200):
                pass
        except RequestCancelled:
            if number not in cancelled:
                wrong.append(number)
            raise
        return [b""]

    site = Site(short)

    def serve():
        while not stop.is_set():
            before = site.current.number
            try:
                site.get()
            except RequestCancelled:
                if max(cancelled.copy(), default=0) < before:
                    wrong.append(before)

    def guarded():
        # A tracer that is interrupted while it holds its own lock would stop all the others.
        sys.settrace(None)
        try:
            serve()
        except RequestCancelled as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        end = time.monotonic() + 1.5
        while time.monotonic() < end and not wrong:
            old = site.current
            site.deploy()
            cancelled.add(old.number)
            site.cancel(old)
    finally:
        stop.set()
        sys.setswitchinterval(interval)
    for thread in threads:
        thread.join(10)
    assert not wrong
    assert len(site.retired) == site.count - 1

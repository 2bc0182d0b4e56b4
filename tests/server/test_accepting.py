"""Tests of genwsgi.server.accepting."""

from __future__ import annotations

import errno
import inspect
import resource
import socket
from collections.abc import Iterator

import pytest
from gunicorn.sock import BaseSocket
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from genwsgi.server.accepting import SPARE, patient


class Listener(BaseSocket):
    """A listener of gunicorn's, as far as a worker sees it."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)


class Worker:
    """A worker that accepts one connection when it runs."""

    def __init__(self, *sockets: object) -> None:
        self.sockets = sockets
        self.accepted = 0

    def run(self) -> None:
        self.sockets[0].accept()[0].close()  # type: ignore[attr-defined]
        self.accepted += 1


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener at which one connection waits."""
    made = Listener()
    with socket.create_connection(made.sock.getsockname()), made.sock:
        yield made


def test_without_spare_descriptors_a_connection_waits(listener: Listener) -> None:
    """Before the last descriptors are taken a worker hears what it hears when nobody connects."""
    worker = patient(Worker)(listener)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (listener.fileno() + SPARE // 2, before[1]))
    try:
        with pytest.raises(BlockingIOError):
            worker.run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_descriptors_that_somebody_else_took(listener: Listener) -> None:
    """Between two looks the last descriptor may go: that is a wait as well, and no end."""
    worker = patient(Worker)(listener)
    with socket.create_connection(listener.getsockname()):
        worker.run()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            with pytest.raises(BlockingIOError):
                listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        listener.accept()[0].close()


def test_a_listener_that_is_closed_just_then_ends_the_worker_in_good_order(
    listener: Listener,
) -> None:
    """SIGTERM may come between the look whether to go on and the next connection."""
    patient(Worker)(listener).run()
    accept = listener.accept
    listener.close()
    with pytest.raises(SystemExit) as end:
        accept()
    assert end.value.code == 0


def test_a_connection_is_taken_as_ever(listener: Listener) -> None:
    """With descriptors left nothing is different, nor is the name of the class."""
    kind = patient(Worker)
    worker = kind(listener)
    worker.run()
    assert (worker.accepted, kind.__name__) == (1, "Worker")


def test_other_errors_come_through(listener: Listener) -> None:
    """What is wrong with the listener itself is the worker's to know."""
    worker = patient(Worker)(listener)
    with socket.socket() as listener.sock, pytest.raises(OSError, match="Invalid argument"):
        worker.run()


def test_listeners_of_other_kinds_are_let_alone() -> None:
    """Gevent's own sockets, which have slots, are not touched: gevent waits by itself."""
    worker = patient(Worker)(object())
    with pytest.raises(AttributeError, match="accept"):
        worker.run()


@pytest.mark.parametrize("kind", [ThreadWorker, SyncWorker])
def test_gunicorn_bears_that_there_is_nothing_to_accept(kind: type) -> None:
    """Gunicorn's workers accept by their listener, and go on where it says EAGAIN."""
    source = inspect.getsource(kind)
    assert "listener.accept()" in source
    assert "errno.EAGAIN" in source
    assert errno.EAGAIN == errno.EWOULDBLOCK


def test_gunicorn_tells_when_a_worker_ends_to_accept() -> None:
    """Gthread stops to look for connections in one place; sync has only the signal for it."""
    assert "self.set_accept_enabled(False)" in inspect.getsource(ThreadWorker.run)
    assert "alive" in inspect.getsource(SyncWorker.handle_exit)

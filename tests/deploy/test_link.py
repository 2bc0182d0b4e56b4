"""A worker's connection, to a socket that a coordinator's stands for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from genwsgi.deploy import framing
from genwsgi.deploy.link import Link
from genwsgi.deploy.protocol import Commit, Leaving
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import ProtocolError
from tests.deploy.real import DEADLINE, directory, short

__all__ = ["directory", "short"]

#: A process under gevent that forks.  The parent sends; nothing that the child sends goes.
GREENLETS = """\
from gevent import monkey
monkey.patch_all()
import os, sys, threading
from genwsgi.deploy.link import Link
from genwsgi.deploy.protocol import Leaving
from genwsgi.deploy.rundir import RunDirectory

link = Link(RunDirectory(sys.argv[1]), lambda: None)
assert link.connect()
over = threading.Event()
def wait():
    link.receive(1.0)
    link.awake()
    over.set()
    threading.Event().wait()
threading.Thread(target=wait, daemon=True).start()
assert not over.wait(0.01)
child = os.fork()
assert over.wait(10.0)
if child == 0:
    os._exit(link.send(Leaving()))
assert os.waitpid(child, 0)[1] == 0
os._exit(not link.send(Leaving()))
"""


@pytest.fixture
def listener(directory: RunDirectory) -> Iterator[socket.socket]:
    """Where the coordinator listens."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(directory.socket)
        made.listen()
        made.settimeout(DEADLINE)
        yield made


@pytest.fixture
def link(directory: RunDirectory) -> Iterator[Link]:
    """A link that is down."""
    made = Link(directory, lambda: None)
    yield made
    made.close()


def accepted(listener: socket.socket) -> socket.socket:
    """The coordinator's end of the next connection."""
    end, _ = listener.accept()
    end.settimeout(DEADLINE)
    return end


def test_nothing_goes_while_no_coordinator_is_there(link: Link) -> None:
    """Without a coordinator there is no connection, nothing is sent, and nothing comes."""
    assert not link.connect()
    assert not link.up
    assert not link.send(Leaving())
    assert link.receive(DEADLINE) is None


def test_messages_go_both_ways(link: Link, listener: socket.socket) -> None:
    """What is sent arrives; what comes is received, all that has come at once."""
    assert link.connect()
    assert link.up
    with accepted(listener) as coordinator:
        assert link.send(Leaving())
        assert framing.Decoder().feed(coordinator.recv(65536)) == [Leaving()]
        coordinator.sendall(framing.encode(Commit(2)) + framing.encode(Commit(3)))
        assert link.receive(DEADLINE) == [Commit(2), Commit(3)]


def test_the_end_of_the_coordinator_is_received(link: Link, listener: socket.socket) -> None:
    """A coordinator that is gone is told of, and what is sent after that goes nowhere."""
    link.connect()
    accepted(listener).close()
    assert link.receive(DEADLINE) is None
    link.disconnect()
    assert not link.up
    assert not link.send(Leaving())


def test_what_is_no_message_raises(link: Link, listener: socket.socket) -> None:
    """Bytes that are no message are an error, and not the end of the connection."""
    link.connect()
    with accepted(listener) as coordinator:
        coordinator.sendall(b"\xff" * 8)
        with pytest.raises(ProtocolError):
            link.receive(DEADLINE)


@pytest.mark.parametrize("up", [True, False])
def test_any_thread_ends_the_wait(link: Link, listener: socket.socket, up: bool) -> None:
    """Whoever wakes the agent's thread ends its wait, with a connection and without."""
    if up:
        link.connect()
    other = threading.Thread(target=link.wake)
    began = time.monotonic()
    other.start()
    if up:
        assert link.receive(DEADLINE) == []
    else:
        link.wait(DEADLINE)
    other.join(DEADLINE)
    assert time.monotonic() - began < DEADLINE
    link.awake()
    assert link.receive(0.0) == ([] if up else None)


def test_a_forked_process_does_not_hold_the_connection(link: Link, listener: socket.socket) -> None:
    """The connection ends with the process that made it, though one that it has forked lives on.

    There nothing can be sent, and to wake and be woken is no error.
    """
    link.connect()
    hold, let_go = os.pipe()
    with accepted(listener) as coordinator:
        child = os.fork()
        if child == 0:
            os.close(let_go)
            os.read(hold, 1)
            link.wake()
            link.awake()
            os._exit(link.send(Leaving()))
        os.close(hold)
        try:
            assert link.send(Leaving())
            assert framing.Decoder().feed(coordinator.recv(65536)) == [Leaving()]
            link.disconnect()
            assert coordinator.recv(1) == b""
        finally:
            os.close(let_go)
            assert os.waitpid(child, 0)[1] == 0


def test_a_greenlet_in_a_forked_process_says_nothing(
    directory: RunDirectory, listener: socket.socket
) -> None:
    """Under gevent who waits for messages does so in a child as well, but has no connection."""
    command = [sys.executable, "-c", GREENLETS, directory.path]
    with subprocess.Popen(command) as process, accepted(listener) as coordinator:
        assert process.wait(2 * DEADLINE) == 0
        assert framing.Decoder().feed(coordinator.recv(65536)) == [Leaving()]

"""Real run directories and sockets, and one end of the protocol at a time played by hand."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from genwsgi.deploy import framing, protocol
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import ProtocolError
from tests.helpers import wait_until

#: How long anything may take, in seconds.
DEADLINE = 30.0

#: What may come between other messages.
ANY_TIME = (protocol.Generations, protocol.Problems, protocol.Building, protocol.Tell)

LOG = logging.getLogger("genwsgi.tests.deploy")


def release(number: int, digest: str = "") -> protocol.Release:
    """Release ``number``, of code that is called as it is."""
    return protocol.Release(number, digest or f"code{number}", "ctl", "by hand", 1000.5)


def let_go(path: str) -> None:
    """Let go of the lock of the run directory ``path``, as the end of the process would."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}") == os.path.join(path, "lock"):
                os.close(int(entry))
        except OSError:
            continue  # listdir's own, which is closed


@pytest.fixture
def short() -> Iterator[str]:
    """A folder whose path is short enough for a socket; locks in it are let go at the end."""
    path = os.path.realpath(tempfile.mkdtemp(prefix="gw"))
    yield path
    for folder, _folders, files in os.walk(path):
        if "lock" in files:
            let_go(folder)
    shutil.rmtree(path)


@pytest.fixture
def directory(short: str) -> RunDirectory:
    """A run directory in which release 1 is committed."""
    made = RunDirectory.create(os.path.join(short, "run"))
    made.record(release(1))
    return made


def _connected(path: str) -> socket.socket | None:
    """A connection to ``path``, or ``None`` while nobody listens there."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.connect(path)
    except OSError:
        end.close()
        return None
    return end


class Connection:
    """One end of a connection that speaks the protocol, by hand and with a deadline."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._decoder = framing.Decoder()
        self._pending: list[Any] = []
        end.settimeout(DEADLINE)

    @classmethod
    def to(cls, directory: RunDirectory) -> Connection:
        """Connect as soon as somebody listens."""
        end = wait_until(lambda: _connected(directory.socket), DEADLINE, "somebody to listen")
        assert end is not None
        return cls(end)

    def send(self, *messages: framing.Message) -> None:
        """Send all ``messages`` at once."""
        self.send_bytes(b"".join(framing.encode(message) for message in messages))

    def send_bytes(self, data: bytes) -> None:
        """Send what need not be a message; the other end may have closed, which receive() tells."""
        with contextlib.suppress(BrokenPipeError):
            self._socket.sendall(data)

    def receive(self) -> Any:
        """Return the next message, or ``None`` when the other end has closed."""
        while not self._pending:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._pending += self._decoder.feed(data)
        return self._pending.pop(0)

    def read(self, size: int) -> int:
        """Take up to ``size`` bytes off the socket and forget them; return how many there were."""
        return len(self._socket.recv(size, socket.MSG_WAITALL))

    def expect(self, *kinds: type) -> Any:
        """Receive one message of each of ``kinds``, in their order; return the last.

        How generations and builds stand, and what is wrong, is told and asked for at any time, and
        passed over where it is not expected.
        """
        for kind in kinds:
            message = self.receive()
            while type(message) in ANY_TIME and type(message) is not kind:
                message = self.receive()
            assert type(message) is kind, f"{kind.__name__} expected, not {message}"
        return message

    def quiet(self) -> bool:
        """Whether nothing has come that was not received yet, but for what comes at any time."""
        self._socket.setblocking(False)
        try:
            self._pending += self._decoder.feed(self._socket.recv(65536))
        except BlockingIOError:
            pass
        except ProtocolError:
            return False
        finally:
            self._socket.settimeout(DEADLINE)
        return all(isinstance(message, ANY_TIME) for message in self._pending)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@contextmanager
def in_thread(function: Any, *arguments: Any) -> Iterator[threading.Thread]:
    """Run ``function`` on a thread that has ended when the block has."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "it did not end"

"""A worker's connection to the coordinator, and what wakes the thread that waits on it.

Belongs to the agent's thread; any thread may :meth:`Link.wake` it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
import weakref
from collections.abc import Callable

from genwsgi.deploy import framing, protocol
from genwsgi.deploy.rundir import RunDirectory

#: How long the coordinator may take to accept a connection, or to take a message, in seconds.
PATIENCE = 5.0

_links: weakref.WeakSet[Link] = weakref.WeakSet()


class Link:
    """The connection, while there is one.

    :param directory: the run directory, where the coordinator listens.
    :param forked: called in a process that this one has forked.
    """

    def __init__(self, directory: RunDirectory, forked: Callable[[], object]) -> None:
        self._directory = directory
        self._forked = forked
        self._socket: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._decoder = framing.Decoder()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        _links.add(self)

    def __repr__(self) -> str:
        return f"<Link, {'up' if self.up else 'down'}>"

    @property
    def up(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._socket is not None

    def connect(self) -> bool:
        """Connect; say whether a coordinator was there."""
        if not self._directory.is_ours():
            return False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(self._directory.socket)
        except OSError:
            connection.close()
            return False
        self._socket, self._decoder = connection, framing.Decoder()
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        return True

    def disconnect(self) -> None:
        """Hang up, if that was not done before."""
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, message: protocol.FromWorker) -> bool:
        """Send ``message``; say whether it went.  It doesn't while the coordinator is away."""
        if self._socket is None:
            return False
        try:
            self._socket.sendall(framing.encode(message))
        except OSError:
            self.disconnect()
            return False
        return True

    def receive(self, timeout: float) -> list[framing.Message] | None:
        """Wait until something comes, somebody calls :meth:`wake` or ``timeout`` seconds are over.

        :return: what has come; ``None``: the coordinator is gone.
        :raises ProtocolError: what has come is no message.
        """
        connection = self._socket
        if connection is None or self._selector is None:
            return None
        if connection not in [key.fileobj for key, _ in self._selector.select(timeout)]:
            return []
        try:
            data = connection.recv(65536)
        except OSError:
            return None
        return self._decoder.feed(data) if data else None

    def wait(self, timeout: float) -> None:
        """Let ``timeout`` seconds pass while there is no connection, or less if somebody wakes."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_in, selectors.EVENT_READ)
                selector.select(timeout)
        except OSError:
            time.sleep(timeout)  # there was no descriptor for the selector

    def wake(self) -> None:
        """End the waiting of the agent's thread.  Any thread."""
        with contextlib.suppress(OSError):  # full: then it is awake anyway
            self._wake_out.send(b"!")

    def awake(self) -> None:
        """Take note that somebody has woken this thread."""
        with contextlib.suppress(OSError):  # nobody has; or this is a forked process
            self._wake_in.recv(4096)

    def close(self) -> None:
        """Hang up, and be woken no more."""
        self.disconnect()
        for end in (self._wake_in, self._wake_out):
            end.close()

    def forsake(self) -> None:
        """In a forked process: leave the connection to the parent.

        Under gevent the agent's thread lives on in there and may wait for these very descriptors:
        they are not closed, and lead nowhere.
        """
        self._forked()
        ends = [self._wake_in, self._wake_out]
        if self._socket is not None:
            ends.append(self._socket)
        nothing, end = os.pipe()
        os.close(end)
        for one in ends:
            if one.fileno() >= 0:
                os.dup2(nothing, one.fileno(), inheritable=False)
        os.close(nothing)


def _after_fork() -> None:
    for link in list(_links):
        link.forsake()


os.register_at_fork(after_in_child=_after_fork)

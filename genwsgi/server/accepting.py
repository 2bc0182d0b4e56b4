"""When workers accept connections: not with the last file descriptors, and not once they end.

gunicorn's gthread and sync workers end when a connection can't be accepted, and with them all the
connections that they have; and if one took the last descriptor, the requests under way would lack
it.  While they serve out what they owe they keep their listening sockets, so that the system goes
on to accept connections that nobody will serve.  gevent's server does neither.
"""

from __future__ import annotations

import errno
import socket
import time
from types import FrameType
from typing import Any

from gunicorn.sock import BaseSocket
from gunicorn.workers.sync import SyncWorker

from genwsgi.deploy.descriptors import spare
from genwsgi.deploy.problems import NO_DESCRIPTORS

#: How many descriptors are left to the requests under way before a connection is accepted.
SPARE = 8

#: Where there are as many beside these, as many connections are accepted without a further look,
#: which takes some microseconds.
BURST = 8

#: How long a worker waits before it looks again at connections that it can't accept, in seconds.
#: Short: the thread that waits also finds requests on the connections that there are.
PAUSE = 0.01


def patient(worker_class: type) -> type:
    """Return ``worker_class``, but one that accepts connections as it is said above."""

    class Patient(worker_class):
        accepts: tuple[_Accept, ...] = ()

        def run(self) -> None:
            for listener in self.sockets:
                if isinstance(listener, BaseSocket):
                    listener.accept = _Accept(listener.sock)
                    self.accepts += (listener.accept,)
            super().run()

        def set_accept_enabled(self, enabled: bool) -> None:
            # gthread's alone: how its loop begins and ends to look for connections.
            super().set_accept_enabled(enabled)
            if not self.alive:
                _close(self.sockets)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            # Others may still wait for their listeners with the system, which would be told.  And
            # before it has begun to accept it looks whether it is to, but not what is closed.
            if issubclass(worker_class, SyncWorker) and any(one.begun for one in self.accepts):
                _close(self.sockets)

    Patient.__name__ = Patient.__qualname__ = worker_class.__name__
    return Patient


def _close(listeners: list[BaseSocket]) -> None:
    """Close this process's listening sockets; others that have them go on to listen."""
    for listener in listeners:
        listener.close()


class _Accept:
    """``accept`` of one listening socket.  One thread at a time.

    :ivar begun: whether it was ever called.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.begun = False
        self._listener = listener
        # How many more to accept before the descriptors are looked at again.
        self._credit = 0

    def __call__(self) -> tuple[socket.socket, Any]:
        self.begun = True
        if not self._credit:
            left = spare(SPARE + BURST) - SPARE
            self._credit = BURST if left == BURST else int(left >= 0)
        if self._credit:
            self._credit -= 1
            try:
                return self._listener.accept()
            except OSError as error:
                if self._listener.fileno() < 0:
                    raise SystemExit(0) from None  # the worker was told to end just now
                if error.errno not in NO_DESCRIPTORS:
                    raise
                self._credit = 0  # somebody else has taken them meanwhile
        time.sleep(PAUSE)
        # As if somebody else had taken it, which workers are used to.
        raise BlockingIOError(errno.EAGAIN, "no file descriptors left")

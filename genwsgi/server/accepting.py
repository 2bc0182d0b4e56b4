"""Workers that outlive a shortage of file descriptors.

gunicorn's gthread and sync workers end when a connection can't be accepted, and with them all the
connections that they have; and if one took the last descriptor, the requests under way would lack
it.  gevent's server waits and tries again by itself.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from gunicorn.sock import BaseSocket

from genwsgi.deploy.descriptors import has_spare

#: How many descriptors are left to the requests under way before a connection is accepted.  To find
#: that out takes some microseconds for each connection.
SPARE = 8

#: How long a worker waits before it looks again at connections that it can't accept, in seconds.
#: Short: the thread that waits also finds requests on the connections that there are.
PAUSE = 0.01


def patient(worker_class: type) -> type:
    """Return ``worker_class``, but one that leaves a connection waiting that it can't accept."""

    class Patient(worker_class):
        def run(self) -> None:
            for listener in self.sockets:
                if isinstance(listener, BaseSocket):
                    listener.accept = _Accept(listener.sock)
            super().run()

    Patient.__name__ = Patient.__qualname__ = worker_class.__name__
    return Patient


class _Accept:
    """``accept`` of one listening socket."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def __call__(self) -> tuple[socket.socket, Any]:
        if has_spare(SPARE):
            return self._listener.accept()
        time.sleep(PAUSE)
        # As if somebody else had taken it, which workers are used to.
        raise BlockingIOError(errno.EAGAIN, "no file descriptors left")

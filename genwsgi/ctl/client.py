"""The connection to a server's coordinator, which may die and come back while somebody waits."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from genwsgi.ctl.find import Server, at
from genwsgi.deploy import framing
from genwsgi.deploy.control import FromClient
from genwsgi.deploy.rundir import peer_uid
from genwsgi.errors import ProtocolError, ServerUnreachable

#: Between two attempts to reach a coordinator that is away, in seconds.
RETRY: Final = 0.1

T = TypeVar("T")


class Client:
    """Speaks with one server.  One thread.

    :param timeout: how long an answer may take, in seconds.
    :param away: told once, in a line, each time the coordinator is away.
    :ivar sent: whether anything has been sent so far.
    """

    def __init__(
        self, server: Server, timeout: float, away: Callable[[str], None] = lambda _text: None
    ) -> None:
        self._server = server
        self._timeout = timeout
        self._deadline = 0.0
        self._away = away
        self.sent = False

    def ask(self, request: FromClient, answer: type[T]) -> T:
        """Return the answer to a request.

        :raises ServerUnreachable: none came in time.
        :raises ServerNotFound: the server has ended.
        """
        for message in self.converse(request):
            if isinstance(message, answer):
                return message
        raise AssertionError("a conversation ends by being left")

    def converse(self, *requests: FromClient) -> Iterator[framing.Message]:
        """Send requests, and yield whatever comes for them.

        Where the connection breaks they are sent again on the next one: what must not be done twice
        has an id, by which the coordinator knows it.

        :raises ServerUnreachable: the time is over.
        :raises ServerNotFound: the server has ended.
        """
        self._deadline = time.monotonic() + self._timeout
        problem = ""
        while True:
            try:
                with self._connected() as connection:
                    connection.sendall(b"".join(map(framing.encode, requests)))
                    self.sent = True
                    for message in self._messages(connection):
                        problem = ""
                        yield message
            except TimeoutError as error:
                raise self._unreachable(problem) from error
            except ProtocolError as error:
                raise ServerUnreachable(
                    f"the coordinator of {self._server.run_dir} can't be understood: {error}; use "
                    "the genwsgictl of the server's own version"
                ) from error
            except OSError as error:
                if not problem:
                    problem = str(error.strerror or error)
                    self._away(f"the coordinator is away ({problem}); trying again")
            # A server that has ended is no server that is slow to answer.
            at(self._server.run_dir)
            if time.monotonic() + RETRY > self._deadline:
                raise self._unreachable(problem)
            time.sleep(RETRY)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        directory = self._server.directory
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._left())
            connection.connect(directory.socket)
            if peer_uid(connection) not in {0, os.lstat(directory.path).st_uid}:
                raise ServerUnreachable(f"{directory.socket}: somebody else listens there")
            yield connection

    def _messages(self, connection: socket.socket) -> Iterator[framing.Message]:
        decoder = framing.Decoder()
        while True:
            connection.settimeout(self._left())
            data = connection.recv(65536)
            if not data:
                raise ConnectionResetError("the connection was closed")
            yield from decoder.feed(data)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _unreachable(self, problem: str) -> ServerUnreachable:
        why = f": {problem}" if problem else ""
        return ServerUnreachable(
            f"no answer from the coordinator of {self._server.run_dir} within "
            f"{self._timeout:g} s{why}; the workers serve on without it"
        )

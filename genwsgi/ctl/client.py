"""The connection to a server's coordinator, which may die and come back while somebody waits."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from genwsgi.ctl.find import Server, at
from genwsgi.deploy import framing
from genwsgi.deploy.control import FromClient
from genwsgi.deploy.rundir import peer_uid
from genwsgi.errors import ProtocolError, ServerNotFound, ServerUnreachable

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

    def ask(
        self,
        answer: type[T],
        *requests: FromClient,
        meanwhile: Callable[[framing.Message], None] = lambda _message: None,
    ) -> T:
        """Send requests, and return the first message that is an ``answer``.

        Where the connection breaks they are sent again on the next one: what must not be done twice
        has an id, by which the coordinator knows it.

        :param meanwhile: told of the messages that come before.
        :raises ServerUnreachable: none came in time.
        :raises ServerNotFound: the server has ended.
        """
        messages = self._converse(requests)
        while not isinstance(message := next(messages), answer):
            meanwhile(message)
        return message

    def _converse(self, requests: Sequence[FromClient]) -> Iterator[framing.Message]:
        """Send requests, and yield whatever comes, until the caller has enough."""
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
            self._check()
            if time.monotonic() + RETRY > self._deadline:
                raise self._unreachable(problem)
            time.sleep(RETRY)

    def _check(self) -> None:
        """Raise if the server has ended, which is another matter than being slow to answer."""
        try:
            at(self._server.run_dir)
        except ServerNotFound:
            # A run directory that was deleted under a server is there again in a moment.
            if not os.path.exists(f"/proc/{self._server.pid}"):
                raise

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
            f"{self._timeout:g} s{why}; the workers serve on without it",
            connected=not problem,
        )

"""A coordinator that is played: a real socket in a real run directory, and answers by hand."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

from genwsgi.deploy import framing
from genwsgi.deploy.rundir import RunDirectory

#: What a coordinator does with one request: the answers, or ``None`` for hanging up.
Answer = Callable[[framing.Message], "Sequence[framing.Message] | None"]


class Coordinator:
    """Answers every request as the test wants it.

    :ivar asked: what was asked so far.
    :ivar garble: answer what nobody understands.
    """

    def __init__(self, directory: RunDirectory, answer: Answer) -> None:
        self.asked: list[framing.Message] = []
        self.garble = False
        self._answer = answer
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(directory.socket)
        self._listener.listen()
        self._path = directory.socket
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = framing.Decoder()
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                for request in decoder.feed(data):
                    self.asked.append(request)
                    answers = self._answer(request)
                    if answers is None:
                        return
                    for message in answers:
                        frame = framing.encode(message)
                        connection.sendall(
                            frame.replace(b'"kind"', b'"sort"') if self.garble else frame
                        )

    def close(self) -> None:
        """Die: the socket's file stays, as that of one that was killed."""
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def coordinator(directory: RunDirectory, answer: Answer) -> Iterator[Coordinator]:
    """Play a coordinator for the length of the block, in the place of one that has died."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directory.socket)
    played = Coordinator(directory, answer)
    try:
        yield played
    finally:
        played.close()

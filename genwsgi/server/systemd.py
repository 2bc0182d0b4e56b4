"""What systemd is told, as sd_notify(3) has it.

The master tells it, because systemd listens to a service's main process only, unless its unit says
otherwise; what the coordinator does, the master reads from a pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, MutableMapping

from genwsgi.deploy.standing import Word, decode

#: The variables by which systemd says where it listens and how often it wants to hear.
_SOCKET, _WATCHDOG, _WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"

#: How long systemd may take to take a message, in seconds: the master has workers to look after.
PATIENCE = 1.0


def take(environ: MutableMapping[str, str]) -> Announcer | None:
    """Return what tells systemd, or ``None`` where nobody wants to hear.

    The variables are taken out of ``environ``: gunicorn would say that the server is ready when it
    only listens, and what the application starts has nothing to say for it.
    """
    address = environ.pop(_SOCKET, "")
    microseconds, pid = environ.pop(_WATCHDOG, ""), environ.pop(_WATCHDOG_PID, "")
    if not address.startswith(("/", "@")):
        return None
    interval = None
    if microseconds.isdigit() and pid in ("", str(os.getpid())):
        interval = int(microseconds) / 1e6
    return Announcer(Channel(address).send, interval)


class Channel:
    """Where systemd listens.

    :param address: a path, or a name in the abstract namespace with ``@`` before it.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def send(self, *assignments: str) -> None:
        """Send them in one datagram; it is lost if nobody takes it within :data:`PATIENCE`."""
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
        ):
            channel.settimeout(PATIENCE)
            channel.sendto("\n".join(assignments).encode(), self._address)


class Announcer:
    """Decides what systemd is told.  The master's main thread only.

    Ready is the server when all workers that it is to have serve, and from then on: a worker that
    is replaced makes it no less so.  Each deploy is a reload, whoever ordered it.

    :param send: takes the assignments of one message.
    :param watchdog: how often systemd wants to hear that the master lives, in seconds.
    """

    def __init__(self, send: Callable[..., None], watchdog: float | None = None) -> None:
        self._send = send
        self._watchdog = watchdog
        self._alive_at = 0.0
        self._ready = False
        self._word = Word("", "")

    def begin(self) -> None:
        """The server begins: it looks for what belongs in the scope, which takes a few builds."""
        self._send("STATUS=building the application, to find what belongs in its scope")

    def look(self, serving: int, wanted: int) -> None:
        """``serving`` workers serve now, and ``wanted`` are to."""
        if not self._ready:
            status = self._word.text or f"{serving} of {wanted} workers serve"
            if serving >= wanted:
                self._ready = True
                self._send("READY=1", f"STATUS={status}")
        now = time.monotonic()
        # systemd advises to speak twice as often as it wants to hear.
        if self._watchdog is not None and now >= self._alive_at:
            self._alive_at = now + self._watchdog / 2
            self._send("WATCHDOG=1")

    def hear(self, word: Word) -> None:
        """The coordinator has said how it stands."""
        before, self._word = self._word, word
        status = f"STATUS={word.text}"
        if not self._ready or word.order == before.order:
            self._send(status)
        elif word.order:
            # One that follows another without a pause is a reload of its own: somebody may wait
            # for just that one to begin.
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", status)
        else:
            self._send("READY=1", status)

    def stop(self) -> None:
        """The server ends."""
        self._send("STOPPING=1", "STATUS=serving out what is under way")


class Ear:
    """A pipe by which the coordinator tells the master how it stands."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self._left = b""
        self._open = True

    def fileno(self) -> int:
        """Its end for the coordinator."""
        return self._writer

    def wake(self, wake: Callable[[], object]) -> None:
        """Have ``wake`` called, in a signal handler of this process, when something was said."""
        signal.signal(signal.SIGIO, lambda *_: wake())
        fcntl.fcntl(self._reader, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self._reader, fcntl.F_GETFL)
        fcntl.fcntl(self._reader, fcntl.F_SETFL, flags | os.O_ASYNC)

    def words(self) -> list[Word]:
        """What was said since the last call."""
        try:
            self._left += os.read(self._reader, 65536)
        except BlockingIOError:
            return []
        *lines, self._left = self._left.split(b"\n")
        return [word for word in map(decode, lines) if word is not None]

    def close(self) -> None:
        """Let go of both ends, in the master or in a forked worker."""
        if self._open:
            self._open = False
            os.close(self._reader)
            os.close(self._writer)


def mouth(descriptor: int) -> Callable[[Word], object]:
    """Return what writes words into the pipe of an :class:`Ear`, in the coordinator's process."""
    os.set_blocking(descriptor, False)

    def say(word: Word) -> None:
        with contextlib.suppress(OSError):  # the master doesn't read: it has other worries
            os.write(descriptor, word.encode())

    return say

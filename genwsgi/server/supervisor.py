"""The coordinator's process, as the master looks after it.  The master has no threads."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Protocol

from genwsgi.deploy.problems import explained
from genwsgi.deploy.server import HANG_UP

#: Between two starts of a coordinator that keeps dying, in seconds: at first, and at most.
RESTART = (0.0, 5.0)

#: How long a coordinator may take to end, in seconds.
END = 3.0

#: The interpreter starts isolated, and the server's path comes after its own, so that no module of
#: the application (a ``queue.py`` beside it) is taken for one of the standard library.  It may be
#: root still: so it loads itself before it looks where the application is, or what gunicorn uses if
#: it finds it (setproctitle) could be somebody's there.
_BOOT = (
    "import json, sys; settings = json.load(sys.stdin); before = sys.path[:];"
    "sys.path += settings['boot_path']; from genwsgi.server.coordinator import main;"
    "sys.path[:] = before + settings['sys_path']; main(settings)"
)


class Handed(Protocol):
    """What the coordinator's process inherits."""

    def fileno(self) -> int:
        """The descriptor that is inherited."""

    def close(self) -> None:
        """Let go of it in this process; more than once does no harm."""


class CoordinatorProcess:
    """Starts the coordinator as a fresh interpreter, starts it again if it dies, and ends it.

    The pipe outlives a coordinator that dies: what the master wrote and nobody read is read by the
    next one.  It ends when the master does, and the coordinator with it.

    :param settings: what the coordinator reads from its standard input.  The master keeps it: a
        file could be changed by the user the workers run as, and the coordinator starts as root.
    :param label: stands last on its command line, for whoever looks at the list of processes.
    :param folder: where it runs.  The master's own may be a release that has been deleted since.
    :param handed: what each coordinator inherits besides.
    """

    def __init__(
        self,
        settings: bytes,
        folder: str,
        log: logging.Logger,
        label: str = "",
        handed: Iterable[Handed] = (),
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._label = label
        self._log = log
        self._handed = tuple(handed)
        self._process: subprocess.Popen[bytes] | None = None
        self._read, self._write = os.pipe()
        # The master must not wait for a coordinator that doesn't read.
        os.set_blocking(self._write, False)
        self._started = 0.0
        self._pause = RESTART[0]
        self._starved = False

    def ensure(self) -> None:
        """Start a coordinator unless one runs.  To be called by the master every second or so."""
        now = time.monotonic()
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._log.error("the coordinator (pid %d) has died", self._process.pid)
            self._process = None
            first, most = RESTART
            lived = now - self._started
            self._pause = first if lived > most else min(2 * self._pause + 0.2, most)
        if now < self._started + self._pause:
            return
        self._started = now
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(self._read), self._label],
                stdin=subprocess.PIPE,
                cwd=self._folder,
                pass_fds=[self._read, *(one.fileno() for one in self._handed)],
                # A Ctrl-C at the terminal is for the master; the coordinator ends with the pipe.
                start_new_session=True,
            )
        except OSError as error:
            # No memory, no processes left: serving goes on without deploys.
            self._pause = RESTART[1]
            if not self._starved:
                self._log.error(
                    "no coordinator can be started: %s; until one can, nothing is deployed",
                    explained(error),
                )
            self._starved = True
            return
        self._starved = False
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(self._settings)
        self._log.info("the coordinator runs (pid %d)", self._process.pid)

    @property
    def pid(self) -> int | None:
        """The coordinator's process, or ``None`` while there is none."""
        return self._process.pid if self._process is not None else None

    def hang_up(self) -> None:
        """Order a deploy: the master got a SIGHUP."""
        self.tell(HANG_UP)

    def tell(self, what: bytes) -> None:
        """Tell the coordinator one of the things that the master has to say, each a byte."""
        with contextlib.suppress(BlockingIOError):  # thousands of them are waiting: one will do
            os.write(self._write, what)

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End the coordinator; kill it if it doesn't."""
        os.close(self._write)
        if self._process is not None:
            try:
                self._process.wait(END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(END)
        os.close(self._read)
        for one in self._handed:
            one.close()

    def forget(self) -> None:
        """In a forked worker: let go of what would outlive the master in it."""
        os.close(self._write)
        os.close(self._read)
        for one in self._handed:
            one.close()

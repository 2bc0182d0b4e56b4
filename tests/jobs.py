"""Commands run several at a time, each with its output in one piece."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent

#: Seconds after which a command is ended as one that hangs, unless it has a deadline of its own;
#: each test has a shorter limit.
DEADLINE = 1800.0

#: Seconds that an interrupted command has to end what it has started.
GRACE = 30.0


@dataclass(frozen=True)
class Job:
    """One command, run in the project's folder.

    :ivar name: what it is called in the output.
    :ivar env: what its environment has besides.
    :ivar deadline: after how many seconds it is ended as one that hangs.
    """

    name: str
    command: tuple[str | Path, ...]
    env: dict[str, str] = field(default_factory=dict)
    deadline: float = field(default_factory=lambda: DEADLINE)


@dataclass(frozen=True)
class Done:
    """A job that has ended.

    :ivar status: of its exit; negative: the signal that ended it.
    :ivar output: what it printed, its errors included.
    """

    job: Job
    status: int
    seconds: float
    output: str

    @property
    def good(self) -> bool:
        """Whether it did all that it had to."""
        return self.status == 0

    def __str__(self) -> str:
        outcome = "passed" if self.good else "FAILED"
        return f"{self.output}-- {self.job.name}: {outcome}, {self.seconds:.1f} s"


class _Running:
    """A job's process; it leads a session, so that a terminal's Ctrl-C reaches it only once.

    :param output: an empty file for what it prints.
    """

    def __init__(self, job: Job, output: IO[str]) -> None:
        self._job = job
        self._output = output
        self._begun = time.monotonic()
        self._process = subprocess.Popen(
            job.command,
            cwd=ROOT,
            env={**os.environ, **job.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pidfd = os.pidfd_open(self._process.pid)

    def remaining(self) -> float:
        """The seconds that it still has."""
        return max(0.0, self._begun + self._job.deadline - time.monotonic())

    def done(self) -> Done:
        """Return its end, which has come."""
        status = self._process.wait(GRACE)
        os.close(self.pidfd)
        with self._output:
            self._output.seek(0)
            output = self._output.read()
        return Done(self._job, status, time.monotonic() - self._begun, output)

    def end(self) -> Done:
        """Interrupt it, for it then ends what it has started; kill all of that if it does not."""
        self._process.send_signal(signal.SIGINT)
        if not wait([self.pidfd], GRACE):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self.done()


def run_all(jobs: Iterable[Job], at_once: int) -> Generator[Done, None, None]:
    """Run ``jobs``, begun in their order, and yield each when it has ended.

    Closing the generator, as an interrupt does, ends those that run.

    :param at_once: how many run at a time.
    """
    waiting = deque(jobs)
    running: dict[int, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 it closes it
                one = _Running(waiting.popleft(), output)
                running[one.pidfd] = one
            for pidfd in wait(running, min(one.remaining() for one in running.values())):
                assert isinstance(pidfd, int)
                yield running.pop(pidfd).done()
            for pidfd in [pidfd for pidfd, one in running.items() if not one.remaining()]:
                yield running.pop(pidfd).end()
    finally:
        for one in running.values():
            one.end()

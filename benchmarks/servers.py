"""Any of the servers that are compared, started, told of new code and stopped in the same way."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from benchmarks.subjects import Subject
from tests.helpers import wait_until
from tests.process import harness

#: Threads of each worker, and how long an idle connection is kept, in seconds: alike for all.
THREADS, KEEP = 4, 600

#: How many connections a worker may have; more than any case opens.
CONNECTIONS = 6000

#: How long a start, and a deploy, may take, in seconds.
PATIENCE = 120.0


class Running(Protocol):
    """A server that serves a subject.

    :ivar port: where it listens.
    :ivar rest: how long after a deploy the next one has to be left, in seconds.
    """

    port: int
    rest: float

    def deploy(self, version: str) -> None:
        """Write new code and have the server take it; doesn't wait for that."""

    def wait_deployed(self) -> None:
        """Wait until every worker has what was deployed, as far as the server's log tells."""

    def workers(self) -> list[int]:
        """Return the pids of its workers."""


class Ours:
    """A running ``genwsgi``, which sees by itself that the code has changed.

    :ivar server: the command, as the tests start it.
    """

    rest = 0.0

    def __init__(self, server: harness.Server, subject: Subject) -> None:
        self.server = server
        self.port = server.port
        self._deploys = 0
        self._read = 0
        self._subject = subject

    def deploy(self, version: str) -> None:
        """Write it; the rest is the file watch's."""
        self._deploys += 1
        self._subject.write(self.server.root, version)

    def wait_deployed(self) -> None:
        """Wait for the outcome of the last deploy."""
        outcome = re.compile(rf"committed: release {self._deploys + 1}-|: (failed|refused): ")
        text = ""
        # Only what is new: the log of very many deploys is long.
        with open(self.server.log_path, errors="replace") as log:
            log.seek(self._read)

            def told() -> bool:
                nonlocal text
                text += log.read()
                return outcome.search(text) is not None

            wait_until(told, PATIENCE, f"the outcome of deploy {self._deploys}")
            self._read = log.tell()
        if "committed: " not in text:
            raise AssertionError(text)

    def workers(self) -> list[int]:
        """Return the pids of its workers."""
        return self.server.workers()


class Theirs:
    """A running server of somebody else's.

    :param booted: what its log has for each worker that starts.
    """

    def __init__(
        self,
        root: Path,
        subject: Subject,
        command: Sequence[str],
        booted: str,
        count: int,
        port: int,
        tell: Callable[[Theirs], object],
        rest: float,
    ) -> None:
        self.port = port
        self.rest = rest
        self.root = root
        self._subject, self._booted, self._count, self._tell = subject, booted, count, tell
        self._expected = count
        self._log = root / "server.log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(root)},
                # Whatever it started ends with it.
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until its workers run and it answers."""
        self.wait_deployed()
        wait_until(self._answers, PATIENCE, "an answer")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def deploy(self, version: str) -> None:
        """Write it and tell the server."""
        self._subject.write(self.root, version)
        self._expected += self._count
        self._tell(self)

    def wait_deployed(self) -> None:
        """Wait until as many workers have started as belong to all deploys."""

        def started() -> bool:
            text = self._log.read_text(errors="replace")
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{text[-2000:]}")
            return len(re.findall(self._booted, text)) >= self._expected

        wait_until(started, PATIENCE, "all new workers")

    def workers(self) -> list[int]:
        """Return the pids of its children."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def close(self) -> None:
        """Stop it and all that it has started."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(10)


def hang_up(running: Theirs) -> None:
    """Send the master SIGHUP."""
    running.process.send_signal(signal.SIGHUP)


def touch(running: Theirs) -> None:
    """Touch the file that means a chain reload to uWSGI."""
    (running.root / "reload").touch()


@dataclass(frozen=True)
class Kind:
    """A server, and how it is told of new code.

    :ivar package: what has to be installed for it.
    :ivar ours: options of genwsgi's; ``None``: it is somebody else's.
    :ivar rest: how long after a deploy the next one has to be left, in seconds.
    """

    name: str
    package: str
    ours: tuple[str, ...] | None = None
    command: Callable[[int, int], list[str]] = lambda _port, _workers: []
    target: Callable[[str], list[str]] = lambda target: [target]
    booted: str = ""
    tell: Callable[[Theirs], object] = hang_up
    rest: float = 0.0

    @property
    def version(self) -> str | None:
        """The version that is installed; ``None``: none is."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _gunicorn(kind: str) -> Callable[[int, int], list[str]]:
    def command(port: int, workers: int) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", f"--worker-class={kind}", f"--threads={THREADS}"),
            *(f"--workers={workers}", f"--keep-alive={KEEP}", f"--bind=127.0.0.1:{port}"),
            f"--worker-connections={CONNECTIONS}",
        ]

    return command


def _uwsgi(port: int, workers: int) -> list[str]:
    return [
        *(_script("uwsgi"), "--master", f"--http=127.0.0.1:{port}", f"--http-keepalive={KEEP}"),
        *(f"--workers={workers}", f"--threads={THREADS}", "--lazy-apps", "--need-app"),
        *(f"--home={sys.prefix}", "--die-on-term", "--disable-logging"),
        "--touch-chain-reload=reload",
    ]


def _granian(port: int, workers: int) -> list[str]:
    return [
        *(_script("granian"), "--interface=wsgi", "--host=127.0.0.1", f"--port={port}"),
        *(f"--workers={workers}", f"--blocking-threads={THREADS}", "--no-ws"),
    ]


KINDS = {
    kind.name: kind
    for kind in (
        Kind("genwsgi gthread", "genwsgi", ("--worker-class=gthread",)),
        Kind("genwsgi gevent", "genwsgi", ("--worker-class=gevent",)),
        Kind(
            "gunicorn gthread, HUP", "gunicorn", None, _gunicorn("gthread"), booted="Booting worker"
        ),
        Kind(
            "gunicorn gevent, HUP", "gunicorn", None, _gunicorn("gevent"), booted="Booting worker"
        ),
        Kind(
            "uWSGI, chain reload",
            "uwsgi",
            None,
            _uwsgi,
            lambda target: [f"--module={target}"],
            r"WSGI app 0 .* ready in",
            touch,
            # It looks once a second, and passes over what is touched until its reload has ended.
            3.0,
        ),
        Kind("granian, HUP", "granian", None, _granian, booted="Started worker"),
    )
}


#: What is measured where there is no time for more.
OURS = ("genwsgi gthread",)


def installed(names: Sequence[str]) -> list[Kind]:
    """Return those of ``names`` that can be started here."""
    return [KINDS[name] for name in names if KINDS[name].version is not None]


@contextmanager
def serving(
    kind: Kind,
    root: Path,
    subject: Subject,
    *arguments: str,
    workers: int = 2,
) -> Iterator[Running]:
    """Serve ``subject`` from ``root`` until the block ends.

    :param arguments: further options, for genwsgi alone.
    """
    subject.lay(root)
    if kind.ours is not None:
        server = harness.Server(
            root,
            *kind.ours,
            f"--workers={workers}",
            f"--threads={THREADS}",
            f"--keep-alive={KEEP}",
            f"--worker-connections={CONNECTIONS}",
            *arguments,
            subject.target,
        )
        try:
            yield Ours(server.wait_ready(workers, PATIENCE), subject)
        finally:
            server.close()
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (root / "reload").touch()
    command = [*kind.command(port, workers), *kind.target(subject.target)]
    running = Theirs(root, subject, command, kind.booted, workers, port, kind.tell, kind.rest)
    try:
        running.wait_ready()
        yield running
    finally:
        running.close()

"""The real command, started on port 0, watched through its log, and killed at the worst moments."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from genwsgi.deploy import control, framing, protocol
from tests.helpers import wait_until

#: An application whose version is its first line.
APPLICATION = """\
V = "{version}"


def create_app():
    def app(environ, start_response):
        number, release = environ["genwsgi.generation"], environ["genwsgi.release"]
        body = f"{{V}} {{number}} {{release}}".encode()
        start_response("200 OK", [
            ("Content-Type", "text/plain"), ("Content-Length", str(len(body))),
        ])
        return [body]
    return app
"""


#: How the log begins the outcome of an order that somebody or something gave.
COMMITTED = r"order \S+ by .*: committed: "
FAILED = r"order \S+ by .*: failed: "


def put(path: Path, text: str) -> None:
    """Write a file as deploy tools do: beside it, then renamed over it."""
    temporary = path.with_name(f".{path.name}.part.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def paced(count: int, seconds: float) -> Iterator[int]:
    """Count from 1 to ``count``, ``seconds`` apart; later if the caller takes longer than that."""
    turn = time.monotonic()
    for number in range(1, count + 1):
        turn = max(turn + seconds, time.monotonic())
        wait_until(partial(_is_past, turn), seconds + 10, "the next turn")
        yield number


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


class Server:
    """One running ``genwsgi`` command.

    :param before: a command that the server's is given to.
    :param fds: descriptors that it inherits.
    :param bind: the options that say where it listens; none: the config file does.
    :ivar root: the folder it serves from (its working directory).
    :ivar port: where it listens.
    """

    def __init__(
        self,
        root: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        before: Sequence[str] = (),
        fds: Sequence[int] = (),
        bind: Sequence[str] = ("--bind=127.0.0.1:0",),
    ) -> None:
        self.root = root
        self.log_path = root / "server.log"
        # Short, because a unix socket's path must be.
        self._base = tempfile.TemporaryDirectory(prefix="gw")
        self.run_dir = Path(self._base.name) / "run"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *before,
                    sys.executable,
                    "-m",
                    "genwsgi",
                    *bind,
                    f"--run-dir={self.run_dir}",
                    *arguments,
                ],
                cwd=root,
                env={**os.environ, **(env or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
            )
        self.port = 0

    def log(self) -> str:
        """Every whole line it has logged so far."""
        text, end, _ = self.log_path.read_text(errors="replace").rpartition("\n")
        return text + end

    def wait_for_log(self, pattern: str, timeout: float = 60.0, count: int = 1) -> re.Match[str]:
        """Wait until the log has ``count`` matches of the regular expression; return the last."""

        def look() -> re.Match[str] | None:
            found = list(re.finditer(pattern, self.log()))
            if len(found) >= count:
                return found[count - 1]
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the server ended with {self.process.returncode}:\n{self.log()}"
                )
            return None

        try:
            match = wait_until(look, timeout, f"{pattern!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        assert match is not None
        return match

    def wait_ready(self, workers: int = 1, timeout: float = 90.0) -> Server:
        """Wait until it listens, ``workers`` workers serve and the coordinator is at work."""
        match = self.wait_for_log(r"Listening at: https?://127\.0\.0\.1:(\d+)", timeout)
        self.port = int(match[1])
        wait_until(lambda: self._alive() and len(self.workers()) >= workers, timeout, "workers")
        self.wait_for_coordinator(timeout)
        return self

    def wait_for_coordinator(self, timeout: float = 60.0) -> None:
        """Wait until a coordinator answers that has nothing to do, and knows all who serve.

        The socket's file says nothing: one that died has left it.  With the first answer it has
        begun with the look at the files with which a watch begins: what is written while that goes
        on may be deployed twice, under another number than the next.
        """

        def at_work() -> bool:
            self._alive()
            try:
                status = self.status()
            except OSError:
                return False
            known = {worker.pid for worker in status.workers}
            return status.phase == "idle" and known >= set(self.workers())

        wait_until(at_work, timeout, "the coordinator")

    def kill_coordinator(self) -> None:
        """Kill the coordinator, and wait until its master knows: the next one is on its way."""
        pid = self.coordinator()
        os.kill(pid, signal.SIGKILL)
        self.wait_for_log(rf"the coordinator \(pid {pid}\) has died")

    def _alive(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        return True

    def workers(self) -> list[int]:
        """The pids of the workers that serve."""
        try:
            entries = os.listdir(self.run_dir / "serving")
        except FileNotFoundError:
            return []
        return sorted(int(entry) for entry in entries if entry.isdigit())

    def coordinator(self) -> int:
        """The pid of the coordinator that was started last."""
        return int(re.findall(r"the coordinator runs \(pid (\d+)\)", self.log())[-1])

    def get(self, path: str = "/", timeout: float = 20.0) -> str:
        """One request on a connection of its own; its body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, (response.status, body)
            return body
        finally:
            connection.close()

    def ask(
        self, request: control.FromClient, heard: list[framing.Message] | None = None
    ) -> framing.Message:
        """What the coordinator answers to a client; ``heard`` gets what it tells before."""
        decoder = framing.Decoder()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self.run_dir / "coordinator.sock"))
            client.sendall(framing.encode(request))
            while data := client.recv(65536):
                for message in decoder.feed(data):
                    if not isinstance(message, protocol.Progress):
                        return message
                    if heard is not None:
                        heard.append(message)
        raise ConnectionResetError("the coordinator has hung up")

    def status(self) -> control.Status:
        """What the coordinator answers to a client that asks how things stand."""
        status = self.ask(control.StatusRequest())
        assert isinstance(status, control.Status)
        return status

    def problems(self) -> list[str]:
        """The names of what is wrong now, as the status has it."""
        return [problem.name for problem in self.status().problems]

    def releases(self) -> dict[int, str]:
        """The release that each serving worker has swapped to last, by pid, as the log has it."""
        found: dict[int, str] = {}
        for pid, release in re.findall(r"\[(\d+)\] \[INFO\] release (\S+) is live as", self.log()):
            found[int(pid)] = release
        return {pid: found.get(pid, "") for pid in self.workers()}

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, and its exit status; SIGKILL to all of it if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            for pid in self.workers():
                _kill(pid)
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"the server did not stop:\n{self.log()}") from None

    def close(self) -> None:
        """Stop it and clear away what it used."""
        try:
            self.stop()
        finally:
            self._base.cleanup()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@contextmanager
def serving(
    root: Path,
    *arguments: str,
    workers: int = 2,
    target: str = "myapp:create_app",
    env: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Run the command with ``workers`` workers until the block ends."""
    server = Server(root, f"--workers={workers}", *arguments, target, env=env)
    try:
        yield server.wait_ready(workers)
    finally:
        server.close()


def run_command(
    root: Path, *arguments: str, timeout: float = 90.0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "genwsgi", *arguments],
        cwd=root,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def scraped(where: str) -> str:
    """What is given to Prometheus at a URL or a path."""
    if where.startswith("http:"):
        with urllib.request.urlopen(where, timeout=20) as response:
            return str(response.read().decode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(where)
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with connection.makefile("r") as answer:
            head, _, body = answer.read().partition("\n\n")
    assert " 200 " in head.splitlines()[0], head
    return body


def application(root: Path, version: str, name: str = "myapp.py") -> Path:
    """Write the usual application at ``version`` into ``root``."""
    path = root / name
    put(path, APPLICATION.format(version=version))
    return path


__all__: Sequence[str] = (
    "APPLICATION",
    "COMMITTED",
    "FAILED",
    "Server",
    "application",
    "paced",
    "put",
    "run_command",
    "scraped",
    "serving",
)

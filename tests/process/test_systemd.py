"""The real command under something that listens as systemd does."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.harness import COMMITTED, FAILED, Server, application, put

#: Does what systemd does with a socket that it hands over: it is descriptor 3 of this very process.
ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def listening(path: Path) -> Iterator[list[dict[str, str]]]:
    """Listen at ``path``; the list grows by each message."""
    heard: list[dict[str, str]] = []
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(path))

    def listen() -> None:
        while data := systemd.recv(4096):
            heard.append(dict(line.split("=", 1) for line in data.decode().split("\n")))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(path))
        thread.join(10)
        systemd.close()


def kinds(heard: list[dict[str, str]]) -> list[str]:
    """What was said, without texts and signs of life."""
    wanted = ("READY", "RELOADING", "STOPPING")
    return [kind for message in heard for kind in message if kind in wanted]


def status(heard: list[dict[str, str]]) -> str:
    """The latest text."""
    return [message["STATUS"] for message in heard if "STATUS" in message][-1]


def test_systemd_hears_of_the_whole_life(tmp_path: Path, shut: Shut) -> None:
    """Ready when all serve, reloading during each deploy, whatever comes of it, and stopping."""
    application(tmp_path, "v0")
    with listening(tmp_path / "notify") as heard:
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
        server = Server(tmp_path, "--workers=2", "--no-watch", "myapp:create_app", env=env)
        try:
            wait_until(lambda: kinds(heard) == ["READY"], 90, "READY=1")
            assert len(server.workers()) == 2
            server.wait_ready(2)
            application(tmp_path, "v1")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log(COMMITTED)
            wait_until(lambda: kinds(heard) == ["READY", "RELOADING", "READY"], 60, "the deploy")
            assert status(heard).startswith("release 2-")
            assert status(heard).endswith(" on 2 workers; last order: committed")
            put(tmp_path / "myapp.py", "import not_installed_anywhere\n")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log(FAILED)
            wait_until(lambda: kinds(heard)[3:] == ["RELOADING", "READY"], 60, "the failed deploy")
            assert "No module named 'not_installed_anywhere'" in status(heard)
            # A coordinator that dies over a deploy leaves nobody waiting for the end of it.
            gate = shut("gate")
            put(tmp_path / "myapp.py", f"{AT_GATE}wait_at_gate('gate')\n")
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(kinds(heard)) == 6, 60, "the deploy that is broken off")
            os.kill(server.coordinator(), signal.SIGKILL)
            gate.open()
            wait_until(lambda: kinds(heard)[-1] == "READY", 60, "the end of it")
            wait_until(
                lambda: sum("WATCHDOG" in message for message in heard) >= 2, 60, "signs of life"
            )
        finally:
            server.close()
        wait_until(lambda: kinds(heard)[-1] == "STOPPING", 60, "STOPPING=1")
        assert kinds(heard).count("STOPPING") == 1


def test_a_socket_of_systemd_is_served_and_survives(tmp_path: Path) -> None:
    """What systemd listens at is served, whatever --bind says, and a connect waits for the next."""
    application(tmp_path, "v0")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        handed = str(listener.fileno())
        before = (sys.executable, "-c", ACTIVATE, handed)
        for version in ("v0", "v1"):
            application(tmp_path, version)
            waiting = socket.create_connection(("127.0.0.1", port))
            server = Server(
                tmp_path, "--workers=1", "myapp:create_app", before=before, fds=[listener.fileno()]
            )
            try:
                server.wait_ready(1)
                assert server.port == port
                with waiting:
                    waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    with waiting.makefile("rb") as answer:
                        assert f"\r\n\r\n{version} 1 ".encode() in answer.read()
                assert server.get().startswith(version)
            finally:
                server.close()

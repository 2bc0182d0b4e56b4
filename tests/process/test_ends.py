"""How a server ends, and what one leaves to the next: SIGTERM, kill -9, two at once."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import pytest

from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.harness import COMMITTED, Server, application, put, serving

#: Answers ``/slow`` in pieces until its gate is open, and marks that the first has been sent.
SLOW = """\
V = "{version}"
HERE = os.path.dirname(os.path.abspath(__file__))


def pieces():
    yield b"."
    open(os.path.join(HERE, f"begun-{{V}}"), "w").close()
    gate = AtGate(os.path.join(HERE, "gate"))
    while not gate.opens(0.02):
        yield b"."
    yield V.encode()


def app(environ, start_response):
    start_response("200 OK", [])
    return pieces() if environ["PATH_INFO"] == "/slow" else [V.encode()]
"""


def refused(port: int) -> bool:
    """Whether a new connection is not accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def fetch(port: int) -> bytes:
    """The whole body of the slow response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/slow", headers={"Connection": "close"})
    try:
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def under_way(server: Server, *versions: str) -> Iterator[list[Future[bytes]]]:
    """Have a slow response under way of each of ``versions``, deployed one after the other."""
    with ThreadPoolExecutor(len(versions)) as pool:
        bodies = []
        for number, version in enumerate(versions):
            if number:
                put(server.root / "myapp.py", AT_GATE + SLOW.format(version=version))
                server.wait_for_log(COMMITTED, count=number)
            bodies.append(pool.submit(fetch, server.port))
            wait_until((server.root / f"begun-{version}").exists, 20, "the response to begin")
        yield bodies


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "sync"])
def test_sigterm_serves_out_what_is_owed(tmp_path: Path, shut: Shut, worker_class: str) -> None:
    """After SIGTERM nobody is accepted, and responses of all generations are sent whole.

    Then nothing is left: no process, no run directory.
    """
    gate = shut("gate")
    put(tmp_path / "myapp.py", AT_GATE + SLOW.format(version="v0"))
    with serving(tmp_path, f"--worker-class={worker_class}", target="myapp:app") as server:
        pids = [*server.workers(), server.coordinator()]
        with under_way(server, "v0", "v1") as bodies:
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refused(server.port), what="the end of accepting")
            assert server.process.poll() is None
            gate.open()
            ends = [body.result() for body in bodies]
        assert [body.strip(b".") for body in ends] == [b"v0", b"v1"]
        assert server.process.wait(20) == 0
        assert not server.run_dir.exists()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


#: Keeps a worker where it has just been forked, until the gate is open.
FORKED = f"""\
{AT_GATE}

def post_fork(server, worker):
    wait_at_gate("gate")
"""


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "sync"])
def test_sigterm_ends_a_worker_that_has_just_been_forked(
    tmp_path: Path, shut: Shut, worker_class: str
) -> None:
    """It is not lost on a worker that has no handlers of its own yet; another takes its place."""
    gate = shut("gate")
    (tmp_path / "settings.py").write_text(FORKED)
    application(tmp_path, "v0")
    options = ("--config=settings.py", f"--worker-class={worker_class}")
    server = Server(tmp_path, *options, "myapp:create_app")
    try:
        pid = int(server.wait_for_log(r"Booting worker with pid: (\d+)")[1])
        os.kill(pid, signal.SIGTERM)
        gate.open()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="its end")
        server.wait_for_log("Booting worker", count=2)
        assert server.wait_ready().get().startswith("v0 ")
        assert "ERROR" not in server.log()
    finally:
        server.close()


def test_sigterm_waits_no_longer_than_it_may(tmp_path: Path, shut: Shut) -> None:
    """What has not ended within --graceful-timeout is cut, and still nothing is left."""
    shut("gate")
    put(tmp_path / "myapp.py", AT_GATE + SLOW.format(version="v0"))
    with serving(tmp_path, "--graceful-timeout=1", target="myapp:app") as server:
        with under_way(server, "v0") as (body,):
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(20) == 0
            assert isinstance(body.exception(20), IncompleteRead)
        assert not server.run_dir.exists()


def test_what_a_killed_server_has_left_is_taken_over(tmp_path: Path) -> None:
    """After kill -9 of all its processes the next server begins with what is on disk now."""
    application(tmp_path, "v0")
    with serving(tmp_path) as server:
        application(tmp_path, "v1")
        server.wait_for_log(COMMITTED)
        pids = [server.process.pid, server.coordinator(), *server.workers()]
        left = set(os.listdir(server.run_dir / "store" / "snapshots"))
        # Stopped, it starts nobody in the place of others, and nobody ends because it is gone.
        server.process.send_signal(signal.SIGSTOP)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGKILL)
        server.process.wait(20)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids[1:]), 20)
        assert (server.run_dir / "coordinator.sock").exists()
        application(tmp_path, "v2")
        heir = Server(tmp_path, f"--run-dir={server.run_dir}", "myapp:create_app")
        try:
            heir.run_dir = server.run_dir
            heir.wait_ready()
            heir.wait_for_log(rf"taken over from the server of pid {pids[0]}, which is gone")
            assert heir.get().startswith("v2 1 1-")
            assert not left & set(os.listdir(heir.run_dir / "store" / "snapshots"))
            assert heir.workers() == [worker.pid for worker in heir.status().workers]
        finally:
            heir.close()


def test_two_servers_beside_each_other(tmp_path: Path) -> None:
    """Two servers of one folder deploy a change each by itself, and one may go."""
    application(tmp_path, "v0")
    second = tmp_path / "second"
    second.mkdir()
    with serving(tmp_path, workers=1) as one:
        with serving(second, f"--chdir={tmp_path}", workers=1) as other:
            application(tmp_path, "v1")
            for server in (one, other):
                server.wait_for_log(COMMITTED)
            os.kill(other.coordinator(), signal.SIGKILL)
        application(tmp_path, "v2")
        one.wait_for_log(COMMITTED, count=2)
        assert one.get().startswith("v2 3 3-")
        assert not re.search("has died|ERROR", one.log())


def test_a_server_in_place_of_one_whose_directory_was_deleted(tmp_path: Path) -> None:
    """The first serves on and lets the directory alone, now and when it ends: it is the other's."""
    application(tmp_path, "v0")
    other_root = tmp_path / "other"
    other_root.mkdir()
    application(other_root, "w0")
    with serving(tmp_path, workers=1) as first:
        # While its master is stopped it can't make the directory again.
        first.process.send_signal(signal.SIGSTOP)
        first.run_dir.rename(first.run_dir.with_name("gone"))
        other = Server(other_root, f"--run-dir={first.run_dir}", "--workers=1", "myapp:create_app")
        try:
            other.run_dir = first.run_dir
            other.wait_ready()
            first.process.send_signal(signal.SIGCONT)
            first.wait_for_log(r"is in use by a running server \(pid \d+\).*; it was deleted under")
            application(tmp_path, "v1")
            first.wait_for_log("by watch: failed: .*is not this server's any more")
            assert first.get().startswith("v0 ")
            application(other_root, "w1")
            other.wait_for_log(COMMITTED)
            assert first.stop() == 0
            assert other.get().startswith("w1 ")
            (worker,) = other.status().workers
            assert other.workers() == [worker.pid]
        finally:
            other.close()

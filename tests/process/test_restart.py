"""A server whose configuration is changed, well or badly, and whose workers are then replaced."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from genwsgi.deploy.control import RestartRequest
from tests.helpers import wait_until
from tests.process.harness import Server, application, put

GOOD = "watch = False\nworkers = 1\nbind = '127.0.0.1:0'\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with a config file and a pid file."""
    root = tmp_path_factory.mktemp("restart")
    application(root, "one")
    put(root / "settings.py", f"{GOOD}pidfile = 'server.pid'\n")
    server = Server(root, f"--config={root / 'settings.py'}", "myapp:create_app", bind=())
    try:
        yield server.wait_ready()
    finally:
        server.close()


def replace_workers(server: Server, settings: str) -> None:
    """Ask for it with these settings."""
    put(server.root / "settings.py", settings)
    server.ask(RestartRequest("somebody"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            "worker_class = 'gevnt'",
            "used .worker class gevnt can't be used: .* did you mean gevent",
        ),
        ("def on_reload(server): raise KeyError('mine')", "used .KeyError: 'mine'"),
        ("def pre_fork(server, worker): raise KeyError('mine')", "used .KeyError: 'mine'"),
        ("errorlog = 'nowhere/error.log'", "used .Error: 'nowhere/error.log' isn't writable"),
        ("pidfile = 'other.pid'", "used .Already running on PID 1 "),
        ("certfile = 'none.pem'", "used .no TLS with certfile none.pem, .*No such file"),
        ("raw_env = ['x']", "used .environment setting 'x' invalid"),
        ("bind = '127.0.0.1:{taken}'", "used .the address .bind. can't be changed"),
        ("watch = ", "loaded: the workers"),
    ],
)
def test_a_mistake_costs_nothing_and_can_be_mended(
    server: Server, settings: str, said: str
) -> None:
    """The old workers serve on, the log says once what is wrong, and mended it is taken."""
    (server.root / "other.pid").write_text("1\n")
    before, told = server.workers(), server.log().count("the configuration can't be")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        replace_workers(server, f"{GOOD}{settings.replace('{taken}', str(taken))}\n")
        server.wait_for_log("the configuration can't be", count=told + 1)
    server.wait_for_log(f"the configuration can't be {said}")
    assert server.workers() == before
    assert server.get().startswith("one")
    assert (server.root / "server.pid").read_text().strip() == str(server.process.pid)

    replace_workers(server, f"{GOOD}pidfile = 'server.pid'\n")
    wait_until(lambda: len(now := server.workers()) == 1 and now != before, 60, "a new worker")
    assert server.get().startswith("one")
    assert server.log().count("the configuration can't be") == told + 1


def test_a_worker_that_hangs_holds_no_restart_up(server: Server) -> None:
    """The master goes on while old workers end: it kills one that hangs, and takes orders."""
    (hanging,) = server.workers()
    os.kill(hanging, signal.SIGSTOP)
    replace_workers(server, f"{GOOD}timeout = 8\ngraceful_timeout = 100\n")
    wait_until(lambda: set(server.workers()) - {hanging}, 60, "a new worker")
    hung_up = server.log().count("Hang up: ordering a deploy")
    os.kill(server.process.pid, signal.SIGHUP)
    server.wait_for_log("Hang up: ordering a deploy", count=hung_up + 1)
    wait_until(lambda: hanging not in server.workers(), 60, "the end of the old worker")
    assert server.get().startswith("one")


def test_another_error_log_is_taken(server: Server) -> None:
    """What the master says after the restart goes there as well."""
    before = server.workers()
    log = server.root / "error.log"
    replace_workers(server, f"{GOOD}errorlog = {str(log)!r}\n")
    wait_until(lambda: len(now := server.workers()) == 1 and now != before, 60, "a new worker")
    replace_workers(server, f"{GOOD}errorlog = {str(log)!r}\nbind = '127.0.0.1:1'\n")
    wait_until(lambda: "the address (bind) can't be changed" in log.read_text(), 60, "the mistake")
    assert "(bind)" not in server.log().rpartition("Replacing the workers")[2]

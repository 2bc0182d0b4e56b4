"""genwsgictl and a running server: found, looked at, given orders, and lost sight of."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gates import AT_GATE, Shut
from tests.helpers import unmeasured, wait_until
from tests.process.harness import APPLICATION, COMMITTED, Server, put

#: The end of an application whose import waits at a gate beside it.
GATE = f"""
{AT_GATE}
wait_at_gate(os.path.join(os.path.dirname(__file__), "gate"))
"""


class Place:
    """Run-time files of the test's own, so that no other server of this user is found."""

    def __init__(self, folder: str) -> None:
        self.env = {"XDG_RUNTIME_DIR": folder, "TMPDIR": folder, "TERM": "xterm"}

    def ctl(self, *words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run ``genwsgictl`` in a pipe, to its end."""
        return subprocess.run(
            self._command(words),
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``genwsgictl`` in a pipe."""
        return subprocess.Popen(
            self._command(words),
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(self, *words: str, until: str = "") -> tuple[int, str]:
        """Run ``genwsgictl`` on a terminal; interrupt it once it has shown ``until``.

        :returns: its status, and what it has shown.
        """
        ours, its = pty.openpty()
        env = {**(unmeasured() if until else os.environ), **self.env}
        process = subprocess.Popen(self._command(words), env=env, stdin=its, stdout=its, stderr=its)
        os.close(its)
        shown, deadline = "", time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 65536).decode()
                except OSError:  # its end, as Linux has it (EIO)
                    break
            if until and re.search(until, shown):
                process.send_signal(signal.SIGINT)
                until = ""
        os.close(ours)
        return process.wait(20), shown

    @staticmethod
    def _command(words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "genwsgi.ctl", *words]


def text(version: str) -> str:
    """The application at a version, whose import can be held up."""
    return APPLICATION.format(version=version) + GATE


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Where the servers of this file are."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        yield Place(folder)


@pytest.fixture(scope="module")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server, which deploys by order only; its files are left as the last test left them."""
    root = tmp_path_factory.mktemp("ctl")
    put(root / "myapp.py", text("v1"))
    server = Server(
        root, "--workers=2", "--no-watch", f"--pid={root}/pid", "myapp:create_app", env=place.env
    )
    try:
        yield server.wait_ready(2)
    finally:
        server.close()


def version(server: Server) -> str:
    """The version that answers."""
    return server.get("/").split()[0]


def committed(server: Server) -> int:
    """How many deploys were committed so far."""
    return len(re.findall(COMMITTED, server.log()))


def test_the_only_server_is_found_and_shown(place: Place, server: Server) -> None:
    """Without a word about where it is: in a pipe as plain text, for programs as an object."""
    done = place.ctl("status")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("myapp:create_app: release 1-")
    assert all(ord(char) in {*range(32, 127), 10} for char in done.stdout), "plain text only"
    for pid in server.workers():
        assert re.search(rf"^{pid} +1 +1 +0 ", done.stdout, re.MULTILINE)
    told = json.loads(place.ctl("status", "--json").stdout)
    assert told["server"]["pid"] == server.process.pid
    assert sorted(worker["pid"] for worker in told["status"]["workers"]) == server.workers()
    for choice in (f"--run-dir={server.run_dir}", f"--pid={server.root}/pid"):
        assert place.ctl("status", choice).stdout.startswith("myapp:create_app")
    assert json.loads(place.ctl("list", "--json").stdout) == {"servers": [told["server"]]}


def test_a_terminal_gets_colours_and_stays_live(place: Place, server: Server) -> None:
    """What was shown is drawn over, until Ctrl-C ends it in good order."""
    status, shown = place.on_terminal(
        "status", "--watch", "--every", "0.1", until=r"(?s)myapp.*\x1b\[1A.*myapp"
    )
    assert status == 0
    assert "\x1b[2m" in shown


def test_a_deploy_shows_how_it_goes_and_ends(place: Place, server: Server) -> None:
    """The new code is live when the command ends with 0; the same again is no deploy."""
    put(server.root / "myapp.py", text("v2"))
    done = place.ctl("deploy", "-m", "second")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("committed: release 2 is live")
    assert version(server) == "v2"
    for pid in server.workers():
        stages = re.findall(rf"^worker {pid}  (\w+)$", done.stdout, re.MULTILINE)
        assert stages[0] == "building"
        assert stages[-2:] == ["ready", "committed"]
    assert re.search("^coordinator  reading$", done.stdout, re.MULTILINE)
    assert "second (by " in server.log()
    again = place.ctl("deploy")
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1].startswith("unchanged: ")


def test_a_failing_deploy_shows_the_traceback(place: Place, server: Server) -> None:
    """On a terminal in colours; the status is 1, and the old code serves."""
    before = version(server)
    put(server.root / "myapp.py", 'raise RuntimeError("no luck")\n')
    status, shown = place.on_terminal("deploy")
    assert status == 1
    assert "no luck" in shown
    assert "\x1b[1;31mfailed" in shown
    told = json.loads(place.ctl("deploy", "--json").stdout)
    assert told["outcome"]["outcome"] == "failed"
    assert 'raise RuntimeError("no luck")' in told["outcome"]["traceback"]
    assert version(server) == before


def test_a_rollback_leaves_the_files_alone(place: Place, server: Server) -> None:
    """The release before serves again; history and diff tell of both."""
    for number in ("v3", "v4"):
        put(server.root / "myapp.py", text(number))
        assert place.ctl("deploy").returncode == 0
    done = place.ctl("rollback", "-m", "v4 is bad")
    assert done.returncode == 0, done.stdout + done.stderr
    assert version(server) == "v3"
    assert (server.root / "myapp.py").read_text() == text("v4")
    history = json.loads(place.ctl("history", "--json", "-n", "3").stdout)["history"]
    assert [entry["outcome"] for entry in history] == ["committed"] * 3
    assert history[0]["trigger"] == "rollback"
    assert "v4 is bad" in place.ctl("history").stdout
    diff = place.ctl("diff")
    assert '-V = "v4"\n+V = "v3"\n' in diff.stdout
    assert place.ctl("rollback", "4000").returncode == 1


def test_automatic_deploys_are_paused_and_resumed(place: Place, server: Server) -> None:
    """The status says so, and by whom."""
    assert place.ctl("pause", "-m", "a migration").returncode == 0
    assert re.search(r"^paused by .*a migration", place.ctl("status").stdout, re.MULTILINE)
    assert place.ctl("resume").returncode == 0
    assert "paused" not in place.ctl("status").stdout


def test_ctrl_c_ends_the_waiting_and_not_the_deploy(
    place: Place, server: Server, shut: Shut
) -> None:
    """It says so, with a status of its own; then the deploy is committed."""
    count = committed(server)
    gate = shut(str(server.root / "gate"))
    put(server.root / "myapp.py", text("interrupted"))
    status, shown = place.on_terminal("deploy", until="building")
    assert status == 130
    assert re.search(r"the waiting has ended, and order \w+ goes on", shown)
    gate.open()
    server.wait_for_log(COMMITTED, count=count + 1)
    assert version(server) == "interrupted"


def test_the_outcome_comes_although_the_coordinator_dies(
    place: Place, server: Server, shut: Shut
) -> None:
    """The next coordinator takes the order up, and the command asks that one."""
    gate = shut(str(server.root / "gate"))
    put(server.root / "myapp.py", text("resumed"))
    with place.start("deploy") as process:
        assert process.stdout is not None
        while "building" not in process.stdout.readline():
            assert process.poll() is None
        os.kill(server.coordinator(), signal.SIGKILL)
        server.wait_for_log(r"the coordinator \(pid \d+\) has died")
        gate.open()
        out, error = process.communicate(timeout=60)
    assert process.returncode == 0, out + error
    assert "committed: release" in out
    assert "the coordinator is away" in error
    assert version(server) == "resumed"


def test_of_two_servers_one_is_named_and_a_dead_one_is_left_over(
    place: Place, server: Server, tmp_path: Path
) -> None:
    """Two: a table and the status 2. One of them killed: the other is the only one."""
    put(tmp_path / "myapp.py", APPLICATION.format(version="other"))
    other = Server(tmp_path, "--workers=1", "--no-watch", "myapp", env=place.env)
    try:
        other.wait_ready(1)
        done = place.ctl("status")
        assert (done.returncode, done.stdout) == (2, "")
        for one in (server, other):
            assert re.search(rf"^{one.process.pid} .*{one.run_dir}", done.stderr, re.MULTILINE)
            assert (
                f"pid {one.process.pid}," in place.ctl("status", f"--run-dir={one.run_dir}").stdout
            )
        assert done.stderr.splitlines()[-1].endswith("choose one with --run-dir")
        left = [other.coordinator(), *other.workers()]
        other.process.kill()
        other.process.wait(20)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), what="its end")
        stale = place.ctl("status", f"--run-dir={other.run_dir}")
        assert stale.returncode == 2
        assert f"{other.run_dir} is left over: the server (pid {other.process.pid})" in stale.stderr
        assert f"pid {server.process.pid}," in place.ctl("status").stdout
    finally:
        other.close()


def test_a_restart_replaces_the_workers(place: Place, server: Server) -> None:
    """By new processes, which serve the committed release."""
    before, serves = set(server.workers()), version(server)
    assert place.ctl("restart").returncode == 0
    wait_until(lambda: len(server.workers()) == 2 and not before & set(server.workers()), 30)
    assert version(server) == serves


def test_none_is_said(place: Place, server: Server) -> None:
    """Stopped in good order, a server leaves nothing to be found."""
    assert server.stop() == 0
    done = place.ctl("status")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "genwsgictl: no server of this user runs; start one, or name it with --run-dir\n"
    )
    folders = Path(place.env["TMPDIR"]).glob("genwsgi-*/at")
    assert str(server.run_dir) not in map(os.readlink, folders)

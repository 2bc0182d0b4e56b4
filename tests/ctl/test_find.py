"""Tests of genwsgi.ctl.find."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genwsgi.ctl import find
from genwsgi.errors import ServerNotFound
from tests.deploy.real import short

__all__ = ["short"]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")

#: A user who is nobody in particular.
NOBODY = 65534

#: What stands for a server: it has a run directory, and lives.
SERVER = """
import sys
from genwsgi.deploy.rundir import RunDirectory
made = RunDirectory.create(sys.argv[1] or None, serves="shop:app")
print(made.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start what stands for a server, in a given directory or in one of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", short)
    monkeypatch.setattr("genwsgi.deploy.notices.bases", lambda: [short])
    started: list[subprocess.Popen[str]] = []

    def run(path: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.communicate(timeout=20)


def told(process: subprocess.Popen[str]) -> str:
    """The run directory of what stands for a server."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def refused(**choice: str) -> str:
    """Why no server is chosen."""
    with pytest.raises(ServerNotFound) as caught:
        find.choose(**choice)
    return str(caught.value)


Start = Callable[..., "subprocess.Popen[str]"]


def test_the_only_server_is_found_by_itself(start: Start) -> None:
    """Nothing has to be said where one server of this user runs; its target is known."""
    process = start()
    path = told(process)
    server = find.choose()
    assert (server.pid, server.serves, server.run_dir) == (process.pid, "shop:app", path)
    assert server.since == os.stat(os.path.join(path, "lock")).st_mtime


def test_none_is_said_in_one_line(start: Start) -> None:
    """Nothing runs: that is said, with the next step."""
    assert refused() == "no server of this user runs; start one, or name it with --run-dir"


def test_of_several_one_has_to_be_named(start: Start, short: str) -> None:
    """All that may be meant are given with the error, the oldest first."""
    paths = [told(start()), told(start())]
    os.utime(os.path.join(paths[1], "lock"), (1.0, 1.0))
    with pytest.raises(ServerNotFound, match="2 servers run; choose one with --run-dir") as caught:
        find.choose()
    assert [server.run_dir for server in caught.value.servers] == paths[::-1]
    assert find.choose(run_dir=paths[0]).run_dir == paths[0]


def test_a_server_is_found_by_its_pid_file(start: Start, tmp_path: Path) -> None:
    """Of several it is the one whose master has the pid; other numbers and files are refused."""
    start()
    process = start()
    path, file = told(process), tmp_path / "pid"
    file.write_text(f"{process.pid}\n")
    assert find.choose(pid_file=str(file)).run_dir == path
    file.write_text(f"{os.getpid()}\n")
    assert f"process {os.getpid()} is no server of this user" in refused(pid_file=str(file))
    file.write_text("none\n")
    assert "holds no pid" in refused(pid_file=str(file))
    assert "can't be read: No such file" in refused(pid_file=str(tmp_path / "nowhere"))


def test_a_directory_that_was_left_over_is_called_so(start: Start, short: str) -> None:
    """Killed, a server is not found any more, and its directory is named as what it is."""
    process = start()
    path = told(process)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert refused() == "no server of this user runs; start one, or name it with --run-dir"
    assert refused(run_dir=path).startswith(
        f"{path} is left over: the server (pid {process.pid}) that used it does not run; start it"
    )


def test_a_living_process_that_has_not_the_lock_is_no_server(start: Start, short: str) -> None:
    """The number of a server that was killed may be another process's by now."""
    path = os.path.join(short, "genwsgi-old")
    os.mkdir(path, 0o700)
    Path(path, "lock").write_text(f"{os.getpid()}\nshop\n")
    assert f"the server (pid {os.getpid()})" in refused(run_dir=path)
    Path(path, "lock").write_text("")
    assert "the server that used it" in refused(run_dir=path)
    # Its last worker may hold the lock for a moment longer than the master lives.
    path = told(start())
    Path(path, "lock").write_text(f"{os.getpid()}\nshop\n")
    assert f"the server (pid {os.getpid()})" in refused(run_dir=path)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o702])
def test_a_directory_that_is_open_to_others_is_not_believed(
    start: Start, short: str, mode: int
) -> None:
    """Anybody could have put a socket there."""
    path = told(start())
    os.chmod(path, mode)
    assert f"open to others (mode {mode:03o}); chmod 700 it" in refused(run_dir=path)
    assert "no server of this user" in refused()
    os.chmod(path, 0o700)


def test_what_is_no_run_directory_is_refused(start: Start, short: str) -> None:
    """A folder, a file, and nothing at all."""
    assert "is no run directory: no server has been there" in refused(run_dir=short)
    assert "is no run directory" in refused(run_dir="/nowhere")
    Path(short, "file").touch()
    assert "can't be looked at: Not a directory" in refused(run_dir=f"{short}/file")
    os.mkdir(f"{short}/odd")
    os.mkdir(f"{short}/odd/lock")
    assert refused(run_dir=f"{short}/odd") == f"{short}/odd is no run directory"


def test_a_directory_of_somebody_else_is_refused(
    start: Start, short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its user and root may ask."""
    path = told(start())
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"belongs to user {owner}; only that user or root" in refused(run_dir=path)


@as_root
def test_root_is_not_asked_about_other_users_servers(
    start: Start, short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that somebody else has started is found only if it is named."""
    path = told(start())
    monkeypatch.setattr(find, "_owner", lambda place: NOBODY)
    assert "no server of this user" in refused()
    assert find.choose(run_dir=path).run_dir == path


#: A server that root has started for other workers, asked for by whoever has a certain number.
FOR_OTHERS = """
import codecs, os, sys
from genwsgi.ctl import find
from genwsgi.deploy.notices import Notice
from genwsgi.deploy.rundir import RunDirectory
made = RunDirectory.create(sys.argv[1])
made.give_to({nobody}, {nobody})
Notice(made.path, {nobody}, {nobody}).put_up()
codecs.lookup("ascii")  # the interpreter may be where only root can read
os.setuid(int(sys.argv[2]))
print([server.run_dir for server in find.running()])
"""


@as_root
def test_a_server_is_found_by_root_and_by_its_workers_user(short: str, tmp_path: Path) -> None:
    """And by nobody else, wherever its run directory is."""
    os.chmod(short, 0o1777)
    environment = {**os.environ, "TMPDIR": short, "XDG_RUNTIME_DIR": ""}
    for uid, found in ((0, True), (NOBODY, True), (1, False)):
        place = os.path.join(short, f"run{uid}")
        done = subprocess.run(
            [sys.executable, "-c", FOR_OTHERS.format(nobody=NOBODY), place, str(uid)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=environment,
        )
        assert done.stdout == f"{[place] * found}\n"


def test_without_a_list_of_locks_the_pid_decides(
    start: Start, short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that shows no locks is believed that the process is the server."""
    process = start()
    path = told(process)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    lock = os.stat(os.path.join(path, "lock"))
    monkeypatch.setattr("builtins.open", refuse)
    assert find._holds(process.pid, lock)
    assert not find._holds(4_194_305, lock)


def test_owner_of_nothing() -> None:
    """A process that has just ended has no owner."""
    assert find._owner("/proc/4194305") is None

"""Tests of genwsgi.server.child: real processes, ended in every way."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from genwsgi.server import child
from genwsgi.server.child import ENDS, MOST, ChildError, ending, run_in_child
from tests.helpers import wait_until

#: What is done at once is done within so many seconds on a busy machine; what hangs never is.
AT_ONCE = 30.0

#: Forks a child that says who it is and hangs, with a process of its own if there is an argument.
HANGING = """\
import os, signal, sys
from genwsgi.server.child import ending, run_in_child

def work():
    if sys.argv[1:] and os.fork() == 0:
        signal.pause()
    print(os.getpid(), flush=True)
    signal.pause()

with ending(lambda number: number + 100):
    run_in_child(work, 600)
"""


def ended(pid: int) -> bool:
    """Whether the process is gone; a zombie of somebody else's is."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def test_what_the_work_returns_comes_back() -> None:
    """A text of any length and alphabet, from another process."""
    master = os.getpid()
    text = "ä" * (MOST // 3)
    assert run_in_child(lambda: text, 10) == text
    assert run_in_child(lambda: str(os.getppid()), 10) == str(master)
    assert int(run_in_child(lambda: str(os.getpid()), 10)) != master


@pytest.mark.parametrize("most", ["x" * (MOST + 1), ""])
def test_too_much_and_nothing_are_no_report(most: str) -> None:
    """A report that is too long, or empty, is an error."""
    with pytest.raises(ChildError, match=r"reported more than|ended and said nothing"):
        run_in_child(lambda: most, 10)


def test_an_exception_stays_in_the_child(capfd: pytest.CaptureFixture[str]) -> None:
    """It is shown there, and its end is an error here."""
    with pytest.raises(ChildError, match=r"^ended with status 1$"):
        run_in_child(lambda: str(1 // 0), 10)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_no_exit_handler_of_the_master_runs_in_the_child(tmp_path: Path) -> None:
    """Neither when it ends well nor when its code calls ``sys.exit``."""
    mark = tmp_path / "mark"
    atexit.register(mark.touch)
    try:
        assert run_in_child(lambda: "well", 10) == "well"
        with pytest.raises(ChildError, match=r"^ended with status 1$"):
            run_in_child(lambda: sys.exit(3), 10)
    finally:
        atexit.unregister(mark.touch)
    assert not mark.exists()


def test_what_the_master_had_not_written_yet_is_written_once() -> None:
    """Output that waits in a buffer is not inherited, and that of the child is not lost."""
    code = (
        "from genwsgi.server.child import run_in_child\n"
        "print('once', end=';')\n"
        "run_in_child(lambda: print('from the child', end=';') or 'done', 10)\n"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=buffered
    )
    assert done.stdout == "once;from the child;"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_is_an_error(number: int) -> None:
    """It says by which signal; SIGTERM, which the master handles, kills a child as well."""

    def kill() -> str:
        os.kill(os.getpid(), number)
        return "alive"

    with ending(lambda number: number), pytest.raises(ChildError, match=f"signal {number:d} "):
        run_in_child(kill, 10)


def test_a_child_that_hangs_is_killed_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it ignores, and with the processes that it has started."""
    pids = tmp_path / "pids"
    pids.touch()

    def monotonic() -> float:
        """The deadline has come as soon as the child hangs, and no sooner."""
        return 1.0 if pids.read_text() else 0.0

    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))

    def hang() -> str:
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)
        other = os.fork()
        if other:
            pids.write_text(f"{os.getpid()} {other}")
        signal.pause()
        return ""

    started = time.monotonic()
    with pytest.raises(ChildError, match=r"^was not done within 0\.5 s$"):
        run_in_child(hang, 0.5)
    assert time.monotonic() - started < AT_ONCE
    wait_until(lambda: all(ended(int(pid)) for pid in pids.read_text().split()), what="their end")


def test_what_a_child_leaves_behind_does_not_hold_the_master_up(tmp_path: Path) -> None:
    """A process that it has forked holds the pipe open: the report counts, and that one ends."""
    pid = tmp_path / "pid"

    def work() -> str:
        other = os.fork()
        if not other:
            signal.pause()
        pid.write_text(str(other))
        return "done"

    started = time.monotonic()
    assert run_in_child(work, 30) == "done"
    assert time.monotonic() - started < AT_ONCE
    wait_until(lambda: ended(int(pid.read_text())), what="its end")


def test_a_system_that_reaps_by_itself() -> None:
    """Where SIGCHLD is ignored, nobody knows how a child ended: what it said counts."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run_in_child(lambda: "done", 10) == "done"
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_no_descriptor_is_left() -> None:
    """Both ends of the pipe are closed, whatever came of the child."""
    before = len(os.listdir("/proc/self/fd"))
    run_in_child(lambda: "done", 10)
    with pytest.raises(ChildError):
        run_in_child(lambda: "", 10)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("number", "status"), [(15, 115), (2, 102), (9, -9)])
def test_the_end_of_the_master_is_that_of_the_child(number: int, status: int) -> None:
    """Told to stop, the master ends its child and itself at once; killed, it takes it along."""
    with subprocess.Popen(
        # Killed, the master can end its child and not what that has started.
        [sys.executable, "-c", HANGING, *["and one more"] * (number != signal.SIGKILL)],
        stdout=subprocess.PIPE,
        text=True,
    ) as master:
        assert master.stdout is not None
        pid = int(master.stdout.readline())
        master.send_signal(number)
        assert master.wait(AT_ONCE) == status
        wait_until(lambda: ended(pid), what="the child's end")


def test_only_the_first_signal_counts() -> None:
    """A second one does not disturb the end; afterwards all is as it was."""
    before = [signal.getsignal(number) for number in (*ENDS, signal.SIGHUP)]
    with ending(lambda number: 100 + number):
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert caught.value.code == 115
    assert [signal.getsignal(number) for number in (*ENDS, signal.SIGHUP)] == before


def test_signals_for_a_running_server_are_kept() -> None:
    """They don't end a server that is about to start."""
    with ending(lambda number: number) as kept:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP):
            signal.raise_signal(number)
    assert kept == [signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP]


def test_a_child_whose_parent_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by itself: the system would tell it nothing any more."""
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(ChildError, match=r"^ended with status 1$"):
        run_in_child(lambda: "done", 10)

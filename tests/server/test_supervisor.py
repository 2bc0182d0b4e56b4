"""Tests of genwsgi.server.supervisor."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.server import supervisor
from genwsgi.server.supervisor import CoordinatorProcess
from tests.helpers import wait_until

LOG = logging.getLogger("tests.supervisor")

#: A coordinator that writes down what it reads, until the pipe or a SIGUSR1 ends it.
READER = """\
import os, sys, signal
place, pipe = os.getcwd(), int(sys.argv[1])
assert sys.stdin.read() == "what it is told"
signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
open(os.path.join(place, "begun"), "a").write("!")
while data := os.read(pipe, 100):
    open(os.path.join(place, "read"), "ab").write(data)
"""


class Clock:
    """A monotonic clock that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told(io.BytesIO):
    """A pipe that keeps what was written when it is closed."""

    text = b""

    def close(self) -> None:
        self.text = self.getvalue()
        super().close()


class FakeProcess:
    """A process that runs until it is told that it has died."""

    made: list[FakeProcess]
    pid = 4711

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command = command
        self.options = options
        self.dead = False
        self.stdin = Told()
        self.made.append(self)

    def poll(self) -> int | None:
        return 1 if self.dead else None


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    """A coordinator that has not been started."""
    made = CoordinatorProcess(b"what it is told", str(tmp_path), LOG, label="of shop")
    yield made
    try:
        made.stop()
    except OSError:
        pass  # the test has closed the pipe


@pytest.fixture
def real(coordinator: CoordinatorProcess, monkeypatch: pytest.MonkeyPatch) -> CoordinatorProcess:
    """A coordinator whose process only reads, and ends by itself however slow the machine is."""
    monkeypatch.setattr(supervisor, "_BOOT", READER)
    monkeypatch.setattr(supervisor, "END", 30.0)
    return coordinator


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Fake processes, and a clock for when they are started."""
    clock = Clock()
    FakeProcess.made = []
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(subprocess, "Popen", FakeProcess)
    return clock


def test_one_is_started_as_a_fresh_isolated_interpreter(
    coordinator: CoordinatorProcess, clock: Clock, tmp_path: Path
) -> None:
    """The first ``ensure`` starts one, in a session of its own; the next leave it alone."""
    assert coordinator.pid is None
    coordinator.ensure()
    coordinator.ensure()
    (process,) = FakeProcess.made
    assert coordinator.pid == process.pid
    assert process.command[:3] == [sys.executable, "-I", "-c"]
    assert process.options["pass_fds"] == [int(process.command[4])]
    assert process.command[5] == "of shop"
    assert process.options["cwd"] == str(tmp_path)
    assert process.stdin.text == b"what it is told"
    assert process.options["start_new_session"] is True
    coordinator._process = None


def test_one_that_keeps_dying_is_started_less_and_less_often(
    coordinator: CoordinatorProcess, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The pauses grow up to five seconds; one that has lived for long is replaced at once."""
    coordinator.ensure()
    pauses = []
    for count in range(2, 9):
        FakeProcess.made[-1].dead = True
        died = clock.now
        coordinator.ensure()
        while len(FakeProcess.made) < count:
            clock.now += 0.1
            coordinator.ensure()
        pauses.append(round(clock.now - died, 1))
    assert pauses == pytest.approx([0.2, 0.6, 1.4, 3.0, 5.0, 5.0, 5.0], abs=0.11)
    clock.now += 5.1
    FakeProcess.made[-1].dead = True
    coordinator.ensure()
    assert len(FakeProcess.made) == 9
    assert caplog.messages.count("the coordinator (pid 4711) has died") == 8
    coordinator._process = None


def test_a_system_that_has_no_process_left_does_not_end_the_master(
    coordinator: CoordinatorProcess,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When the process can't be started that is logged once, and tried again after a pause."""

    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        coordinator.ensure()
        clock.now += 5.1
        coordinator.ensure()
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith("no coordinator can be started: Resource temporarily unavailable; raise")
    coordinator.ensure()
    assert FakeProcess.made == []
    clock.now += 5.1
    coordinator.ensure()
    assert len(FakeProcess.made) == 1
    coordinator._process = None


def test_an_order_that_nobody_read_is_read_by_the_next(
    real: CoordinatorProcess, tmp_path: Path
) -> None:
    """A SIGHUP of the time without a coordinator is not lost."""
    real.hang_up()
    real.ensure()
    wait_until((tmp_path / "read").exists, what="the order")
    wait_until(lambda: (tmp_path / "read").read_bytes() == b"H", what="the order")


def test_hanging_up_never_waits(coordinator: CoordinatorProcess) -> None:
    """More orders than the pipe holds do not block the master."""
    for _ in range(70_000):
        coordinator.hang_up()


def test_stop_ends_it_by_its_pipe(real: CoordinatorProcess, tmp_path: Path) -> None:
    """The coordinator ends by itself when the pipe does."""
    real.ensure()
    process = real._process
    assert process is not None
    wait_until((tmp_path / "begun").exists, what="the process")
    real.stop()
    assert process.returncode == 0


def test_stop_kills_one_that_does_not_end(
    coordinator: CoordinatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that hangs is killed after a moment."""
    monkeypatch.setattr(supervisor, "_BOOT", "import signal; signal.pause()")
    monkeypatch.setattr(supervisor, "END", 0.2)
    coordinator.ensure()
    process = coordinator._process
    assert process is not None
    monkeypatch.setattr(process, "wait", _patiently(process))
    coordinator.stop()
    assert process.returncode == -signal.SIGKILL


def _patiently(process: subprocess.Popen[bytes]) -> Any:
    """Wait as long as told for its own end, and long enough for that of a killed one."""
    wait, times = process.wait, iter([0.2, 10.0])
    return lambda _: wait(next(times))


def test_signals_are_passed_on(real: CoordinatorProcess, tmp_path: Path) -> None:
    """What the master passes on arrives; without a process there is nobody to tell."""
    real.signal(signal.SIGUSR1)
    real.ensure()
    wait_until((tmp_path / "begun").exists, what="the process")
    process = real._process
    assert process is not None
    real.signal(signal.SIGUSR1)
    assert process.wait(10) == 7


def test_a_forked_worker_lets_go_of_the_pipe(coordinator: CoordinatorProcess) -> None:
    """After ``forget`` both ends are closed here, so that the pipe ends with the master."""
    coordinator.forget()
    for descriptor in (coordinator._read, coordinator._write):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_the_application_hides_no_standard_module(tmp_path: Path) -> None:
    """A ``queue.py`` of the application is not what the coordinator imports.

    Nor is what gunicorn takes where it finds it, whoever may have put it there.
    """
    for name in ("json", "queue", "selectors", "logging", "setproctitle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken for another one')\n")
    done = subprocess.run(
        [sys.executable, "-I", "-c", supervisor._BOOT, "0"],
        cwd=tmp_path,
        input=json.dumps({"boot_path": sys.path, "sys_path": [str(tmp_path), *sys.path]}),
        capture_output=True,
        text=True,
        check=False,
    )
    # It came as far as reading its settings.
    assert done.stderr.splitlines()[-1] == "KeyError: 'run_dir'"

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import __main__ as command
from tests import jobs
from tests.jobs import Job, run_all
from tests.pythons import Pythons

#: Leaves a mark that it has begun, says so to whoever reads one pipe, waits until something is said
#: in another, and leaves another mark when it is interrupted.
STOPPABLE = """\
import os, sys
mine, other = (os.open(path, os.O_RDWR) for path in sys.argv[1:])
try:
    open(sys.argv[1] + ".begun", "w").close()
    os.write(mine, b"!")
    os.read(other, 1)
except KeyboardInterrupt:
    open(sys.argv[1] + ".ended", "w").close()
"""

#: Can't be interrupted.
STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + STOPPABLE


def python(name: str, code: str, *arguments: Path, **env: str) -> Job:
    """A job that runs ``code``."""
    return Job(name, (sys.executable, "-c", code, *arguments), env)


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Jobs can be interrupted, also where a shell that runs this in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pipes(folder: Path, *names: str) -> list[Path]:
    """Make named pipes."""
    made = [folder / name for name in names]
    for path in made:
        os.mkfifo(path)
    return made


def names(done: Sequence[jobs.Done]) -> list[str]:
    """What has ended, in that order."""
    return [one.job.name for one in done]


def test_so_many_run_at_a_time(tmp_path: Path) -> None:
    """Two run side by side, the others after them, and each is told of when it ends."""
    one, other = pipes(tmp_path, "one", "other")
    both = [python("one", STOPPABLE, one, other), python("other", STOPPABLE, other, one)]
    last = python(
        "last", "import sys, os; sys.exit(not os.path.exists(sys.argv[1] + '.begun'))", other
    )
    done = list(run_all([*both, last], 2))
    assert {one.status for one in done} == {0}
    assert sorted(names(done)) == ["last", "one", "other"]
    assert names(list(run_all([last, last], 1))) == ["last", "last"]


def test_what_a_job_prints(tmp_path: Path) -> None:
    """Its output comes in one piece with its errors, its name and how it went."""
    code = "import os, sys; print(os.environ['WORD'], flush=True); sys.exit('and why')"
    (done,) = run_all([python("job", code, WORD="text")], 2)
    assert done.status == 1
    text, seconds = str(done).rsplit(", ", 1)
    assert text == "text\nand why\n-- job: FAILED"
    assert seconds.endswith(" s")


def stand_until_begun(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the time of jobs stand still until that of ``pipe`` has begun; then a minute is over."""
    mark = Path(f"{pipe}.begun")
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: 60.0 * mark.exists()))


@pytest.mark.parametrize("code", [STOPPABLE, STUBBORN])
def test_a_job_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """One that does not end in time is interrupted, killed if it has to be, and others go on."""
    monkeypatch.setattr(jobs, "DEADLINE", 0.05)
    if code is STUBBORN:
        monkeypatch.setattr(jobs, "GRACE", 1.5)
    mine, never = pipes(tmp_path, "mine", "never")
    stand_until_begun(mine, monkeypatch)
    hanging = python("hanging", code, mine, never)
    done = list(run_all([hanging, python("next", "")], 1))
    assert names(done) == ["hanging", "next"]
    assert (tmp_path / "mine.ended").exists() == (code is STOPPABLE)
    assert (done[0].status < 0) == (code is STUBBORN)


def test_a_deadline_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may have another deadline than the others have."""
    mine, never = pipes(tmp_path, "mine", "never")
    stand_until_begun(mine, monkeypatch)
    waits = python("waits", STOPPABLE, mine, never)
    (done,) = run_all([replace(waits, deadline=0.05)], 1)
    assert done.seconds < jobs.DEADLINE / 10
    assert (tmp_path / "mine.ended").exists()


def test_one_cpython_is_not_enough_for_a_change_that_lands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said before anything is run, with the next step; without CI one is enough."""
    only = Pythons("3.13", {"3.13": sys.executable})
    monkeypatch.setattr(command, "find", lambda: only)
    monkeypatch.setattr(command, "run", lambda *_: pytest.fail("it runs"))
    monkeypatch.setattr(sys, "argv", ["tests"])
    monkeypatch.setenv("CI", "true")
    assert command.main() == 1
    assert "install another CPython of 3.10 to 3.13" in capsys.readouterr().err
    two = Pythons("3.13", {**only.found, "3.10": "python3.10"})
    assert not command.lacking(two)
    monkeypatch.delenv("CI")
    assert not command.lacking(only)


def test_an_interrupt_ends_all(tmp_path: Path) -> None:
    """Who stops asking, as an interrupt makes one do, has what runs interrupted, to its end."""
    mine, never = pipes(tmp_path, "mine", "never")
    hears = "import os, sys; os.read(os.open(sys.argv[1], os.O_RDWR), 1)"
    waiting = [
        python("first", hears, mine),
        python("hanging", STOPPABLE, mine, never),
        python("later", "open(__import__('sys').argv[1], 'w')", tmp_path / "later"),
    ]
    with closing(run_all(waiting, 2)) as done:
        assert next(done).job.name == "first"
    assert (tmp_path / "mine.ended").exists()
    assert not (tmp_path / "later").exists()

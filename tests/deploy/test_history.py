"""The history of orders: a file that outlives servers, and never stands in their way."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from genwsgi.deploy import history
from genwsgi.deploy.control import HistoryEntry
from genwsgi.deploy.history import LENGTH, History, give_state, state_folder
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import OrderOutcome, Outcome
from tests.deploy.real import LOG, release


class Kept:
    """A history in ``folder``, and its problems."""

    def __init__(self, folder: Path | None) -> None:
        self.problems = ProblemBook(LOG)
        self.history = History(None if folder is None else str(folder), self.problems, LOG)

    def add(self, name: str, outcome: str = Outcome.COMMITTED, time: float = 0.0) -> None:
        """Note the outcome of the order ``name``."""
        ended = OrderOutcome(name, outcome, 2, "why", "Traceback", 0.5, 3)
        about = release(2) if outcome == Outcome.COMMITTED else None
        self.history.add(ended, "ctl", "by hand", about, time)

    def orders(self, count: int = LENGTH) -> list[str]:
        """The orders in it, the latest first."""
        return [entry.order for entry in self.history.latest(count)]


def test_entries_outlive_the_server(tmp_path: Path) -> None:
    """What is noted is there for the next one, the latest first, and only for this user."""
    kept = Kept(tmp_path / "state")
    kept.history.begin(release(1))
    kept.add("a")
    kept.add("b", Outcome.FAILED)
    again = Kept(tmp_path / "state")
    assert again.orders() == ["b", "a", ""]
    assert again.orders(1) == ["b"]
    assert again.orders(0) == []
    assert again.history.latest(2)[1] == HistoryEntry(
        0.0, "a", "ctl", "by hand", "committed", "why", 0.5, 2, "code2", (), 3
    )
    assert os.stat(tmp_path / "state").st_mode & 0o077 == 0
    assert os.stat(tmp_path / "state" / "history").st_mode & 0o077 == 0
    assert os.listdir(tmp_path / "state") == ["history"]


def test_a_start_is_noted_once(tmp_path: Path) -> None:
    """A coordinator that is started again, or later, does not begin the history anew."""
    for _ in range(2):
        Kept(tmp_path).history.begin(release(1))
    Kept(tmp_path).history.begin(release(2))
    Kept(tmp_path).history.begin(replace(release(1), created=2000.0))
    assert [entry.time for entry in Kept(tmp_path).history.latest()] == [2000.0, 1000.5]


def test_only_the_latest_stay(tmp_path: Path) -> None:
    """Of very many orders the latest are kept, here and on disk."""
    kept = Kept(tmp_path)
    for number in range(LENGTH + 3):
        kept.add(str(number), time=float(number))
    assert kept.orders() == Kept(tmp_path).orders()
    assert len(kept.orders()) == LENGTH
    assert kept.orders()[0] == str(LENGTH + 2)


def test_two_servers_of_one_application_share_it(tmp_path: Path) -> None:
    """What another coordinator has noted meanwhile stays."""
    one, other = Kept(tmp_path), Kept(tmp_path)
    one.add("a", time=1.0)
    other.add("b", time=2.0)
    one.add("c", time=3.0)
    assert one.orders() == ["c", "b", "a"]


def test_servers_write_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two servers that note something at the same time neither loses the other's entry."""
    monkeypatch.setattr(history, "_PATIENCE", 30.0)
    one, other = Kept(tmp_path), Kept(tmp_path)
    waits = threading.Event()
    thread = threading.Thread(target=other.add, args=("b",), kwargs={"time": 2.0})
    locked, write = history._locked, History._write

    def seen(descriptor: int) -> bool:
        got = locked(descriptor)
        if not got:
            waits.set()
        return got

    def written(self: History, path: str) -> None:
        if self is one.history:
            thread.start()
            assert waits.wait(30)
        write(self, path)

    monkeypatch.setattr(history, "_locked", seen)
    monkeypatch.setattr(History, "_write", written)
    one.add("a", time=1.0)
    thread.join(30)
    assert Kept(tmp_path).orders() == ["b", "a"]


def test_a_server_that_hangs_while_it_writes_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another one does with the folder, an entry is written after a moment."""
    monkeypatch.setattr(history, "_PATIENCE", 0.01)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    kept = Kept(tmp_path)
    kept.add("a")
    assert Kept(tmp_path).orders() == ["a"]
    os.close(descriptor)


def test_damaged_lines_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no entry costs only itself, and one line of the log names the file and the first."""
    kept = Kept(tmp_path)
    kept.add("a")
    kept.add("b")
    lines = (tmp_path / "history").read_text().splitlines()
    damaged = json.dumps({**json.loads(lines[0]), "seconds": "soon"})
    (tmp_path / "history").write_text("\n".join([lines[0][:40], damaged, lines[1], "[]"]))
    assert Kept(tmp_path).orders() == ["b"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(
        f"{tmp_path}/history: lines that are passed over, for they are damaged: 3; the first is "
        "line 1: "
    )


@pytest.mark.parametrize(
    ("field", "value"), [("time", 1e18), ("time", -1.0), ("reason", "x" * 21_000)]
)
def test_what_can_not_be_shown_is_damaged(tmp_path: Path, field: str, value: object) -> None:
    """No line of the file keeps the others from being told."""
    kept = Kept(tmp_path)
    kept.add("a")
    kept.add("b")
    one, other = (tmp_path / "history").read_text().splitlines()
    one = json.dumps({**json.loads(one), field: value})
    (tmp_path / "history").write_text(f"{one}\n{other}\n")
    assert Kept(tmp_path).orders() == ["b"]


def test_what_can_not_be_written_is_a_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A place that can't be written, or read, is a problem until it can; the memory is here."""
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    kept = Kept(tmp_path / "file" / "state")
    kept.add("a")
    kept.add("b")
    assert "history" in kept.problems
    assert "give another --state-dir" in kept.problems.now[0].text
    assert kept.orders() == ["b", "a"]
    (tmp_path / "file").unlink()
    kept.add("c")
    assert "history" not in kept.problems
    assert Kept(tmp_path / "file" / "state").orders() == ["c", "b", "a"]
    (tmp_path / "folder" / "history").mkdir(parents=True)
    unread = Kept(tmp_path / "folder")
    assert "can't be read" in unread.problems.now[0].text
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "history")
    unread = Kept(tmp_path / "pipe")
    assert "it is no regular file" in unread.problems.now[0].text
    (tmp_path / "new").symlink_to("/proc/nowhere")
    unwritten = Kept(tmp_path / "new" / "state")
    unwritten.add("a")
    assert "give a writable --state-dir" in unwritten.problems.now[0].text


def test_without_a_place_it_is_only_here() -> None:
    """A history that is given no folder is kept in memory."""
    kept = Kept(None)
    kept.add("a")
    assert kept.orders() == ["a"]


def test_how_an_order_ended_is_known_again(tmp_path: Path) -> None:
    """An order that a client gives again, after the coordinator has died, has its outcome."""
    Kept(tmp_path).add("a")
    history = Kept(tmp_path).history
    assert history.outcome("a") == OrderOutcome("a", "committed", 2, "why", "", 0.5, 3)
    assert history.outcome("b") is None


def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The option decides, then systemd, then the desktop's convention; the name tells whose."""
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/shop")

    def found(asked: str | None = None, **more: bool) -> tuple[str, str]:
        folder, _, name = state_folder(asked, "shop.site:make('x')", "/srv", **more).rpartition("/")
        return folder, name

    folder, name = found()
    assert folder == "/home/shop/.local/state/genwsgi"
    assert name.startswith("shop-site-make-x-")
    assert state_folder(None, "shop.site:make('x')", "/srv/two") != f"{folder}/{name}"
    assert found(shared=True) == ("/var/lib/genwsgi", name)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert found() == ("/state/genwsgi", name)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/shop:/var/lib/other")
    assert found() == ("/var/lib/shop", name)
    assert found("/mine", shared=True) == ("/mine", name)


def test_a_place_for_another_user(tmp_path: Path) -> None:
    """The folder is made for whom the workers run as; where it can't be, nothing breaks."""
    give_state(str(tmp_path / "a" / "b"), os.geteuid(), os.getegid())
    assert os.stat(tmp_path / "a" / "b").st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    give_state(str(tmp_path / "file" / "b"), os.geteuid(), os.getegid())

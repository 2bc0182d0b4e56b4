"""Tests of genwsgi.deploy.upkeep."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import Release
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.upkeep import Upkeep
from genwsgi.isolation.scope import ScopeRules, find_scope
from genwsgi.isolation.store import Store

LOG = logging.getLogger("tests.upkeep")
FULL = OSError(errno.ENOSPC, "No space left on device")


class Host:
    """A coordinator's upkeep, and what it looks after."""

    def __init__(self, base: Path) -> None:
        self.code = base / "code"
        self.code.mkdir()
        (self.code / "shop.py").write_text("V = 1\n")
        self.directory = RunDirectory.create(str(base / "run"))
        self.store = Store(self.directory.store)
        self.release = Release(1, self.take(), "start", "", 0.0)
        self.problems = ProblemBook(LOG)
        self.recovered = 0
        self.refused: OSError | None = None
        self.socket: socket.socket | None = None
        self.upkeep = Upkeep(
            self.directory, self.store, self.problems, self.rewrite, self.note_recovery
        )
        self.upkeep.remember([self.release.digest])
        self.rewrite()

    def take(self) -> str:
        """A snapshot of the code as it is now."""
        path = (str(self.code),)
        return self.store.take(find_scope(ScopeRules("shop", path, path, (), ())))

    def rewrite(self) -> None:
        """What a coordinator does: the committed release and its socket."""
        if self.refused is not None:
            raise self.refused
        self.directory.record(self.release)
        if self.socket is not None:
            self.socket.close()
        Path(self.directory.socket).unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.directory.socket)
        self.upkeep.listening()

    def note_recovery(self) -> None:
        self.recovered += 1

    def look(self) -> list[str]:
        """Look, and return the names of what is wrong."""
        self.upkeep.look(100.0, self.release)
        return [problem.name for problem in self.problems.now]


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on which all is well."""
    # Short, because a unix socket's path must be.
    with tempfile.TemporaryDirectory(prefix="gw") as base:
        made = Host(Path(base))
        assert made.look() == []
        yield made
        assert made.socket is not None
        made.socket.close()


@pytest.mark.parametrize("name", ["coordinator.sock", "committed", "serving", "store"])
def test_what_is_deleted_is_made_again(
    host: Host, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What somebody deletes in the run directory is there again after one look; both are told."""
    caplog.set_level(logging.INFO)
    path = Path(host.directory.path, name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert host.look() == []
    assert path.exists()
    assert host.directory.committed() == host.release
    snapshot = host.store.open(host.release.digest)
    assert snapshot.source(str(host.code / "shop.py")) == b"V = 1\n"
    snapshot.release()
    begun, ended = (record.getMessage() for record in caplog.records)
    assert "was deleted, or something in it" in begun
    assert ended == f"run directory {host.directory.path} is there again"
    assert host.recovered == 1
    assert host.look() == []
    assert host.recovered == 1


def test_a_directory_is_waited_for(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Until the master has made it again the directory is a problem, and then it is filled."""
    shutil.rmtree(host.directory.path)
    assert host.look() == host.look() == ["run-directory"]
    host.directory.restore(os.geteuid(), os.getegid(), "shop")
    assert host.look() == []
    assert len(caplog.records) == 1


def test_another_socket_in_place_of_ours_is_replaced(host: Host) -> None:
    """A socket that somebody else has put there is not the one that clients are to find."""
    os.unlink(host.directory.socket)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(host.directory.socket)
        assert host.look() == []
        with socket.socket(socket.AF_UNIX) as client:
            assert host.socket is not None
            host.socket.listen()
            client.connect(host.directory.socket)


def test_what_can_not_be_written_yet_is_tried_again(host: Host) -> None:
    """A directory that is there and can't be filled stays a problem until it can."""
    os.unlink(host.directory.socket)
    host.refused = FULL
    assert host.look() == ["run-directory"]
    host.refused = None
    assert host.look() == []


def test_lost_source_is_named(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Source that the disk has no more is lost, and named, until other code is committed."""
    (host.code / "shop.py").write_text("V = 2\n")
    shutil.rmtree(host.directory.store)
    assert host.look() == host.look() == ["snapshot"]
    assert f"of the committed release is lost: {host.code / 'shop.py'}; what" in caplog.text
    host.release = Release(2, host.take(), "watch", "", 0.0)
    host.upkeep.remember([host.release.digest])
    assert host.look() == []


def test_a_full_disk_is_over_when_there_is_room(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full is one problem, however often it is met, until a release would fit."""
    caplog.set_level(logging.INFO)
    asked: list[int] = []

    def try_to_write(size: int) -> None:
        asked.append(size)
        if len(asked) == 1:
            raise FULL

    monkeypatch.setattr(host.directory, "try_to_write", try_to_write)
    host.upkeep.failed(FULL)
    host.upkeep.failed(FULL)
    assert host.look() == ["disk"]
    assert host.look() == []
    assert min(asked) > 1 << 20
    begun, ended = (record.getMessage() for record in caplog.records)
    assert "can't be written: No space left on device; make room; until it can" in begun
    assert ended == f"run directory {host.directory.path} can be written again"
    assert host.recovered == 1


def test_deploys_that_fail_again_are_tried_less_often(host: Host) -> None:
    """Where there seems to be room and is not, the pauses grow, and are short after a while."""
    moments = []
    for second in range(1000, 1200):
        host.upkeep.failed(FULL)
        host.upkeep.look(float(second), host.release)
        if "disk" not in host.problems:
            moments.append(second)
    assert moments == [1000, 1002, 1006, 1014, 1030, 1062, 1122, 1182]
    host.upkeep.look(2000.0, host.release)
    host.upkeep.failed(FULL)
    host.upkeep.look(2001.0, host.release)
    host.upkeep.failed(FULL)
    host.upkeep.look(2004.0, host.release)
    assert "disk" not in host.problems


def test_room_is_tried_by_writing(host: Host) -> None:
    """Nothing is left of what is written to see whether there is room."""
    host.directory.try_to_write(1 << 20)
    assert set(os.listdir(host.directory.path)) == {
        "lock",
        "committed",
        "coordinator.sock",
        "serving",
        "store",
    }


def test_no_descriptors_are_a_problem_until_there_are(host: Host) -> None:
    """A coordinator that can open nothing says so, until it can open a few at once."""
    host.upkeep.failed(OSError(errno.EMFILE, "Too many open files"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 20, before[1]))
    try:
        assert host.look() == ["descriptors"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert host.look() == []
    assert host.recovered == 1


def test_a_file_that_is_gone_calls_for_a_look(host: Host) -> None:
    """What can't be written for want of its folder is no full disk: the directory is looked at."""
    host.look()
    host.upkeep.failed(FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert host.upkeep.due == 0.0
    assert host.look() == []

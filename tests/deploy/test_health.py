"""Tests of genwsgi.deploy.health and genwsgi.deploy.descriptors."""

from __future__ import annotations

import logging
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.deploy.descriptors import has_spare
from genwsgi.deploy.health import Health
from genwsgi.deploy.rundir import RunDirectory

LOG = logging.getLogger("tests.health")


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run directory, as much of one as a worker needs."""
    made = RunDirectory(str(tmp_path))
    made.make_folders()
    return made


@pytest.fixture
def limit() -> Iterator[None]:
    """The limit of descriptors is as it was when the test has ended."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def leave(count: int) -> None:
    """Leave ``count`` descriptors to this process."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    for one in opened:
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened) + 1, most))


@pytest.mark.usefixtures("limit")
def test_spare_descriptors_are_counted() -> None:
    """As many can be opened as are left, and all are closed again."""
    leave(20)
    for _ in range(2):
        assert has_spare(20)
        assert not has_spare(21)


@pytest.mark.usefixtures("limit")
def test_who_counts_spare_descriptors_takes_none() -> None:
    """A thread that needs one of the last has it, however often others look how many are left."""
    leave(3)

    def look() -> None:
        for _ in range(20_000):
            has_spare(20)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        while looking.is_alive():
            os.close(os.open(os.devnull, os.O_RDONLY))
    finally:
        looking.join(60)


@pytest.mark.usefixtures("limit")
def test_few_descriptors_are_a_problem(
    directory: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """A shortage is told when it begins, and its end only when it will not come back at once."""
    caplog.set_level(logging.INFO)
    health = Health(directory, LOG)

    def look() -> list[str]:
        health.due = 0.0
        health.look()
        return [problem.name for problem in health.problems.now]

    assert look() == []
    leave(15)
    assert look() == look() == ["descriptors"]
    leave(31)
    assert look() == ["descriptors"]
    leave(50)
    assert look() == []
    begun, ended = (record.getMessage() for record in caplog.records)
    assert "fewer than 16 of its" in begun
    assert "raise `ulimit -n`" in begun
    assert ended == "this worker has file descriptors left again"


def test_looks_are_seconds_apart(directory: RunDirectory) -> None:
    """A look that is not due costs nothing."""
    health = Health(directory, LOG)
    health.look()
    due = health.due
    health.look()
    assert health.due == due


def test_only_news_is_told(directory: RunDirectory) -> None:
    """The coordinator hears what has changed, and all that there is on a new connection."""
    health = Health(directory, LOG)
    assert health.news() is None
    health.problems.begin("release", "it can't be built")
    told = health.news()
    assert told is not None
    assert told.problems[0].pid == os.getpid()
    assert health.news() is None
    assert health.news(anew=True) == told
    health.problems.end("release")
    told = health.news()
    assert told is not None
    assert told.problems == ()


def test_that_it_serves_is_noted_again(directory: RunDirectory) -> None:
    """A note that can't be made, or that somebody has deleted, is made at a later look."""
    health = Health(directory, LOG)
    folder = Path(directory.path, "serving")
    folder.rmdir()
    health.begin_serving()
    assert not directory.serves(os.getpid())
    folder.mkdir()
    health.look()
    assert directory.serves(os.getpid())
    health.end_serving()
    health.due = 0.0
    health.look()
    assert not directory.serves(os.getpid())


def test_who_ends_just_as_it_looks_serves_no_more(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker ends on another thread than the one that makes the note again."""
    health = Health(directory, LOG)
    health.begin_serving()

    def ended_meanwhile(_pid: int) -> bool:
        health.end_serving()
        return False

    with monkeypatch.context() as patch:
        patch.setattr(directory, "serves", ended_meanwhile)
        health.look()
    assert directory.serving() == frozenset()

"""What is wrong now: told once when it begins, once when it ends, and listed meanwhile."""

from __future__ import annotations

import itertools
import logging

import pytest

from genwsgi.deploy.problems import LONGEST, ProblemBook
from genwsgi.deploy.protocol import Problem

LOG = logging.getLogger("test.problems")


@pytest.fixture
def book(caplog: pytest.LogCaptureFixture) -> ProblemBook:
    """The book of worker 7, whose clock ticks once with each look."""
    caplog.set_level(logging.INFO, LOG.name)
    clock = itertools.count(100.0)
    return ProblemBook(LOG, 7, lambda: next(clock))


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What the log has, with the levels."""
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_told_once_and_listed(book: ProblemBook, caplog: pytest.LogCaptureFixture) -> None:
    """A problem that is found again and again is one line of the log, and keeps its beginning."""
    for text in ("the disk is full", "the disk is still full"):
        book.begin("disk", text)
    assert told(caplog) == [("ERROR", "the disk is full")]
    assert book.now == (Problem("disk", "the disk is full", 100.0, 7),)
    assert "disk" in book
    assert repr(book) == "<ProblemBook disk>"


def test_its_end_is_told(book: ProblemBook, caplog: pytest.LogCaptureFixture) -> None:
    """The end of a problem is told once, and what was never wrong is not said to be right."""
    book.end("disk", "there is room again")
    book.begin("disk", "the disk is full")
    book.begin("watch", "no watches left")
    for _ in range(2):
        book.end("disk", "there is room again")
    assert told(caplog)[2:] == [("INFO", "there is room again")]
    assert [problem.name for problem in book.now] == ["watch"]


def test_what_others_have_told(book: ProblemBook, caplog: pytest.LogCaptureFixture) -> None:
    """A problem that its finder has logged is only listed, with the text that it has now."""
    book.begin("amqp", "refused", logged=True)
    book.begin("amqp", "no such host", logged=True)
    assert book.now == (Problem("amqp", "no such host", 100.0, 7),)
    book.end("amqp")
    assert not book.now
    assert told(caplog) == []


def test_long_texts_are_cut(book: ProblemBook) -> None:
    """A status has to hold all problems, so that the text of one is cut."""
    book.begin("disk", "x" * 10 * LONGEST)
    assert len(book.now[0].text) <= LONGEST

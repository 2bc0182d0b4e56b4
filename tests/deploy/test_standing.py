"""Tests of genwsgi.deploy.standing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwsgi.deploy.framing import clean
from genwsgi.deploy.protocol import OrderOutcome, Outcome, Problem, Release
from genwsgi.deploy.standing import LONGEST, Word, decode, in_brief

RELEASE = Release(3, "0123456789abcdef", "watch", "changed: a.py", 0.0)


def outcome(kind: str, reason: str = "") -> OrderOutcome:
    return OrderOutcome("o1", kind, 3, reason, "", 0.1)


def test_it_says_what_serves_and_how_the_last_order_ended():
    """The line names the release, the workers and the last outcome with its reason."""
    word = in_brief(RELEASE, 2, last=outcome(Outcome.FAILED, "no module x"))
    assert word == Word("", "release 3-01234567 on 2 workers; last order: failed: no module x")


def test_it_says_what_is_being_deployed():
    """While a deploy runs the word names its order, and the line does."""
    word = in_brief(RELEASE, 1, deploying="o2", last=outcome(Outcome.COMMITTED))
    assert word == Word("o2", "release 3-01234567 on 1 worker; deploying for order o2")


def test_an_order_that_changed_nothing_is_not_news():
    """The look at the files with which a start begins is not to be read for days."""
    assert in_brief(RELEASE, 2, last=outcome(Outcome.UNCHANGED, "is this code already")).text == (
        "release 3-01234567 on 2 workers"
    )


def test_it_says_what_is_wrong():
    """Problems stand at the end, each kind once."""
    kinds = ("disk-full", "descriptors", "disk-full")
    problems = [Problem(name, "what to do", 0.0, pid) for pid, name in enumerate(kinds)]
    word = in_brief(RELEASE, 2, problems=problems)
    assert word.text.endswith("2 workers; problems: disk-full, descriptors")


@given(st.text(st.characters()))
def test_it_is_one_line_that_fits(reason):
    """Whatever an application has raised, or files are called, makes one line of UTF-8.

    A pipe takes it whole.
    """
    word = in_brief(RELEASE, 2, last=outcome(Outcome.FAILED, reason + "x" * 400))
    assert word.text.splitlines() == [word.text]
    assert word.text.isprintable()
    assert word.text.encode()
    assert len(word.text) <= LONGEST
    assert len(word.encode()) <= 4096


@given(st.text(), st.text(max_size=LONGEST))
def test_a_word_is_read_as_it_was_said(order, text):
    """What is encoded is one line, and reads as it was, but for white space in the text."""
    line = Word(order, text).encode()
    assert line.count(b"\n") == 1
    assert decode(line) == Word(order, " ".join(clean(text).split()))


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"1", b'{"order": ""}', b"\xff", b"[" * 10**6])
def test_what_is_no_word_is_none(line):
    """The master survives whatever the workers' user may write into the pipe."""
    assert decode(line) is None

"""Tests of genwsgi.ctl.words."""

from __future__ import annotations

import pytest

from genwsgi.ctl.words import counted, moment, size, span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.0314, "0.031 s"),
        (4.25, "4.2 s"),
        (60, "1 min"),
        (200.9, "3 min 20 s"),
        (3600, "1 h"),
        (7325, "2 h 2 min"),
        (86400 * 3 + 3600 * 4, "3 d 4 h"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float | None, words: str):
    """As exact as anybody wants to know it."""
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (48_300_000, "48.3 MB"),
        (2 * 10**9, "2.0 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_a_size_has_one_unit(count: int | None, words: str):
    """Powers of a thousand, as SI has them."""
    assert size(count) == words


def test_a_moment_is_shown_in_the_zone_of_who_looks(monkeypatch: pytest.MonkeyPatch):
    """As the log shows it."""
    assert len(moment(0.0)) == len("1970-01-01 00:00:00")


def test_one_is_no_plural():
    """1 worker, 2 workers."""
    assert (counted(1, "worker"), counted(2, "worker")) == ("1 worker", "2 workers")

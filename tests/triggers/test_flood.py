"""When so many events come that some may be lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genwsgi.triggers.flood import KEPT, PART, PATIENCE, QUIET, Flood

MANY = KEPT // PART + 1


def test_many_events_at_once_are_a_flood_that_is_over_once():
    """It is told when it has been quiet for a while, and not again."""
    flood = Flood()
    for _ in range(MANY):
        flood.note(100.0)
    assert not flood.over(100.0 + QUIET / 2)
    assert flood.over(100.0 + QUIET)
    assert not flood.over(200.0)


def test_fewer_events_are_no_flood():
    """As many as a deploy of files makes: nothing can have been lost."""
    flood = Flood()
    for _ in range(MANY - 1):
        flood.note(100.0)
    assert not flood.over(200.0)


def test_as_many_over_a_long_time_are_no_flood():
    """A log file that somebody writes all day is read as it comes."""
    flood = Flood()
    for number in range(4 * MANY):
        flood.note(100.0 + number / 100)
        assert not flood.over(100.0 + number / 100)


def test_a_flood_without_an_end_is_not_waited_for():
    """It is told while it lasts, and what comes then is another."""
    flood = Flood(kept=40)
    told = 0
    for number in range(int(250 * PATIENCE)):
        at = 100.0 + number / 100
        flood.note(at)
        told += flood.over(at)
    assert told == 2
    assert flood.over(200.0)


@given(st.integers(PART, 400), st.lists(st.floats(0.0, 0.9), max_size=20), st.floats(0.0, 1.9))
def test_what_is_lost_is_always_followed_by_a_look(kept, earlier, spread):
    """A full queue that is read after a loss is a flood, whatever came before."""
    flood = Flood(kept)
    at = 100.0
    for pause in earlier:
        at += pause
        flood.note(at)
        flood.over(at)
    told = False
    for _ in range(count := kept // PART + 1):
        at += spread / count
        flood.note(at)
        told = flood.over(at) or told
    assert told or flood.over(at + QUIET)

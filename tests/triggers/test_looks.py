"""How many looks are still to come, the count alone; the observer is tried with the watches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genwsgi.triggers.looks import ENOUGH, LookEvent, Looks

WATCHES = [("/a", True), ("/a", False), ("/b", True)]


def look(key: tuple[str, bool]) -> LookEvent:
    """The end of a look of a watch."""
    return LookEvent(key[0], recursive=key[1])


def test_nothing_new_is_waited_for_by_nobody() -> None:
    """Before there are news no look is to come, however many have ended."""
    looks = Looks()
    assert not looks.to_come(WATCHES)
    looks.over(look(WATCHES[0]))
    assert not looks.to_come(WATCHES)


@given(st.lists(st.sampled_from([*WATCHES, None]), max_size=40))
def test_each_watch_looks_twice_after_the_news(happened: list[tuple[str, bool] | None]) -> None:
    """Looks are to come until every watch has ended two since the last news."""
    looks = Looks()
    since: list[tuple[str, bool]] = []
    news = False
    for one in happened:
        if one is None:
            looks.news(WATCHES)
            news, since = True, []
        else:
            looks.over(look(one))
            since.append(one)
        for watches in (WATCHES, WATCHES[1:], []):
            lacking = any(since.count(key) < ENOUGH for key in watches)
            assert looks.to_come(watches) == (news and lacking)


def test_looks_are_told_apart() -> None:
    """Two looks of one watch, and of two watches of a directory, are not the same."""
    events = [LookEvent("/a", recursive=r, number=n) for r in (True, False) for n in (1, 2)]
    assert len(set(events)) == len(events)
    assert [event.key for event in events] == [("/a", True)] * 2 + [("/a", False)] * 2

"""Questions to several workers."""

from __future__ import annotations

from genwsgi.deploy.inquiry import Inquiries


def test_all_answers_end_an_inquiry():
    """When everybody has answered, and not before, it goes on with the answers, once."""
    told: list[dict[int, str]] = []
    inquiries = Inquiries()
    inquiries.ask([1, 2], str, 10.0, told.append)
    inquiries.hear(1, "one")
    inquiries.hear(1, "again")
    inquiries.hear(2, 2)
    inquiries.hear(3, "nobody asked")
    assert not told
    assert inquiries.next_deadline() == 10.0
    inquiries.hear(2, "two")
    assert told == [{1: "one", 2: "two"}]
    assert inquiries.next_deadline() is None
    inquiries.hear(2, "late")
    assert len(told) == 1


def test_who_is_gone_or_late_is_not_waited_for():
    """A worker that is gone, or has not answered in time, is left out of the answers."""
    told: list[dict[int, str]] = []
    inquiries = Inquiries()
    inquiries.ask([1, 2], str, 10.0, told.append)
    inquiries.hear(1, "one")
    inquiries.lost(2)
    assert told == [{1: "one"}]
    inquiries.ask([1, 2], str, 10.0, told.append)
    inquiries.hear(2, "two")
    inquiries.tick(9.9)
    assert len(told) == 1
    inquiries.tick(10.0)
    assert told[1:] == [{2: "two"}]


def test_nobody_to_ask_is_an_answer():
    """An inquiry of no workers ends at once, and others go on."""
    told: list[dict[int, str]] = []
    inquiries = Inquiries()
    inquiries.ask([1], str, 10.0, told.append)
    inquiries.ask([], str, 20.0, told.append)
    assert told == [{}]
    assert inquiries.next_deadline() == 10.0

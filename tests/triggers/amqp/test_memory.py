"""Tests of genwsgi.triggers.amqp.memory."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from genwsgi.triggers.amqp import memory
from genwsgi.triggers.amqp.memory import Entry, Memory
from genwsgi.triggers.amqp.message import Refusal

LOG = logging.getLogger("genwsgi")


def entry(issued_at: float | None = None) -> Entry:
    """An order under way."""
    return Entry(issued_at, {}, {"id": "a"}, [["queue", "7"]])


def test_what_was_accepted_is_known_to_the_next_process(tmp_path: Path):
    """A memory that is opened again knows the orders, those under way with all that they need."""
    path = str(tmp_path / "amqp")
    first = Memory(path, LOG)
    first.accept("a", entry(5.0))
    first.accept("b", entry())
    first.finish("b", {"outcome": "committed"})
    first.know(b"body")
    second = Memory(path, LOG)
    assert second.under_way() == {"a": entry(5.0)}
    known = second.find("b")
    assert known is not None
    assert (known.outcome, known.fields, known.replies) == ({"outcome": "committed"}, {}, [])
    assert second.is_known(b"body")
    assert not second.is_known(b"other")


def test_an_order_that_is_forgotten_is_not_accepted_again(monkeypatch: pytest.MonkeyPatch):
    """There is room for so many orders; what is as old as the forgotten ones is refused."""
    monkeypatch.setattr(memory, "ROOM", 2)
    kept = Memory(None, LOG)
    for number in range(1, 4):
        kept.accept(str(number), entry(float(number)))
        kept.finish(str(number), {"outcome": "committed"})
    assert kept.find("1") is None
    with pytest.raises(Refusal, match="as old as orders that are forgotten"):
        kept.accept("1", entry(1.0))
    kept.accept("4", entry(4.0))


def test_many_orders_of_one_second_are_all_accepted_and_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Times are whole seconds: as old as one that is forgotten is not the same as forgotten."""
    monkeypatch.setattr(memory, "ROOM", 2)
    kept = Memory(str(tmp_path / "amqp"), LOG)
    for number in range(10):
        kept.accept(str(number), entry(1.0))
        kept.finish(str(number), {"outcome": "committed"})
    again = Memory(str(tmp_path / "amqp"), LOG)
    for number in range(8):
        with pytest.raises(Refusal, match="as old as orders that are forgotten"):
            again.accept(str(number), entry(1.0))
    again.accept("10", entry(1.0))


def test_an_order_is_not_accepted_after_a_newer_one(tmp_path: Path):
    """Whoever has recorded it could roll back a host that has seen the newer one only."""
    Memory(str(tmp_path / "amqp"), LOG).accept("new", entry(1000.0))
    kept = Memory(str(tmp_path / "amqp"), LOG)
    with pytest.raises(Refusal, match="100 s older than one that was accepted here"):
        kept.accept("old", entry(900.0))
    kept.accept("by a clock that is a little behind", entry(950.0))
    kept.accept("without a time", entry(None))
    kept.accept("prepared before", entry(900.0), prepared=True)
    assert kept.find("old") is None


def test_an_order_under_way_is_never_forgotten(monkeypatch: pytest.MonkeyPatch):
    """Room is made at the cost of orders that have ended."""
    monkeypatch.setattr(memory, "ROOM", 1)
    kept = Memory(None, LOG)
    kept.accept("1", entry(1.0))
    kept.accept("2", entry(2.0))
    assert set(kept.under_way()) == {"1", "2"}


def test_messages_without_an_id_are_remembered_up_to_a_number():
    """The oldest of them go."""
    kept = Memory(None, LOG)
    for number in range(memory.NAMELESS + 1):
        kept.know(b"%d" % number)
    assert not kept.is_known(b"0")
    assert kept.is_known(b"1")


def test_a_file_that_is_damaged_or_a_full_disk_costs_the_memory_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """What can't be read or written is said, and orders are accepted all the same."""
    path = tmp_path / "amqp"
    path.write_text('{"entries": 7}')
    with caplog.at_level(logging.ERROR):
        Memory(str(path), LOG).accept("a", entry())
        Memory(str(tmp_path / "nowhere" / "amqp"), LOG).accept("a", entry())
    assert "which orders were accepted is lost" in caplog.records[0].getMessage()
    assert "can't be written down" in caplog.records[-1].getMessage()

"""Tests of genwsgi.deploy.journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwsgi.deploy.actions import Order
from genwsgi.deploy.journal import Journal
from genwsgi.deploy.rundir import RunDirectory

ONE, TWO = Order("one", "ctl", False, "first"), Order("two", "SIGHUP", True, "second")


def unfailing(error: OSError) -> None:
    """What a journal tells its errors to when it should have none."""
    raise error


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run directory, as much of one as a journal needs."""
    return RunDirectory(str(tmp_path))


def test_the_next_coordinator_finds_what_was_not_ended(directory: RunDirectory) -> None:
    """An order is found again with its attempts until it is removed."""
    journal = Journal(directory, unfailing)
    journal.add(ONE, 1)
    journal.add(TWO, 3)
    assert Journal(directory, unfailing).take_over() == [(ONE, 1), (TWO, 3)]
    journal.remove(ONE)
    assert "one" not in journal
    assert "two" in journal
    assert Journal(directory, unfailing).take_over() == [(TWO, 3)]


def test_orders_taken_over_are_kept_while_the_first_of_them_is_begun(
    directory: RunDirectory,
) -> None:
    """Whoever dies over the first order that was taken over leaves the others to the next."""
    before = Journal(directory, unfailing)
    before.add(ONE, 1)
    before.add(TWO, 1)
    after = Journal(directory, unfailing)
    after.take_over()
    after.add(ONE, 2)
    assert Journal(directory, unfailing).take_over() == [(ONE, 2), (TWO, 1)]


@pytest.mark.parametrize("entry", [{}, {"attempts": "x"}, {"attempts": 1, "id": "a"}])
def test_what_is_no_order_is_passed_over(directory: RunDirectory, entry: dict[str, object]) -> None:
    """A damaged entry does not keep the others from being taken over."""
    good: dict[str, object] = {"id": "a", "trigger": "t", "force": False, "detail": "d"}
    directory.keep_orders([entry, {**good, "attempts": 1}])
    assert Journal(directory, unfailing).take_over() == [(Order("a", "t", False, "d"), 1)]


def test_a_full_disk_is_told_and_costs_no_deploy(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that can't be written down is under way all the same."""
    full = OSError(28, "No space left on device")

    def refuse(orders: object) -> None:
        raise full

    monkeypatch.setattr(directory, "keep_orders", refuse)
    failed: list[OSError] = []
    journal = Journal(directory, failed.append)
    journal.add(ONE, 1)
    assert "one" in journal
    assert failed == [full]

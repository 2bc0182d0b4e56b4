"""Tests of genwsgi.deploy.trials."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from genwsgi.deploy.probation import Probation
from genwsgi.deploy.protocol import Counts, label
from genwsgi.deploy.tallies import Tallies
from genwsgi.deploy.trials import PROBATION, SETTLED, Trials
from genwsgi.generations.counts import GenerationCounts, Tally
from tests.deploy.real import LOG, release

FIRST, SECOND = release(1), release(2)


class Host:
    """The trials of one host, whose coordinator is played by hand.

    :ivar orders: the orders to go back that were given: to which release, and why.
    """

    def __init__(self, seconds: float | None = 30.0) -> None:
        self.tallies = Tallies()
        self.orders: list[tuple[int | None, str]] = []
        rule = Probation(seconds, 0.05) if seconds is not None else None
        self.trials = Trials(
            rule, self.tallies, FIRST, lambda number, why: self.orders.append((number, why)), LOG
        )

    def hear(
        self, now: float, requests: int, failed: int, pid: int = 7, of: str = "", left: float = 0.0
    ) -> None:
        """Worker ``pid`` tells of release 2, or ``of`` another."""
        tally = Tally(requests, failed)
        counts = Counts(pid, (GenerationCounts(2, of or label(SECOND), tally),), left)
        self.tallies.hear(counts)
        self.trials.heard(counts, now)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    """Hear everything."""
    caplog.set_level(logging.INFO)


def test_release_that_fails_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """What all workers tell together condemns; one order is given, and the failures are told."""
    host = Host()
    host.trials.committed(SECOND, 100.0)
    host.hear(101.0, 10, 4)
    assert host.orders == []
    assert host.trials.standing(101.0) == (
        f"release {label(SECOND)} is on probation for 29 s more: it has failed 4 of 10 requests"
    )
    host.hear(101.5, 10, 3, pid=8)
    ((number, why),) = host.orders
    assert number == 1
    assert host.trials.standing(101.5) == ""
    assert why.startswith("release 2-code2 has failed 7 of the 20 requests of its first 1.5 s")
    assert why in caplog.text
    host.hear(101.6, 30, 20)
    assert len(host.orders) == 1
    back = replace(release(3, "code1"), trigger=PROBATION, back_to=1)
    host.trials.committed(back, 102.0)
    host.hear(103.0, 40, 30)
    assert host.trials.deadline == 102.0 + SETTLED
    host.trials.tick(102.0 + SETTLED)
    assert "release 2-code2 is left: in all it has failed 33 of 50 requests" in caplog.text
    host.hear(105.0, 100, 100, of=label(back))
    assert len(host.orders) == 1
    assert host.trials.deadline is None


def test_release_that_passes(caplog: pytest.LogCaptureFixture) -> None:
    """The end of the time is told, also where no request comes any more."""
    host = Host()
    host.trials.committed(SECOND, 100.0)
    host.hear(101.0, 100, 1)
    assert host.trials.deadline == 130.0
    host.trials.tick(129.0)
    assert "passed" not in caplog.text
    host.trials.tick(130.0)
    assert "release 2-code2 has passed its probation: it has failed 1 of the 100" in caplog.text
    assert host.trials.deadline is None
    assert host.orders == []


def test_worker_that_died_has_failed_what_it_has() -> None:
    """The failures of a worker that is killed in a probation count with those of the next one."""
    host = Host()
    host.trials.committed(SECOND, 100.0)
    host.hear(101.0, 4, 4)
    host.hear(103.0, 1, 1, pid=9)
    assert [number for number, _ in host.orders] == [1]


def test_coordinator_that_died_in_a_probation() -> None:
    """The next one hears how much is left, and goes back to whatever was before."""
    host = Host()
    host.trials.committed(SECOND, 100.0)
    host = Host()
    host.hear(110.0, 10, 10, of=label(FIRST), left=20.0)
    assert [number for number, _ in host.orders] == [None]


def test_nothing_is_watched() -> None:
    """Without a probation whatever fails is kept."""
    host = Host(None)
    host.trials.committed(SECOND, 100.0)
    host.hear(101.0, 100, 100, left=29.0)
    host.trials.tick(200.0)
    assert host.orders == []
    assert host.trials.deadline is None


def test_rollback_by_hand_is_not_watched() -> None:
    """Whoever goes back knows why; the code is not new."""
    host = Host()
    host.trials.committed(replace(SECOND, back_to=1), 100.0)
    host.hear(101.0, 100, 100)
    assert host.orders == []
    assert host.trials.deadline is None

"""Tests of genwsgi.deploy.trials."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from genwsgi.deploy.desk import Then
from genwsgi.deploy.orders import PROBATION
from genwsgi.deploy.probation import Probation
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import Counts, OrderOutcome, Outcome, label
from genwsgi.deploy.tallies import Tallies
from genwsgi.deploy.trials import AGAIN, SETTLED, Trials
from genwsgi.generations.counts import GenerationCounts, Tally
from tests.deploy.real import LOG, release

FIRST, SECOND = release(1), release(2)


class Host:
    """The trials of one host, whose coordinator is played by hand.

    :ivar orders: the orders to go back that were given: to which release, and why.
    :ivar idle: whether no deploy runs.
    """

    def __init__(self, seconds: float | None = 30.0) -> None:
        self.tallies = Tallies()
        self.orders: list[tuple[int | None, str]] = []
        rule = Probation(seconds, 0.05) if seconds is not None else None
        self.idle = True
        self.problems = ProblemBook(LOG)
        self._then: Then
        self.trials = Trials(
            rule, self.tallies, FIRST, self._order, self.problems, lambda: self.idle, LOG
        )

    def _order(self, number: int | None, why: str, then: Then) -> None:
        self.orders.append((number, why))
        self._then = then

    def end(self, outcome: str, reason: str = "no way", seconds: float = 1.0) -> None:
        """The latest of these orders has ended."""
        self._then(OrderOutcome("a", outcome, 3, reason, "", seconds))

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


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.SUPERSEDED])
def test_to_go_back_is_tried_until_it_works(outcome: str) -> None:
    """An order to go back that fails is a problem, and given again after ever longer pauses."""
    host = Host()
    host.trials.committed(SECOND, 100.0)
    host.hear(101.0, 10, 10)
    assert host.trials.deadline is None
    now, pause = 101.0, AGAIN[0]
    for attempt in range(1, 12):
        host.end(outcome)
        (problem,) = host.problems.now
        assert problem.name == PROBATION
        assert problem.text.startswith(
            "release 2-code2 has failed its probation and is served on, for to go back is "
            f"{outcome}: no way; it is tried again"
        )
        assert host.trials.deadline == now + 1.0 + pause
        host.trials.tick(now + 0.9 + pause)
        assert len(host.orders) == attempt
        now += 1.0 + pause
        host.trials.tick(now)
        assert host.orders == [host.orders[0]] * (attempt + 1)
        pause = min(2 * pause, AGAIN[1])
    host.trials.committed(replace(release(3, "code1"), trigger=PROBATION, back_to=1), now)
    host.end(Outcome.COMMITTED)
    assert host.problems.now == ()
    assert host.trials.deadline == now + SETTLED


def test_nothing_is_gone_back_from_while_a_mend_may_come() -> None:
    """While another deploy runs, the order is not given again; and not at all if that commits."""
    host = Host()
    host.trials.committed(SECOND, 100.0)
    host.hear(101.0, 10, 10)
    host.end(Outcome.FAILED)
    host.idle = False
    host.trials.tick(200.0)
    assert host.trials.deadline == 200.0 + AGAIN[0]
    host.trials.committed(release(3), 201.0)
    host.end(Outcome.FAILED)
    host.idle = True
    host.trials.tick(203.0)
    assert len(host.orders) == 1
    assert host.problems.now == ()


def test_to_go_back_is_of_no_use() -> None:
    """Where there is nothing to go back to, that is told, and not tried again."""
    host = Host()
    host.trials.committed(SECOND, 100.0)
    host.hear(101.0, 10, 10)
    host.end(Outcome.REFUSED, "no release is kept")
    (problem,) = host.problems.now
    assert problem.text.endswith("is refused: no release is kept; deploy what mends it")
    assert host.trials.deadline is None

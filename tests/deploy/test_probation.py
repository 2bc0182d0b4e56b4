"""Tests of genwsgi.deploy.probation."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwsgi.deploy.probation import FEWEST, SPACING, Probation, Verdict
from genwsgi.generations.counts import Tally

SECONDS, RATE = 30.0, 0.05


def tally(requests: int, failed: int = 0) -> Tally:
    """What has become of ``requests``, half of the failed ones by raising."""
    return Tally(requests, failed - failed // 2, failed // 2)


def begun(*before: tuple[float, Tally], now: float = 1000.0) -> Probation:
    """A probation of release 2, begun ``now``, after release 1 had come to ``before``."""
    made = Probation(SECONDS, RATE)
    for moment, found in before:
        assert made.hear("1-a", found, moment) is None
    made.begin("2-b", "1-a", now)
    return made


def judged(made: Probation, found: Tally, now: float = 1001.0) -> bool | None:
    """The verdict on release 2."""
    verdict = made.hear("2-b", found, now)
    assert verdict is None or verdict.release == "2-b"
    return None if verdict is None else verdict.passed


def test_too_many_failures_condemn() -> None:
    """The verdict comes once, with the counts of both releases; then nobody is watched."""
    made = begun((970.0, tally(10)), (999.0, tally(110, 2)))
    assert made.release == "2-b"
    assert made.deadline == 1030.0
    assert made.hear("2-b", tally(40, 12), 1002.5) == Verdict(
        "2-b",
        False,
        "release 2-b has failed 12 of the 40 requests of its first 2.5 s, more than 5 %;"
        " 1-a had failed 2 of 100",
    )
    assert made.release == ""
    assert made.deadline is None
    assert judged(made, tally(400, 300)) is None


@pytest.mark.parametrize(
    ("requests", "failed", "passed"),
    [
        (2, 1, None),  # one of two
        (4, 4, None),  # all, but too few to tell
        (5, 5, False),  # all
        (99, 5, False),
        (100, 5, None),  # at the limit is not beyond it
        (1000, 51, False),
        (1000, 0, None),
    ],
)
def test_limit(requests: int, failed: int, passed: bool | None) -> None:
    """More than the rate must have failed, and as many as show that it is no chance."""
    assert judged(begun(), tally(requests, failed)) is passed


@given(st.integers(0, 500), st.integers(0, 500))
def test_nobody_is_condemned_for_few(requests: int, failed: int) -> None:
    """Fewer than so many failures, or a part within the rate, never condemn."""
    failed = min(requests, failed)
    condemned = judged(begun(), tally(requests, failed)) is False
    assert condemned == (failed >= FEWEST and failed > RATE * requests)


def test_no_rate_at_all() -> None:
    """With a rate of nothing the first few failures condemn."""
    made = Probation(SECONDS, 0.0)
    made.begin("2-b", "1-a", 0.0)
    assert judged(made, tally(10_000, FEWEST - 1), 1.0) is None
    assert judged(made, tally(10_000, FEWEST), 1.0) is False


def test_time_that_passes_well() -> None:
    """Who has not failed too much until the end has passed."""
    made = begun()
    assert judged(made, tally(1000, 20), 1029.9) is None
    verdict = made.hear("2-b", tally(2000, 20), 1030.0)
    assert verdict is not None
    assert verdict.passed
    assert verdict.reason == (
        "release 2-b has passed its probation: it has failed 20 of the 2000 requests of its first"
        " 30.0 s"
    )
    assert judged(made, tally(3000, 2000), 1031.0) is None


def test_both_fail() -> None:
    """What failed before just as much is not the new code's doing; the end says so."""
    made = begun((999.0, tally(0)), (999.5, tally(100, 50)))
    assert judged(made, tally(100, 100)) is None
    verdict = made.hear("2-b", tally(100, 100), 1030.0)
    assert verdict is not None
    assert verdict.passed
    assert verdict.reason.endswith("but 1-a had failed 50 of 100")


def test_only_the_time_before_counts() -> None:
    """Failures of the old release that were long ago do not excuse the new one."""
    long_ago = [(500.0, tally(0)), (501.0, tally(100, 100))]
    lately = [(940.0, tally(100, 100)), (999.0, tally(200, 100))]
    assert judged(begun(*long_ago, *lately), tally(100, 100)) is False


def test_many_words_of_many_workers_take_little_room() -> None:
    """However often counts come, a few of them are kept, and the time before is known as well."""
    made = begun()
    made.end("2-b", 1000.0)
    for step in range(1, 60001):
        made.hear("2-b", tally(step, step // 2), 1000.0 + step / 1000)
    assert len(made._samples) <= 2 * SECONDS / SPACING + 2
    made.begin("3-c", "2-b", 1060.0)
    verdict = made.hear("3-c", tally(10, 10), 1090.0)
    assert verdict is not None
    found = re.search(r"2-b had failed (\d+) of (\d+)$", verdict.reason)
    assert found is not None
    failed, requests = map(int, found.groups())
    assert 30000 <= requests <= 30000 + 1000 * SPACING
    assert failed == requests // 2


def test_young_release_is_known_whole() -> None:
    """Of a release that was replaced soon all requests count, also those before the first word."""
    made = begun()
    assert judged(made, tally(10, 4), 1001.0) is None
    made.hear("2-b", tally(20, 20), 1001.5)  # condemned, and not yet gone
    made.begin("3-c", "2-b", 1002.0)
    assert made.hear("3-c", tally(20, 20), 1003.0) is None


def test_another_release_takes_its_place() -> None:
    """A later commit ends the probation of the release before; a rollback is not watched."""
    made = begun()
    made.end("3-a", 1001.0)
    assert judged(made, tally(100, 100)) is None
    assert made.hear("3-a", tally(100, 100), 1002.0) is None
    made.begin("4-d", "3-a", 1003.0)
    assert judged(made, tally(100, 100), 1004.0) is None
    assert made.release == "4-d"


def test_coordinator_that_died() -> None:
    """The next coordinator goes on with a probation for as long as there is left of it."""
    made = Probation(SECONDS, RATE)
    made.hear("2-b", tally(5), 499.0)  # from a worker that was started since
    made.resume("2-b", 10.0, 500.0)
    made.resume("2-b", 9.0, 501.0)
    assert made.deadline == 510.0
    verdict = made.hear("2-b", tally(10, 10), 502.0)
    assert verdict is not None
    assert not verdict.passed
    assert verdict.reason.endswith("the one before had failed 0 of 0")
    made.resume("2-b", 7.0, 503.0)
    assert made.deadline is None


def test_end_of_the_time_without_requests() -> None:
    """A release that nobody asks has passed as well."""
    assert judged(begun(), Tally(), 1030.0) is True

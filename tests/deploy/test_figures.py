"""Tests of genwsgi.deploy.figures."""

from __future__ import annotations

from genwsgi.deploy.control import Status
from genwsgi.deploy.figures import BUILDS, DRAINS, Collection, Distribution
from genwsgi.deploy.protocol import Counts, Leaving, Ready, Release
from genwsgi.generations.counts import GenerationCounts, Tally

STATUS = Status(Release(1, "a", "start", "", 0.0), "idle", (), {}, None)


def distribution(bounds: tuple[float, ...], **counted: int) -> tuple[int, ...]:
    """The counts of ``bounds``, all nothing but those at the places ``counted``."""
    counts = [0] * (len(bounds) + 1)
    for place, count in counted.items():
        counts[int(place[1:])] = count
    return tuple(counts)


def test_everything_that_workers_tell_is_counted():
    """Builds, drains and requests are added up; other messages count for nothing."""
    collection = Collection()
    collection.hear(Ready(2, 0.01))
    collection.hear(Ready(2, 100.0))
    collection.hear(Leaving())
    counts = (GenerationCounts(2, "2-b", Tally(3)),)
    collection.hear(Counts(7, counts, 0.0, (0.02, 0.03)))
    figures = collection.now(STATUS, {"committed": 1})
    builds = distribution(BUILDS, _0=1, _12=1)
    assert figures.builds == Distribution(BUILDS, builds, 100.01)
    assert figures.drains == Distribution(DRAINS, distribution(DRAINS, _1=2), 0.05)
    assert figures.requests == {("2-b", 2): Tally(3)}
    assert (figures.status, figures.outcomes) == (STATUS, {"committed": 1})


def test_figures_stay_as_they_were():
    """What was given away does not change with what comes later."""
    collection = Collection()
    outcomes = {"committed": 1}
    figures = collection.now(STATUS, outcomes)
    outcomes["committed"] = 2
    collection.hear(Ready(2, 0.01))
    collection.hear(Counts(7, (GenerationCounts(1, "1-a", Tally(3)),)))
    assert (sum(figures.builds.counts), dict(figures.requests), figures.outcomes) == (
        0,
        {},
        {"committed": 1},
    )

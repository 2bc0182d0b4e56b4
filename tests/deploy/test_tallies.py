"""Tests of genwsgi.deploy.tallies."""

from __future__ import annotations

from genwsgi.deploy.protocol import Counts
from genwsgi.deploy.tallies import KNOWN, Tallies
from genwsgi.generations.counts import GenerationCounts, Tally


def counts(pid: int, *known: tuple[int, str, int]) -> Counts:
    """What process ``pid`` tells of generations: number, release, requests."""
    return Counts(
        pid, tuple(GenerationCounts(number, name, Tally(done)) for number, name, done in known)
    )


def test_workers_are_added_up() -> None:
    """The requests of a release are those of all workers, and the latest word of each counts."""
    tallies = Tallies()
    tallies.hear(counts(1, (1, "1-a", 5), (2, "2-b", 1)))
    tallies.hear(counts(2, (1, "1-a", 7)))
    tallies.hear(counts(1, (2, "2-b", 4)))
    assert tallies.of("1-a") == Tally(12)
    assert tallies.of("2-b") == Tally(4)
    assert tallies.of("3-c") == Tally()
    assert tallies.releases() == ["1-a", "2-b"]


def test_worker_that_is_gone() -> None:
    """What a worker has told stays known; the one in its place begins at nothing."""
    tallies = Tallies()
    tallies.hear(counts(1, (1, "1-a", 5)))
    tallies.hear(counts(9, (1, "1-a", 1)))
    assert tallies.of("1-a") == Tally(6)


def test_old_releases_are_forgotten() -> None:
    """However many deploys there are, so many releases are known, the latest by number."""
    tallies = Tallies()
    for number in range(1, KNOWN + 6):
        tallies.hear(counts(1, (number, f"{number}-x", 1)))
    assert tallies.releases() == [f"{number}-x" for number in range(6, KNOWN + 6)]

"""Tests of genwsgi.deploy.tallies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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


def test_workers_that_are_gone_are_put_together() -> None:
    """However many workers come and go, one sum is kept of those that are gone."""
    tallies = Tallies()
    for pid in range(1, 100):
        tallies.hear(counts(pid, (1, "1-a", 2)))
        tallies.fold({pid})
    assert tallies.of("1-a") == Tally(198)
    assert len(tallies._by_release["1-a"]) == 2


def test_a_number_that_comes_again_is_another_worker() -> None:
    """A process that is given the number of one that is gone begins at nothing, and both count."""
    tallies = Tallies()
    tallies.hear(counts(7, (1, "1-a", 5)))
    tallies.fold(())
    tallies.hear(counts(7, (1, "1-a", 1)))
    assert tallies.by_generation() == {("1-a", 1): Tally(6)}


def test_generations_are_told_apart() -> None:
    """A release is generation 2 in a worker that was there before it, and 1 in one that came."""
    tallies = Tallies()
    tallies.hear(counts(1, (1, "1-a", 5), (2, "2-b", 3)))
    tallies.hear(counts(2, (1, "2-b", 4)))
    tallies.hear(counts(3, (2, "2-b", 1)))
    assert tallies.by_generation() == {
        ("1-a", 1): Tally(5),
        ("2-b", 1): Tally(4),
        ("2-b", 2): Tally(4),
    }


@given(st.lists(st.floats(0.0, 100.0), min_size=2, max_size=8), st.data())
def test_no_time_is_less_than_it_was(times: list[float], data: st.DataObject) -> None:
    """In whatever order workers go, and floats are added up, the sum of times never goes down."""
    tallies = Tallies()
    for pid, seconds in enumerate(times, 1):
        tally = Tally(1, seconds=seconds)
        tallies.hear(Counts(pid, (GenerationCounts(1, "1-a", tally),)))
    before = tallies.by_generation()["1-a", 1]
    living = set(range(1, len(times) + 1))
    for pid in data.draw(st.permutations(sorted(living))):
        living.discard(pid)
        tallies.fold(living)
        after = tallies.by_generation()["1-a", 1]
        assert after.seconds >= before.seconds
        assert after.requests == len(times)
        before = after

"""Tests of genwsgi.generations.leases."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwsgi.errors import LeaseError
from genwsgi.generations import leases as module
from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Leases, Open


def test_open_leases_are_counted() -> None:
    """A generation has as many leases as were taken and not ended."""
    generation, leases = Generation(1), Leases()
    first, second = leases.take(generation), leases.take(generation)
    assert first.generation is second.generation is generation
    assert len(leases) == 2
    leases.end(first.since)
    assert len(leases) == 1
    leases.end(second.since)
    assert len(leases) == 0


def test_a_second_end_is_an_error_with_a_name() -> None:
    """Ending a lease twice raises, tells the lease, and leaves the others open."""
    generation, leases = Generation(7), Leases()
    first, _second = leases.take(generation), leases.take(generation)
    leases.end(first.since)
    with pytest.raises(LeaseError, match=r"the lease of \d+\.\d{3} s ago is not open") as caught:
        leases.end(first.since)
    assert caught.value.__suppress_context__
    assert len(leases) == 1


def test_a_lease_is_no_key_to_another_generation() -> None:
    """A lease can't be ended among the leases of a generation that did not give it."""
    mine, other = Leases(), Leases()
    lease = mine.take(Generation(1))
    other.take(Generation(2))
    with pytest.raises(LeaseError):
        other.end(lease.since)
    assert (len(mine), len(other)) == (1, 1)


@given(st.permutations(range(5)))
def test_the_order_of_ends_does_not_matter(order: list[int]) -> None:
    """In whatever order leases end, each end is of one lease, and the last leaves none."""
    generation, leases = Generation(1), Leases()
    taken = [leases.take(generation) for _ in order]
    left = []
    for index in order:
        leases.end(taken[index].since)
        left.append(len(leases))
    assert left == [4, 3, 2, 1, 0]


def test_the_oldest_open_lease_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """``oldest`` is the longest open lease, ``None`` without one."""
    clock = iter([100.0, 50.0, 75.0])
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    generation, leases = Generation(1), Leases()
    assert leases.oldest() is None
    _first, second, third = (leases.take(generation) for _ in range(3))
    assert leases.oldest() == Open(second.since, None) == Open(50.0, None)
    leases.end(second.since)
    assert leases.oldest() == Open(75.0, None)
    leases.end(third.since)
    assert leases.oldest() == Open(100.0, None)


@pytest.mark.parametrize(
    ("environ", "request_"),
    [
        (None, ""),
        ({}, ""),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, "GET /"),
        ({"REQUEST_METHOD": "PUT", "SCRIPT_NAME": "/shop", "PATH_INFO": "/a;b"}, "PUT /shop/a;b"),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": "/\xc3\xa9 \n"}, "GET /%C3%A9%20%0A"),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": None, "SCRIPT_NAME": "\u20ac"}, "GET %3FNone"),
    ],
)
def test_a_lease_tells_whose_it_is(environ: dict[str, Any] | None, request_: str) -> None:
    """A lease tells its request's method and path, quoted, whatever the application put there."""
    assert Open(1.0, environ).request == request_


def test_leases_taken_at_the_same_time_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still for a moment makes no two leases one."""
    clock = iter([5.0, 5.0, 5.0, 6.0])
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    generation, leases = Generation(1), Leases()
    first, second = leases.take(generation), leases.take(generation)
    assert (first.since, second.since, len(leases)) == (5.0, 6.0, 2)


def test_the_repr_tells_how_long_it_has_been_open() -> None:
    """A lease's repr names its generation and its age in seconds."""
    lease = Leases().take(Generation(3))
    lease.since -= 60
    assert re.fullmatch(r"<Lease on generation 3, open for 6\d\.\d{3} s>", repr(lease))


def test_an_ended_lease_is_not_kept() -> None:
    """Nothing but its leases ties a generation to itself, and only while they are open."""
    generation = Generation(1)
    lease = generation.leases.take(generation)
    generation.leases.end(lease.since)
    gone = weakref.ref(generation)
    gc.disable()
    try:
        del lease, generation
        assert gone() is None
    finally:
        gc.enable()

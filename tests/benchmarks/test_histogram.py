from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.histogram import Histogram

TIMES = st.lists(st.floats(1e-5, 100), min_size=1, max_size=200)


def counted(times: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in times:
        histogram.add(seconds)
    return histogram


@given(TIMES, st.sampled_from([0.1, 0.5, 0.9, 0.99, 0.999]))
def test_a_quantile_is_right_to_two_hundredths(times, share):
    """A quantile is within 2.2 % of the time that so many of all were not longer than."""
    exact = sorted(times)[max(0, math.ceil(share * len(times)) - 1)]
    assert counted(times).quantile(share) == pytest.approx(exact, rel=0.022)


@given(TIMES)
def test_the_longest_is_kept_as_it_is(times):
    """The longest time is told exactly, and no quantile is longer."""
    histogram = counted(times)
    assert histogram.quantile(1) == max(times)
    assert histogram.quantile(0.999) <= max(times)


@given(TIMES, TIMES)
def test_joined_counts_what_each_has_counted(some, others):
    """Joined histograms are what one would be that had counted all of it."""
    whole = Histogram.joined([counted(some), counted(others)])
    assert whole.to_json() == counted(some + others).to_json()
    assert whole.total == len(some) + len(others)


@given(TIMES)
def test_it_comes_back_from_json_as_it_was(times):
    """What JSON held is the same histogram."""
    histogram = counted(times)
    again = Histogram.from_json(json.loads(json.dumps(histogram.to_json())))
    assert again.to_json() == histogram.to_json()


@given(TIMES)
def test_a_curve_rises_to_all(times):
    """A curve's times and shares rise, the last share is all of them."""
    points = counted(times).curve()
    assert points == sorted(points)
    assert points[-1][1] == 1


def test_nothing_counted_is_no_time():
    """An empty histogram has quantiles of 0 and no curve."""
    assert Histogram().quantile(0.5) == 0
    assert Histogram().quantile(1) == 0
    assert Histogram().curve() == []

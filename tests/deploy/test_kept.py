"""Which releases can be gone back to, and which one comes before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwsgi.deploy.kept import KeptReleases
from genwsgi.errors import OrderError
from tests.deploy.real import release


def committed(*digests, keep=5):
    """Releases 1, 2 ... with these digests, committed one after the other."""
    return KeptReleases([release(n, digest) for n, digest in enumerate(digests, 1)], keep)


def numbers(kept):
    """The numbers of what is kept."""
    return [one.number for one in kept.releases]


def test_the_latest_different_snapshots_are_kept():
    """As many as asked for are kept besides the committed one, counted by their code."""
    kept = committed("a", "b", "a", "c", "d", keep=2)
    assert numbers(kept) == [1, 3, 4, 5]
    assert kept.digests == {"a", "c", "d"}
    assert (4, "c") in kept
    assert (2, "b") not in kept
    assert (4, "other") not in kept
    assert committed("a", "b", keep=0).digests == {"b"}


def test_a_release_that_is_known_is_not_noted_twice():
    """The committed release may be in what was written down before, or not."""
    kept = committed("a", "b")
    kept.commit(release(2, "b"))
    assert numbers(kept) == [1, 2]


def test_the_one_before_has_other_code():
    """A forced deploy of the same code is nothing to go back to."""
    kept = committed("a", "b", "b")
    assert kept.find(None).number == 1
    assert kept.find(2).number == 2
    assert kept.before(kept.releases[-1]).number == 1


def test_going_back_again_goes_further_back():
    """After a rollback the one before is the one before its origin, never what was left."""
    kept = committed("a", "b", "c")
    kept.commit(replace(release(4, "b"), back_to=2, aside=("c",)))
    assert kept.find(None).number == 1
    kept.commit(replace(release(5, "a"), back_to=1, aside=("c", "b")))
    with pytest.raises(
        OrderError, match="no release before this one is kept; kept are: 1, 2, 3, 4"
    ):
        kept.find(None)
    kept.commit(release(6, "d"))
    assert kept.find(None).number == 5


def test_what_an_earlier_rollback_left_is_not_the_one_before():
    """However many rollbacks and deploys lie between, none leads to what one of them has left."""
    kept = committed("a", "b", "bad")
    kept.commit(replace(release(4, "b"), back_to=2, aside=("bad",)))
    kept.commit(release(5, "worse"))
    kept.commit(replace(release(6, "b"), back_to=4, aside=("worse",)))
    assert kept.find(None).number == 1
    kept.commit(release(7, "b"))
    assert kept.find(None).number == 1
    assert kept.before(kept.releases[-1]).number == 5, "what the last deploy changed"


def test_what_is_not_kept_is_refused_with_what_is():
    """The error names the releases that can be gone back to."""
    kept = committed("a", "b", "c", keep=1)
    with pytest.raises(OrderError, match="release 1 is not kept; kept are: 2"):
        kept.find(1)
    with pytest.raises(OrderError, match="no release before 2 is kept"):
        kept.before(kept.releases[0])
    with pytest.raises(OrderError, match="kept are: none"):
        committed("a").find(None)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20), st.integers(0, 6))
def test_the_committed_release_is_always_kept(digests, keep):
    """Whatever comes, the committed one is the last, and no more snapshots are kept than asked."""
    kept = committed(*digests, keep=keep)
    assert kept.releases[-1] == release(len(digests), digests[-1])
    assert len(kept.digests) <= keep + 1
    assert len(kept.digests) == min(keep + 1, len(set(digests)))

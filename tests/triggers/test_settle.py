"""When a change is complete, with a clock that the test holds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from genwsgi.triggers.settle import PATHS_KEPT, Change, Obstacle, Pace, Settle

PACE = Pace(single=0.025, burst=0.25, cap=10.0, look=0.01)
GIT = Obstacle("git is at work", patience=30.0, after=0.05)


def fire_time(settle, obstacles=(), until=100.0):
    """Ask whenever the settle says so, and return when it gave the change, and the change."""
    now = 0.0
    while (due := settle.due) is not None and now < until:
        now = max(now, due)
        change = settle.decide(now, obstacles)
        if change is not None:
            return now, change
    return None


def test_nothing_is_due_before_anything_is_touched():
    """Without a touch there is nothing to decide, whatever stirs."""
    settle = Settle(PACE)
    settle.stir(1.0, sync=True)
    assert settle.due is None
    assert not settle.pending
    assert settle.decide(50.0) is None


def test_one_complete_path_needs_little_silence():
    """A single path is given after the short silence, counted from its last touch."""
    settle = Settle(PACE)
    settle.touch("a.py", 1.0)
    settle.touch("a.py", 1.02)
    assert settle.decide(1.044) is None
    assert settle.decide(1.046) == Change(("a.py",), 1)
    assert not settle.pending


def test_several_paths_need_the_long_silence():
    """Two paths are a burst, given together after the long silence."""
    settle = Settle(PACE)
    settle.touch("b.py", 1.0)
    settle.touch("a.py", 1.01)
    assert settle.decide(1.25) is None
    assert settle.decide(1.27) == Change(("a.py", "b.py"), 2)


def test_an_incomplete_path_needs_the_long_silence_until_it_is_complete():
    """A file open for writing waits long, and shortly once it is closed."""
    settle = Settle(PACE)
    settle.touch("a.py", 1.0, complete=False)
    assert settle.due == 1.25
    settle.touch("a.py", 1.1)
    assert settle.due == 1.125


def test_a_stir_extends_the_wait_under_way():
    """Activity of temporary files puts off the order and adds no path."""
    settle = Settle(PACE)
    settle.touch("a.py", 1.0)
    settle.stir(1.02)
    assert settle.decide(1.04) is None
    assert settle.decide(1.05) == Change(("a.py",), 1)


def test_a_sync_makes_the_first_file_a_burst():
    """After a sync's temporary file even a single path waits for the long silence."""
    settle = Settle(PACE)
    settle.stir(1.0, sync=True)
    settle.touch("a.py", 1.1)
    assert settle.due == 1.35


def test_a_sync_long_past_is_forgotten():
    """A sync that left no relevant file doesn't slow down the change after it."""
    settle = Settle(PACE)
    settle.stir(1.0, sync=True)
    settle.touch("a.py", 2.0)
    assert settle.due == 2.025


def test_a_sync_is_over_with_its_order():
    """The change after a sync's order is judged for itself."""
    settle = Settle(PACE)
    settle.stir(1.0, sync=True)
    settle.touch("a.py", 1.0)
    assert settle.decide(1.3) is not None
    settle.touch("a.py", 1.31)
    assert settle.due == 1.335


def test_continuous_change_is_given_at_the_cap():
    """Under change without end an order is given once in each span of the cap."""
    settle = Settle(PACE)
    given_at = []
    for tick in range(250):
        now = tick / 10
        settle.touch(f"{tick % 7}.py", now)
        if settle.decide(now):
            given_at.append(now)
    assert given_at == [10.0, 20.1]


def test_a_change_names_few_paths_and_counts_all():
    """Of many paths the first in order are named, and all are counted."""
    settle = Settle(PACE)
    for number in range(500):
        settle.touch(f"{number:03}.py", 1.0)
    change = settle.decide(2.0)
    assert change == Change(tuple(f"{number:03}.py" for number in range(PATHS_KEPT)), 500)


def test_an_obstacle_is_waited_for():
    """While git holds its lock no order is given, and soon after it one is."""
    settle = Settle(PACE)
    settle.touch("a.py", 1.0)
    settle.touch("b.py", 1.0)
    assert settle.decide(1.0, [GIT]) is None
    assert settle.due == 1.01
    assert settle.decide(20.0, [GIT]) is None
    assert settle.decide(20.1) is None
    assert settle.due == 20.1 + GIT.after
    assert settle.decide(20.1 + GIT.after) == Change(("a.py", "b.py"), 2)


def test_an_obstacle_is_waited_for_no_longer_than_its_patience():
    """A lock that stays is disregarded after its patience, for this order and those after it."""
    settle = Settle(PACE)
    settle.touch("a.py", 0.0)
    when, change = fire_time(settle, [GIT])
    assert 0.0 + GIT.patience <= when <= GIT.patience + 0.06
    assert change.paths == ("a.py",)
    settle.touch("a.py", 40.0)
    assert settle.decide(40.03, [GIT]) is not None


def test_an_obstacle_that_was_away_is_waited_for_again():
    """Patience begins anew for another obstacle, and for one that was gone in between."""
    settle = Settle(PACE)
    settle.touch("a.py", 0.0)
    fire_time(settle, [GIT])
    settle.touch("a.py", 40.0)
    assert settle.decide(40.03, [Obstacle(GIT.what, 30.0, 0.05, made=7)]) is None
    assert settle.decide(41.0) is None
    assert settle.decide(41.06) is not None
    settle.touch("a.py", 50.0)
    assert settle.decide(50.03, [GIT]) is None


def test_the_longest_wait_after_obstacles_counts():
    """Of two obstacles that vanish together the one that needs more silence decides."""
    settle = Settle(PACE)
    settle.touch("a.py", 1.0)
    assert settle.decide(1.0, [GIT, Obstacle("gone", 10.0, 0.25)]) is None
    assert settle.decide(2.0) is None
    assert settle.due == 2.25


moments = st.lists(
    st.tuples(
        st.floats(0.0, 2.0),
        st.sampled_from(["touch", "write", "stir", "sync"]),
        st.sampled_from(["a.py", "b.py", "c.py"]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(moments)
def test_every_touch_is_given_exactly_once_and_never_early(steps):
    """Each touched path is in exactly one change, after the short silence at the least."""
    settle = Settle(PACE)
    now = 0.0
    owed: set[str] = set()
    last = 0.0

    def ask(moment):
        change = settle.decide(moment)
        if change is not None:
            assert set(change.paths) == owed
            assert moment >= min(last + PACE.single, first + PACE.cap)
            owed.clear()

    first = 0.0
    for pause, what, path in steps:
        while (due := settle.due) is not None and due <= now + pause:
            ask(due)
        now += pause
        last = now
        if what in ("touch", "write"):
            first = first if owed else now
            owed.add(path)
            settle.touch(path, now, complete=what == "touch")
        else:
            settle.stir(now, sync=what == "sync")
    if (due := settle.due) is not None:
        assert due <= now + PACE.burst
        ask(due)
    assert not owed
    assert not settle.pending

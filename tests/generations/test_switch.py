"""Tests of genwsgi.generations.switch."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from genwsgi.errors import GenwsgiError, IllegalTransition, LeaseError
from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Lease, Leases
from genwsgi.generations.lifecycle import State
from genwsgi.generations.switch import Statistics, Switch
from tests.generations import DEADLINE, in_thread, ready, trick


class Watched:
    """A switch, and the generations that it has let go, each checked at that moment."""

    def __init__(self) -> None:
        self.switch = Switch(self._retire)
        self.retired: list[int] = []

    def _retire(self, generation: Generation) -> None:
        assert generation.state is State.RETIRED
        assert len(generation.leases) == 0
        # The callback may use the switch; with the lock held this would hang.
        in_thread(self.switch.statistics)
        self.retired.append(generation.number)


@pytest.fixture
def watched() -> Watched:
    """A switch that has nothing yet."""
    return Watched()


class TrickLeases(Leases):
    """Leases that are overtaken, once, at the moment that a race needs.

    :param step: ``"take"`` or ``"end"``.
    :param before: runs on another thread right before that step.
    :param after: runs on another thread right after it.
    """

    def __init__(
        self,
        step: str,
        before: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._step, self._before, self._after = step, before, after

    def take(self, generation: Generation) -> Lease:
        self._overtake("take", "_before")
        lease = super().take(generation)
        self._overtake("take", "_after")
        return lease

    def end(self, since: float) -> None:
        self._overtake("end", "_before")
        super().end(since)
        self._overtake("end", "_after")

    def _overtake(self, step: str, when: str) -> None:
        trick = getattr(self, when)
        if step == self._step and trick is not None:
            setattr(self, when, None)
            in_thread(trick)


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns far more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


# -- one thread ----------------------------------------------------------------------------------


def test_without_a_generation_there_is_no_lease(watched: Watched) -> None:
    """Before the first swap, and after close, a lease is refused with the next step."""
    with pytest.raises(GenwsgiError, match="no generation is current: the first is not ready yet"):
        watched.switch.lease()
    watched.switch.swap(ready(1))
    watched.switch.close()
    with pytest.raises(GenwsgiError):
        watched.switch.lease()


def test_a_swap_changes_what_new_requests_get(watched: Watched) -> None:
    """A lease is on the generation that was current when it was taken, for as long as it lasts."""
    first, second = ready(1), ready(2)
    assert watched.switch.swap(first) is None
    before = watched.switch.lease()
    assert watched.switch.swap(second) is first
    after = watched.switch.lease()
    assert (before.generation, after.generation) == (first, second)
    assert watched.switch.current is second
    assert (first.state, second.state) == (State.DRAINING, State.CURRENT)


def test_a_replaced_generation_retires_with_its_last_lease(watched: Watched) -> None:
    """A draining generation is let go by the end of its last lease, no sooner."""
    watched.switch.swap(ready(1))
    leases = [watched.switch.lease() for _ in range(3)]
    watched.switch.swap(ready(2))
    for lease in leases:
        assert watched.retired == []
        watched.switch.end(lease)
    assert watched.retired == [1]
    assert watched.switch.draining() == []


def test_an_idle_generation_retires_in_the_swap(watched: Watched) -> None:
    """Without open leases the replaced generation retires at once."""
    watched.switch.swap(ready(1))
    watched.switch.end(watched.switch.lease())
    assert watched.retired == []
    watched.switch.swap(ready(2))
    assert watched.retired == [1]


def test_parked_generation_comes_back(watched: Watched) -> None:
    """What is parked does not retire without leases, and serves again when it is swapped in."""
    first, second = ready(1), ready(2)
    watched.switch.swap(first)
    watched.switch.swap(second, park=True)
    assert (first.state, watched.switch.parked, watched.retired) == (State.PARKED, first, [])
    assert isinstance(first.replaced, float)
    watched.switch.swap(first)
    assert watched.switch.current is first
    assert first.replaced is None
    assert watched.switch.parked is None
    assert watched.switch.lease().generation is first
    assert watched.retired == [2]


def test_parked_generation_is_let_go(watched: Watched) -> None:
    """When its time is over, or another one is parked, it drains as any replaced one does."""
    first = ready(1)
    watched.switch.swap(first)
    lease = watched.switch.lease()
    watched.switch.swap(ready(2), park=True)
    parked = first.replaced
    watched.switch.unpark()
    assert first.state is State.DRAINING
    assert parked is not None
    assert first.replaced is not None
    assert first.replaced > parked  # how long it drains is told, and parking is no draining
    watched.switch.end(lease)
    assert watched.retired == [1]
    watched.switch.swap(ready(3), park=True)
    watched.switch.swap(ready(4), park=True)
    assert watched.retired == [1, 2]
    watched.switch.unpark()
    watched.switch.unpark()
    assert watched.retired == [1, 2, 3]


def test_close_lets_the_current_generation_go(watched: Watched) -> None:
    """After close the last generation retires like a replaced one; closing again does nothing."""
    watched.switch.swap(ready(1))
    lease = watched.switch.lease()
    watched.switch.close()
    assert watched.switch.current is None
    assert watched.retired == []
    watched.switch.end(lease)
    watched.switch.close()
    assert watched.retired == [1]
    watched.switch.swap(ready(2))
    watched.switch.close()
    assert watched.retired == [1, 2]


def test_a_second_end_retires_nothing(watched: Watched) -> None:
    """Ending a lease twice is a LeaseError, whatever has become of its generation."""
    watched.switch.swap(ready(1))
    ended, still_open = watched.switch.lease(), watched.switch.lease()
    watched.switch.end(ended)
    with pytest.raises(LeaseError):
        watched.switch.end(ended)
    watched.switch.swap(ready(2))
    with pytest.raises(LeaseError):
        watched.switch.end(ended)
    assert watched.retired == []
    watched.switch.end(still_open)
    with pytest.raises(LeaseError):
        watched.switch.end(still_open)
    assert watched.retired == [1]


def test_only_a_ready_generation_is_swapped_in(watched: Watched) -> None:
    """A generation that is not ready is refused, and the current one goes on."""
    first = ready(1)
    watched.switch.swap(first)
    for unfit in (Generation(2), first):
        with pytest.raises(IllegalTransition):
            watched.switch.swap(unfit)
        assert watched.switch.current is first
        assert watched.switch.statistics() == Statistics(current=1, leases={1: 0}, swaps=1)
    assert watched.retired == []


def test_statistics_and_repr_tell_what_is_held(watched: Watched) -> None:
    """The statistics count the open leases of each generation that is still there."""
    assert watched.switch.statistics() == Statistics(current=None, leases={}, swaps=0)
    for number in (1, 2, 3):
        watched.switch.swap(ready(number))
        for _ in range(number):
            watched.switch.lease()
    assert watched.switch.statistics() == Statistics(3, {1: 1, 2: 2, 3: 3}, 3)
    assert [generation.number for generation in watched.switch.draining()] == [1, 2]
    assert repr(watched.switch) == "<Switch on <Generation 3 current, 3 open leases>, 2 draining>"


def test_the_switch_does_not_keep_what_has_retired(watched: Watched) -> None:
    """Once its last lease has ended, reference counts alone free a generation."""
    watched.switch.swap(ready(1))
    lease = watched.switch.lease()
    gone = weakref.ref(lease.generation)
    watched.switch.swap(ready(2))
    gc.disable()
    try:
        watched.switch.end(lease)
        assert gone() is lease.generation
        del lease
        assert gone() is None
    finally:
        gc.enable()


# -- against a model -----------------------------------------------------------------------------


class Serving(RuleBasedStateMachine):
    """The switch, step by step beside a model that counts open leases."""

    leases = Bundle("leases")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.watched = Watched()
        self.switch = self.watched.switch
        self.number = 0
        self.current: int | None = None
        self.open: Counter[int] = Counter()
        self.parked: int | None = None
        self.replaced: set[int] = set()
        self.swaps = 0

    def _replace(self, number: int | None) -> None:
        if number is not None:
            self.replaced.add(number)

    def _swap(self, number: int, park: bool) -> None:
        if self.parked != number:
            self._replace(self.parked)
        self.parked = self.current if park else None
        if not park:
            self._replace(self.current)
        self.current = number
        self.swaps += 1

    @rule(park=st.booleans())
    def swap(self, park: bool) -> None:
        self.number += 1
        self._swap(self.number, park)
        self.switch.swap(ready(self.number), park=park)

    @rule(park=st.booleans())
    def swap_in_what_is_parked(self, park: bool) -> None:
        generation = self.switch.parked
        if generation is not None:
            self._swap(generation.number, park)
            self.switch.swap(generation, park=park)

    @rule()
    def unpark(self) -> None:
        self._replace(self.parked)
        self.parked = None
        self.switch.unpark()

    @rule()
    def swap_in_what_is_not_ready(self) -> None:
        with pytest.raises(IllegalTransition):
            self.switch.swap(Generation(1000))

    @rule()
    def close(self) -> None:
        self._replace(self.parked)
        self._replace(self.current)
        self.current = self.parked = None
        self.switch.close()

    @rule(target=leases, count=st.integers(1, 3))
    def lease(self, count: int) -> object:
        if self.current is None:
            with pytest.raises(GenwsgiError):
                self.switch.lease()
            return None
        self.open[self.current] += 1
        lease = self.switch.lease()
        assert lease.generation.number == self.current
        return lease

    @rule(target=ended, lease=consumes(leases), how=st.sampled_from(["leave", "drop"]))
    def end(self, lease: Lease | None, how: str) -> object:
        if lease is not None:
            self.open[lease.generation.number] -= 1
            getattr(self.switch, how)(lease.generation, lease.since)
        return lease

    @rule(lease=ended)
    def end_again(self, lease: Lease | None) -> None:
        if lease is not None:
            with pytest.raises(LeaseError):
                self.switch.end(lease)

    @invariant()
    def each_has_retired_exactly_once_and_none_with_a_lease(self) -> None:
        expected = {number for number in self.replaced if not self.open[number]}
        assert sorted(self.watched.retired) == sorted(expected)

    @invariant()
    def the_statistics_are_the_model(self) -> None:
        draining = self.replaced - set(self.watched.retired)
        held = draining | {number for number in (self.parked, self.current) if number}
        parked = self.switch.parked
        assert (parked.number if parked else None) == self.parked
        statistics = self.switch.statistics()
        assert statistics.current == self.current
        assert statistics.swaps == self.swaps
        assert statistics.leases == {number: self.open[number] for number in held}
        assert [one.number for one in self.switch.draining()] == sorted(draining)


Serving.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class TestServing(Serving.TestCase):  # type: ignore[valid-type,misc]
    """In any order of steps each generation retires exactly once, never under an open lease."""


# -- races, forced -------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_swap_overtakes_a_lease(watched: Watched, when: str) -> None:
    """Who is overtaken by a swap while taking a lease gets the new generation, and holds no old."""
    first, second = ready(1), ready(2)
    watched.switch.swap(first)
    first.leases = TrickLeases("take", **{when: lambda: watched.switch.swap(second)})
    lease = watched.switch.lease()
    assert lease.generation is second
    assert len(first.leases) == 0
    assert watched.retired == [1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lease_is_overtaken_by_there_and_back(watched: Watched, when: str) -> None:
    """Who takes a lease while the generation is parked and comes back gets it, once."""
    first = ready(1)
    watched.switch.swap(first)

    def there_and_back() -> None:
        watched.switch.swap(ready(2), park=True)
        watched.switch.swap(first)

    first.leases = TrickLeases("take", **{when: there_and_back})
    lease = watched.switch.lease()
    assert (lease.generation, len(first.leases)) == (first, 1)
    watched.switch.end(lease)
    watched.switch.swap(ready(3))
    assert watched.retired == [2, 1]


def test_a_close_overtakes_a_lease(watched: Watched) -> None:
    """Who is overtaken by the close while taking a lease is refused, and holds nothing."""
    first = ready(1)
    watched.switch.swap(first)
    first.leases = TrickLeases("take", after=watched.switch.close)
    with pytest.raises(GenwsgiError, match="no generation is current"):
        watched.switch.lease()
    assert watched.retired == [1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_swap_overtakes_an_end(watched: Watched, when: str) -> None:
    """A swap that comes while the last lease ends: one of the two retires the generation."""
    first = ready(1)
    watched.switch.swap(first)
    first.leases = TrickLeases("end", **{when: lambda: watched.switch.swap(ready(2))})
    watched.switch.end(watched.switch.lease())
    assert watched.retired == [1]


def test_an_end_overtakes_a_swap(watched: Watched) -> None:
    """The swap that the last end overtakes retires the generation; the end did not."""
    watched.switch.swap(ready(1))
    lease = watched.switch.lease()
    trick(watched.switch, before=lambda: watched.switch.end(lease))
    watched.switch.swap(ready(2))
    assert watched.retired == [1]


def test_a_lease_overtakes_a_swap(watched: Watched) -> None:
    """A lease taken just before a swap keeps the old generation."""
    watched.switch.swap(ready(1))
    taken: list[Lease] = []
    trick(watched.switch, before=lambda: taken.append(watched.switch.lease()))
    watched.switch.swap(ready(2))
    assert watched.retired == []
    watched.switch.end(taken[0])
    assert watched.retired == [1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_two_last_ends_retire_once(watched: Watched, when: str) -> None:
    """Of two threads that end the last two leases, one retires the generation."""
    first = ready(1)
    watched.switch.swap(first)
    leases: list[Lease] = []
    first.leases = TrickLeases("end", **{when: lambda: watched.switch.end(leases[1])})
    leases += watched.switch.lease(), watched.switch.lease()
    watched.switch.swap(ready(2))
    watched.switch.end(leases[0])
    assert watched.retired == [1]


def test_two_ends_that_both_see_the_last_lease_gone(watched: Watched) -> None:
    """Of two threads that both find nothing open any more, one retires the generation."""
    watched.switch.swap(ready(1))
    one, other = watched.switch.lease(), watched.switch.lease()
    watched.switch.swap(ready(2))
    trick(watched.switch, before=lambda: watched.switch.end(other))
    watched.switch.end(one)
    assert watched.retired == [1]


def test_the_same_lease_ended_by_two_threads(watched: Watched) -> None:
    """Of two threads that end one lease, the second is told, and nothing retires twice."""
    first = ready(1)
    watched.switch.swap(first)
    leases: list[Lease] = []
    first.leases = TrickLeases("end", before=lambda: watched.switch.end(leases[0]))
    leases.append(watched.switch.lease())
    watched.switch.swap(ready(2))
    with pytest.raises(LeaseError):
        watched.switch.end(leases[0])
    assert watched.retired == [1]


def test_a_swap_comes_between_the_end_and_its_callback(watched: Watched) -> None:
    """What happens after the lock was released does not change who is retired by whom."""
    watched.switch.swap(ready(1))
    lease = watched.switch.lease()
    watched.switch.swap(ready(2))
    trick(watched.switch, after=lambda: watched.switch.swap(ready(3)))
    watched.switch.end(lease)
    assert sorted(watched.retired) == [1, 2]


def test_close_overtakes_a_swap(watched: Watched) -> None:
    """A swap after a close that overtook it makes its generation current, and retires nothing."""
    watched.switch.swap(ready(1))
    trick(watched.switch, before=watched.switch.close)
    assert watched.switch.swap(ready(2)) is None
    assert watched.retired == [1]
    assert watched.switch.statistics().current == 2


# -- finalizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["end", "swap", "close", "statistics", "draining"])
def test_a_finalizer_inside_the_lock_does_not_hang(watched: Watched, what: str) -> None:
    """A lease that the collector drops while its own thread has the lock ends right after."""
    switch = watched.switch
    switch.swap(ready(1))
    dropped = switch.lease()
    switch.swap(ready(2))
    other, another = switch.lease(), switch.lease()
    switch.swap(ready(3))
    steps = {
        "end": lambda: switch.end(other),
        "swap": lambda: switch.swap(ready(4)),
        "close": switch.close,
        "statistics": switch.statistics,
        "draining": switch.draining,
    }
    seen: list[list[int]] = []

    def finalizer() -> None:
        switch.drop(dropped.generation, dropped.since)
        seen.append(watched.retired.copy())

    trick(switch, inside=finalizer)
    in_thread(steps[what])
    assert seen == [[]]
    assert another.generation.state is State.DRAINING
    assert 1 in watched.retired
    assert not switch._lock.locked()


def test_a_finalizer_inside_a_refused_step_is_not_forgotten(watched: Watched) -> None:
    """When the step that had the lock raises, the dropped lease ends all the same."""
    switch = watched.switch
    switch.swap(ready(1))
    dropped = switch.lease()
    switch.swap(ready(2))
    trick(switch, inside=lambda: switch.drop(dropped.generation, dropped.since))
    with pytest.raises(IllegalTransition):
        switch.swap(Generation(3))
    assert watched.retired == [1]


def test_a_finalizer_does_not_wait_for_another_thread(watched: Watched) -> None:
    """A lease dropped while another thread has the lock is ended by that thread."""
    switch = watched.switch
    switch.swap(ready(1))
    dropped = switch.lease()
    switch.swap(ready(2))
    trick(switch, inside=lambda: in_thread(lambda: switch.drop(dropped.generation, dropped.since)))
    switch.statistics()
    assert watched.retired == [1]


def test_a_lease_dropped_while_dropped_ones_end_is_ended_too(watched: Watched) -> None:
    """A callback may itself drop the last lease of another generation."""
    switch = watched.switch
    switch.swap(ready(1))
    first = switch.lease()
    switch.swap(ready(2))
    second = switch.lease()
    switch.swap(ready(3))
    retired: list[int] = []

    def on_retire(generation: Generation) -> None:
        retired.append(generation.number)
        if generation.number == 1:
            switch.drop(second.generation, second.since)

    switch._on_retire = on_retire
    switch.drop(first.generation, first.since)
    assert retired == [1, 2]


# -- many threads --------------------------------------------------------------------------------


def test_threads_hammering(watched: Watched, often: None) -> None:
    """Under threads that lease, end and drop during swaps each generation retires exactly once."""
    switch, swaps, threads = watched.switch, 60, 6
    retired: list[int] = []  # list.append is atomic
    switch._on_retire = lambda generation: retired.append(generation.number)
    switch.swap(ready(1))
    over = threading.Event()
    served: list[int] = []
    wrong: list[object] = []

    def serve() -> None:
        count = 0
        while not (count and over.is_set()):
            held = [switch.lease() for _ in range(3)]
            wrong.extend(
                lease.generation
                for lease in held
                if lease.generation.state not in (State.CURRENT, State.DRAINING)
            )
            dropped = held.pop()
            switch.drop(dropped.generation, dropped.since)
            for lease in held:
                switch.end(lease)
            count += 1
        served.append(count)

    workers = [threading.Thread(target=serve, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for number in range(2, swaps + 2):
        switch.swap(ready(number))
        switch.statistics()
    over.set()
    for worker in workers:
        worker.join(DEADLINE)
    assert len(served) == threads
    assert all(served)
    assert wrong == []
    switch.close()
    assert sorted(retired) == list(range(1, swaps + 2))
    assert switch.statistics() == Statistics(current=None, leases={}, swaps=swaps + 1)

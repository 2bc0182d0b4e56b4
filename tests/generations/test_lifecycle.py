"""Tests of genwsgi.generations.lifecycle."""

from __future__ import annotations

import itertools

import pytest

from genwsgi.errors import IllegalTransition
from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import FINAL, TRANSITIONS, Event, State, advance

PAIRS = list(itertools.product(State, Event))

#: The picture in the module's docstring, written down once more.
PICTURE = """
    building   built        ready
    building   failed       discarded
    ready      discarded    discarded
    ready      swapped_in   current
    current    swapped_out  draining
    current    parked       parked
    parked     swapped_in   current
    parked     swapped_out  draining
    draining   drained      retired
"""
LEGAL = {
    (State[before.upper()], Event[event.upper()]): State[after.upper()]
    for before, event, after in (line.split() for line in PICTURE.strip().splitlines())
}


def names(pair: object) -> str:
    """How a state or an event is called in a test's id."""
    assert isinstance(pair, (State, Event))
    return pair.value


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=names)
def test_every_pair_does_what_the_picture_says(state: State, event: Event) -> None:
    """A legal event leads where the picture says; an illegal one raises and changes nothing."""
    generation = Generation(3)
    generation.state = state
    if (state, event) in LEGAL:
        assert advance(state, event, "generation 3") is LEGAL[state, event]
        generation.advance(event)
        assert generation.state is LEGAL[state, event]
        return
    with pytest.raises(IllegalTransition) as caught:
        generation.advance(event)
    assert generation.state is state
    assert (caught.value.subject, caught.value.state, caught.value.event) == (
        "generation 3",
        state.value,
        event.value,
    )
    assert caught.value.__cause__ is None
    assert str(caught.value) == f"generation 3 is {state.value}: {event.value} is not possible now"


def test_the_table_is_the_picture() -> None:
    """There is no legal move beside those of the picture."""
    assert TRANSITIONS == LEGAL


def test_final_states_are_the_dead_ends() -> None:
    """A state is final exactly when no event leads out of it."""
    assert set(State) - {state for state, _ in TRANSITIONS} == FINAL


def test_every_state_can_be_reached() -> None:
    """From building there is a way to each state."""
    reached = {State.BUILDING}
    for _ in State:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(State)

"""The life of a generation as a table.

Charter: every change of a generation's state goes through :func:`advance`, and every legal change
is a row of :data:`TRANSITIONS`.  An event that the state does not allow raises and changes nothing.

::

    building -built-> ready -swapped in-> current -swapped out-> draining -drained-> retired
        |               |                  |   ^                    ^
      failed        discarded         parked   swapped in           |
        |               |                  v   |                    |
        +-> discarded <-+                 parked --------swapped out+
"""

from __future__ import annotations

from enum import Enum

from genwsgi.errors import IllegalTransition


class State(Enum):
    """Where a generation stands."""

    BUILDING = "building"
    READY = "ready"
    CURRENT = "current"
    PARKED = "parked"
    DRAINING = "draining"
    RETIRED = "retired"
    DISCARDED = "discarded"


class Event(Enum):
    """What can happen to a generation."""

    BUILT = "built"
    FAILED = "failed"
    DISCARDED = "discarded"
    SWAPPED_IN = "swapped in"
    SWAPPED_OUT = "swapped out"
    PARKED = "parked"
    DRAINED = "drained"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.BUILDING, Event.BUILT): State.READY,
    (State.BUILDING, Event.FAILED): State.DISCARDED,
    (State.READY, Event.DISCARDED): State.DISCARDED,
    (State.READY, Event.SWAPPED_IN): State.CURRENT,
    (State.CURRENT, Event.SWAPPED_OUT): State.DRAINING,
    (State.CURRENT, Event.PARKED): State.PARKED,
    (State.PARKED, Event.SWAPPED_IN): State.CURRENT,
    (State.PARKED, Event.SWAPPED_OUT): State.DRAINING,
    (State.DRAINING, Event.DRAINED): State.RETIRED,
}

#: States that nothing leads out of.
FINAL = frozenset({State.RETIRED, State.DISCARDED})


def advance(state: State, event: Event, subject: str) -> State:
    """Return the state that follows ``state`` when ``event`` happens.

    :param subject: the generation's name for the error, like ``"generation 3"``.
    :raises IllegalTransition: the table has no such row; nothing was changed.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(subject, state.value, event.value) from None

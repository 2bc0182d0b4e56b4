"""How one order is given to many hosts: who is expected, what they said, what is to be sent next.

Pure: no clock, no broker.  Inputs are method calls that carry the time in seconds of a monotonic
clock; each returns the steps to publish now, in their order.

* calling: who is there?  All who are expected, or whoever answers within a second: the order itself
  is next; or prepare, if all are to go together or none.
* preparing: every host builds it and holds it.  All have: the order, which is the word to go live.
  Anything else (a failure, the time is up): abort.
* ordering: every host goes live.  All have said how that ended, or the time is up: over.
* aborting: what was prepared is dropped everywhere.  All have said so, or a moment is over: over.

Once the order itself is sent there is no way back: a host that had to give its hold up builds anew.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from genwsgi.deploy.protocol import Outcome
from genwsgi.triggers.amqp.message import Step
from genwsgi.triggers.amqp.obey import HERE, UNKNOWN

#: For how long hosts may answer a roll call, in seconds, unless it is said how many there are.
ROLL_CALL: Final = 1.0

#: Between two questions how the order stands, in seconds: an answer may be lost with a broker.
ASK_EVERY: Final = 2.0

#: How long hosts have to say that they have dropped what they had prepared, in seconds.
ABORT_WITHIN: Final = 5.0

#: How much longer than the sender waits a host holds what it has prepared, in seconds: the word is
#: never sent so late that the first host may have given up.
MARGIN: Final = 10.0

_GOOD: Final = frozenset({Outcome.COMMITTED, Outcome.UNCHANGED})
_BAD: Final = frozenset({Outcome.FAILED, Outcome.REFUSED, Outcome.SUPERSEDED})


class Phase(str, enum.Enum):
    """What a conductor is doing."""

    CALLING = "calling"
    PREPARING = "preparing"
    ORDERING = "ordering"
    ABORTING = "aborting"
    OVER = "over"


@dataclass
class Host:
    """One server of the fleet, as far as it has said.

    :ivar state: what it said last, in a word.
    :ivar took: in seconds.
    """

    host: str
    server: str
    state: str
    release: int | None = None
    generation: int | None = None
    took: float = 0.0
    error: str = ""


class Conductor:
    """Gives one order.

    :param order: its id.
    :param wait: wait for the outcomes.
    :param all_or_none: all hosts go live, or none.
    :param expect: how many hosts there are; ``None``: as many as answer the roll call.
    :param timeout: how long preparing may take, and again going live, in seconds.
    :ivar hosts: who is there, by name.
    :ivar ordered: whether the broker has confirmed the order itself.
    :ivar problem: why it did not end well; empty: it did, or is not over.
    """

    def __init__(
        self,
        order: str,
        *,
        wait: bool = True,
        all_or_none: bool = False,
        expect: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.order = order
        self.phase = Phase.CALLING
        self.hosts: dict[tuple[str, str], Host] = {}
        self.ordered = False
        self.problem = ""
        self._wait = wait or all_or_none
        self._all_or_none = all_or_none
        self._expect = expect
        self._timeout = timeout
        self._deadline = 0.0
        self._ask_at = 0.0

    def __repr__(self) -> str:
        return f"<Conductor of {self.order}, {self.phase.value}, {len(self.hosts)} hosts>"

    @property
    def hold(self) -> float:
        """How long a host holds what it has prepared, in seconds."""
        return self._timeout + MARGIN

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.phase is Phase.OVER

    def start(self, now: float) -> list[Step]:
        """Begin."""
        if not self._wait:
            return self._order(now)
        # Hosts can answer when the broker has the call, which may be away.
        self._deadline = math.inf
        self._ask_at = now + ROLL_CALL
        return [Step.CALL]

    def sent(self, step: Step, now: float) -> None:
        """The broker has confirmed ``step``."""
        if step is Step.CALL and self._deadline == math.inf:
            self._deadline = now + (ROLL_CALL if self._expect is None else self._timeout)
        elif step is Step.DEPLOY:
            self.ordered = True
            if not self._wait:
                self.phase = Phase.OVER

    def heard(self, answer: Mapping[str, Any], now: float) -> list[Step]:
        """A host has answered."""
        if self.over:
            return []
        if answer.get("id") != self.order:
            return []  # of another order, or of an old one that somebody sends again
        name = (str(answer.get("host")), str(answer.get("server")))
        outcome, step = str(answer.get("outcome")), str(answer.get("step"))
        if outcome == HERE:
            host = self.hosts.setdefault(name, Host(*name, HERE))
            if host.state == HERE:
                host.release = _int(answer.get("release"))
            return self._count(now)
        if self.phase is Phase.CALLING:
            return []
        host = self.hosts.setdefault(name, Host(*name, HERE))
        if outcome == UNKNOWN:
            # What was sent it has never got.
            return self.again() if self.phase in (Phase.PREPARING, Phase.ORDERING) else []
        awaited = Step.DEPLOY if self.phase is Phase.ORDERING else Step.PREPARE
        if step not in (awaited.value, "") or host.state in _ENDED[self.phase]:
            return []
        host.state, host.error = outcome, str(answer.get("error") or "")
        host.release, host.generation = _int(answer.get("release")), _int(answer.get("generation"))
        host.took = _seconds(answer.get("took"))
        return self._advance(now)

    def tick(self, now: float) -> list[Step]:
        """Time has passed.  To be called several times a second."""
        if self.over:
            return []
        if now < self._deadline:
            if now < self._ask_at or self.phase is Phase.ABORTING:
                return []
            self._ask_at = now + ASK_EVERY
            return [Step.CALL if self.phase is Phase.CALLING else Step.ASK]
        if self.phase is Phase.CALLING:
            return self._called(now)
        silent = [host for host in self.hosts.values() if host.state not in _ENDED[self.phase]]
        for host in silent:
            host.error = host.error or "no answer"
        if self.phase is Phase.PREPARING:
            return self._abort(f"not all were ready within {self._timeout:g} s", now)
        if self.phase is Phase.ORDERING:
            self.problem = (
                f"{len(silent)} of {len(self.hosts)} have not said how it ended"
                if self.ordered or len(silent) < len(self.hosts)
                else f"the broker has not confirmed it within {self._timeout:g} s"
            )
        self.phase = Phase.OVER
        return []

    def give_up(self, reason: str, now: float) -> list[Step]:
        """The sender wants no more of it.  What has been ordered stays ordered."""
        if self.phase is Phase.PREPARING:
            return self._abort(reason, now)
        if self.phase is Phase.CALLING:
            self.problem = f"nothing was ordered: {reason}"
        elif self.phase is Phase.ORDERING:
            left = "the waiting has ended, and the order goes on"
            self.problem = (
                f"{reason}; {left if self.ordered else 'the broker has not confirmed it'}"
            )
        if self.phase is not Phase.ABORTING:
            self.phase = Phase.OVER
        return []

    def again(self) -> list[Step]:
        """What has to be sent once more when it may have been lost.  Hosts do it once."""
        return _STEPS[self.phase]

    def _count(self, now: float) -> list[Step]:
        everybody = self.phase is Phase.CALLING and len(self.hosts) == self._expect
        return self._called(now) if everybody else []

    def _called(self, now: float) -> list[Step]:
        """The roll call is over."""
        found, expected = len(self.hosts), self._expect
        if not found or (expected is not None and found < expected):
            there = "nobody" if expected is None else f"{found} of {expected} hosts"
            self.problem = f"nothing was ordered, for {there} answered the roll call"
            self.phase = Phase.OVER
            return []
        if not self._all_or_none:
            return self._order(now)
        return self._enter(Phase.PREPARING, now)

    def _enter(self, phase: Phase, now: float) -> list[Step]:
        self.phase, self._deadline = phase, now + self._timeout
        self._ask_at = now + ASK_EVERY
        return self.again()

    def _order(self, now: float) -> list[Step]:
        for host in self.hosts.values():
            host.state = "ordered"
        return self._enter(Phase.ORDERING, now)

    def _abort(self, reason: str, now: float) -> list[Step]:
        self.problem = f"none has changed: {reason}"
        steps = self._enter(Phase.ABORTING, now)
        self._deadline = now + ABORT_WITHIN
        return steps + self._advance(now)

    def _advance(self, now: float) -> list[Step]:
        states = [host.state for host in self.hosts.values()]
        bad = [host for host in self.hosts.values() if host.state in _BAD]
        if self.phase is Phase.PREPARING:
            if bad:
                return self._abort(f"{bad[0].host} {bad[0].server}: {bad[0].state}", now)
            if all(state in _ENDED[Phase.PREPARING] for state in states):
                return self._order(now)
        elif all(state in _ENDED[self.phase] for state in states):
            if self.phase is Phase.ORDERING and bad:
                self.problem = f"{len(bad)} of {len(states)} have not taken it"
            self.phase = Phase.OVER
        return []


#: The states of a host that has said all that is awaited of it.
_ENDED: Final = {
    Phase.PREPARING: _GOOD | _BAD | {Outcome.PREPARED},
    Phase.ORDERING: _GOOD | _BAD,
    Phase.ABORTING: _GOOD | _BAD,
}

_STEPS: Final = {
    Phase.CALLING: [Step.CALL],
    Phase.PREPARING: [Step.PREPARE],
    Phase.ORDERING: [Step.DEPLOY],
    Phase.ABORTING: [Step.ABORT],
    Phase.OVER: [],
}


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _seconds(value: object) -> float:
    # An int may be too large for a float.
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e9 else 0.0

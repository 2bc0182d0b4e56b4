"""Tests of genwsgi.ctl.conductor."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from genwsgi.ctl.conductor import ABORT_WITHIN, ASK_EVERY, MARGIN, ROLL_CALL, Conductor, Phase
from genwsgi.triggers.amqp.message import Step

ORDER = "order"


class Fleet:
    """A conductor, a clock, and a broker that has a call at once."""

    def __init__(self, **options: Any) -> None:
        self.conductor = Conductor(ORDER, **options)
        self.now = 0.0
        self.started = self.conductor.start(self.now)
        if self.started == [Step.CALL]:
            self.conductor.sent(Step.CALL, self.now)

    def here(self, *hosts: str) -> list[Step]:
        """Hosts answer the roll call."""
        return [step for host in hosts for step in self.say(host, "here", step="call")]

    def say(self, host: str, outcome: str, **more: Any) -> list[Step]:
        """A host answers."""
        answer = {"host": host, "server": "run", "outcome": outcome, "id": ORDER, **more}
        return self.conductor.heard(answer, self.now)

    def prepared(self, *hosts: str) -> list[Step]:
        """Hosts say that they are ready."""
        return [step for host in hosts for step in self.say(host, "prepared", step="prepare")]

    def ended(self, *hosts: str, outcome: str = "committed") -> list[Step]:
        """Hosts say how the order ended."""
        return [step for host in hosts for step in self.say(host, outcome, step="deploy")]

    def tick(self, seconds: float) -> list[Step]:
        """Time passes."""
        self.now += seconds
        return self.conductor.tick(self.now)

    @property
    def states(self) -> dict[str, str]:
        """The hosts' states."""
        return {host.host: host.state for host in self.conductor.hosts.values()}


def test_without_waiting_it_is_over_when_the_broker_has_the_order():
    """Nobody is asked for, and nobody is waited for."""
    fleet = Fleet(wait=False)
    assert fleet.started == [Step.DEPLOY]
    assert not fleet.conductor.over
    fleet.conductor.sent(Step.DEPLOY, fleet.now)
    assert (fleet.conductor.over, fleet.conductor.problem) == (True, "")


def test_whoever_answers_the_roll_call_is_waited_for():
    """Those who answer within a second are all; it is over when each has gone live."""
    fleet = Fleet()
    assert fleet.started == [Step.CALL]
    assert fleet.here("a", "b") == []
    assert fleet.tick(ROLL_CALL / 2) == []
    assert fleet.tick(ROLL_CALL) == [Step.DEPLOY]
    assert fleet.ended("a") == []
    assert not fleet.conductor.over
    fleet.ended("b", outcome="unchanged")
    assert (fleet.conductor.over, fleet.conductor.problem) == (True, "")


@pytest.mark.parametrize("expect", [None, 1])
def test_hosts_have_their_time_from_when_the_broker_has_the_call(expect: int | None):
    """A broker that is away, or slow, takes nothing of it, nor does one that has the call again."""
    conductor = Conductor(ORDER, expect=expect, timeout=ROLL_CALL)
    assert conductor.start(0.0) == [Step.CALL]
    for now in (ROLL_CALL * 2, ROLL_CALL * 100):
        conductor.tick(now)
        assert not conductor.over
    conductor.sent(Step.CALL, now)
    conductor.sent(Step.CALL, now + ROLL_CALL * 0.8)
    assert conductor.tick(now + ROLL_CALL * 0.9) == []
    assert not conductor.over
    conductor.tick(now + ROLL_CALL)
    assert "answered the roll call" in conductor.problem


def test_where_nobody_is_there_nothing_is_ordered():
    """An order that nobody hears is none."""
    fleet = Fleet()
    assert fleet.tick(ROLL_CALL) == []
    assert fleet.conductor.problem == "nothing was ordered, for nobody answered the roll call"


def test_a_number_of_hosts_is_waited_for():
    """Said how many there are, it goes on as soon as they are there, and not with fewer."""
    fleet = Fleet(expect=2, timeout=30.0)
    assert fleet.tick(ROLL_CALL * 2) == [Step.CALL]
    assert fleet.here("a") == []
    assert fleet.here("b") == [Step.DEPLOY]
    fewer = Fleet(expect=2, timeout=30.0)
    fewer.here("a")
    assert fewer.tick(30.0) == []
    assert fewer.conductor.problem == (
        "nothing was ordered, for 1 of 2 hosts answered the roll call"
    )


@pytest.mark.parametrize("outcome", ["failed", "refused", "superseded"])
def test_an_order_that_one_host_does_not_take_has_not_gone_well(outcome: str):
    """Each of the others has gone live, and the problem says how many have not."""
    fleet = Fleet()
    fleet.here("a", "b")
    fleet.tick(ROLL_CALL)
    fleet.ended("a")
    fleet.ended("b", outcome=outcome)
    assert fleet.conductor.over
    assert fleet.conductor.problem == "1 of 2 have not taken it"


def test_all_are_prepared_before_any_goes_live():
    """The order itself is sent when every host holds it, and no sooner."""
    fleet = Fleet(all_or_none=True)
    fleet.here("a", "b", "c")
    assert fleet.tick(ROLL_CALL) == [Step.PREPARE]
    assert fleet.prepared("a", "b") == []
    assert fleet.say("c", "unchanged", step="prepare") == [Step.DEPLOY]
    fleet.ended("a", "b", "c")
    assert (fleet.conductor.over, fleet.conductor.problem) == (True, "")


@pytest.mark.parametrize("outcome", ["failed", "refused", "superseded"])
def test_if_one_can_not_be_prepared_none_goes_live(outcome: str):
    """Abort is sent, and it is over when those that were ready have dropped it."""
    fleet = Fleet(all_or_none=True)
    fleet.here("a", "b", "c")
    fleet.tick(ROLL_CALL)
    fleet.prepared("a")
    step = "" if outcome == "refused" else "prepare"
    assert fleet.say("b", outcome, step=step, error="why") == [Step.ABORT]
    assert fleet.prepared("c") == []
    fleet.say("a", "failed", step="prepare")
    assert not fleet.conductor.over
    fleet.say("c", "failed", step="prepare")
    assert fleet.conductor.over
    assert fleet.conductor.problem == f"none has changed: b run: {outcome}"


def test_a_host_that_says_nothing_is_named_and_none_goes_live():
    """When the time is up the others are aborted, and soon nobody is waited for any more."""
    fleet = Fleet(all_or_none=True, timeout=30.0)
    fleet.here("a", "b")
    fleet.tick(ROLL_CALL)
    fleet.prepared("a")
    assert fleet.tick(29.0) == [Step.ASK]
    assert fleet.tick(1.0) == [Step.ABORT]
    assert fleet.conductor.hosts["b", "run"].error == "no answer"
    fleet.tick(ABORT_WITHIN)
    assert fleet.conductor.over
    assert "not all were ready within 30 s" in fleet.conductor.problem


def test_the_word_is_never_sent_after_the_first_host_may_have_given_up():
    """A host holds longer than the sender waits for all to be ready."""
    fleet = Fleet(all_or_none=True, timeout=30.0)
    assert fleet.conductor.hold == 30.0 + MARGIN


def test_there_is_no_way_back_once_the_order_is_sent():
    """A host that says nothing then is reported; nothing is aborted."""
    fleet = Fleet(all_or_none=True, timeout=30.0)
    fleet.here("a", "b")
    fleet.tick(ROLL_CALL)
    fleet.prepared("a", "b")
    fleet.ended("a")
    assert fleet.tick(30.0) == []
    assert fleet.conductor.over
    assert fleet.conductor.problem == "1 of 2 have not said how it ended"


def test_an_order_that_the_broker_never_confirms():
    """It is the broker that is named then, and not hosts of which nothing is known."""
    fleet = Fleet(wait=False, timeout=30.0)
    assert fleet.tick(30.0) == []
    assert fleet.conductor.over
    assert fleet.conductor.problem == "the broker has not confirmed it within 30 s"


def test_a_late_answer_about_preparing_is_no_outcome():
    """What a host says of a step that is over is not taken for what is awaited now."""
    fleet = Fleet(all_or_none=True)
    fleet.here("a", "b")
    fleet.tick(ROLL_CALL)
    fleet.prepared("a", "b")
    assert fleet.say("a", "failed", step="prepare") == []
    assert fleet.states == {"a": "ordered", "b": "ordered"}


def test_a_host_that_comes_in_between_has_to_be_ready_too():
    """Whoever answers takes part, whether it answered the roll call or not."""
    fleet = Fleet(all_or_none=True)
    fleet.here("a")
    fleet.tick(ROLL_CALL)
    assert fleet.say("b", "failed", step="prepare") == [Step.ABORT]


def test_answers_that_may_be_lost_are_asked_for():
    """Every two seconds, and what a host says it has never got is sent again."""
    fleet = Fleet()
    fleet.here("a")
    fleet.tick(ROLL_CALL)
    assert fleet.tick(ASK_EVERY) == [Step.ASK]
    assert fleet.tick(0.1) == []
    assert fleet.say("a", "running", step="deploy") == []
    assert fleet.say("a", "unknown", step="ask") == [Step.DEPLOY]
    assert fleet.conductor.again() == [Step.DEPLOY]


def test_an_answer_about_another_order_is_none():
    """Only answers with the id of this order count, those to a roll call too."""
    fleet = Fleet()
    fleet.say("old", "here", step="call", id="another")
    fleet.here("a")
    fleet.tick(ROLL_CALL)
    fleet.say("a", "committed", step="deploy", id="another")
    assert not fleet.conductor.over
    assert fleet.states == {"a": "ordered"}


def test_giving_up_aborts_what_is_prepared_and_ends_the_rest():
    """Until the order is sent it can be called off; then the sender only stops to wait."""
    fleet = Fleet(all_or_none=True)
    assert fleet.conductor.give_up("called off", 0.0) == []
    assert fleet.conductor.over
    assert fleet.conductor.problem == "nothing was ordered: called off"
    fleet = Fleet(all_or_none=True)
    fleet.here("a")
    fleet.tick(ROLL_CALL)
    assert fleet.conductor.give_up("called off", fleet.now) == [Step.ABORT]
    assert fleet.conductor.problem == "none has changed: called off"
    assert fleet.conductor.give_up("once more", fleet.now) == []
    assert not fleet.conductor.over


@pytest.mark.parametrize(
    ("confirmed", "problem"),
    [
        (True, "interrupted; the waiting has ended, and the order goes on"),
        (False, "interrupted; the broker has not confirmed it"),
    ],
)
def test_giving_up_what_is_ordered_takes_nothing_back(confirmed: bool, problem: str):
    """Hosts go live all the same, and that is what is said."""
    fleet = Fleet()
    fleet.here("a")
    assert fleet.tick(ROLL_CALL) == [Step.DEPLOY]
    if confirmed:
        fleet.conductor.sent(Step.DEPLOY, fleet.now)
    assert fleet.conductor.give_up("interrupted", fleet.now) == []
    assert fleet.conductor.over
    assert fleet.conductor.problem == problem


def test_giving_up_what_is_over_changes_nothing():
    """An order that ended well has ended well."""
    fleet = Fleet()
    fleet.here("a")
    fleet.tick(ROLL_CALL)
    fleet.ended("a")
    assert fleet.conductor.give_up("interrupted", fleet.now) == []
    assert fleet.conductor.problem == ""


class Conducting(RuleBasedStateMachine):
    """Hosts that answer what they like, in any order, or not at all."""

    @initialize(all_or_none=st.booleans(), expect=st.none() | st.integers(1, 3), wait=st.booleans())
    def begin(self, all_or_none, expect, wait):
        """The order is begun."""
        self.fleet = Fleet(wait=wait, all_or_none=all_or_none, expect=expect, timeout=20.0)
        self.all_or_none = all_or_none
        self.sent = list(self.fleet.started)
        self.ready: set[str] = set()

    def note(self, steps):
        """Keep what is sent."""
        if Step.DEPLOY in steps and Step.DEPLOY not in self.sent and self.all_or_none:
            assert self.ready == set(self.fleet.states), "ordered before all were ready"
        self.sent += steps
        assert not {Step.DEPLOY, Step.ABORT} <= set(self.sent), "aborted what was ordered"

    @rule(
        host=st.sampled_from("abc"),
        outcome=st.sampled_from(
            ["here", "prepared", "committed", "unchanged", "failed", "running", "unknown"]
        ),
        step=st.sampled_from(["prepare", "deploy", "ask", ""]),
    )
    def answer(self, host, outcome, step):
        """A host answers anything."""
        ready = outcome in ("prepared", "committed", "unchanged") and step in ("prepare", "")
        if ready and self.fleet.conductor.phase is Phase.PREPARING:
            self.ready.add(host)
        self.note(self.fleet.say(host, outcome, step=step))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 25.0]))
    def pass_time(self, seconds):
        """Time passes."""
        self.note(self.fleet.tick(seconds))

    @invariant()
    def it_comes_to_an_end(self):
        """With nobody answering any more it is over within its time."""
        if not hasattr(self, "fleet") or self.sent == [Step.DEPLOY]:
            return
        fleet = copy.deepcopy(self.fleet)
        for _ in range(20):
            fleet.tick(5.0)
        assert fleet.conductor.over
        assert fleet.conductor.problem or set(fleet.states.values()) <= {"committed", "unchanged"}


TestConducting = Conducting.TestCase
TestConducting.__doc__ = "Whatever hosts answer: all were ready before any was ordered, or none."
TestConducting.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)

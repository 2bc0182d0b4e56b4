"""The two-phase decision, rule by rule; its model test is in ``test_coordinator_model``."""

from __future__ import annotations

import dataclasses

import pytest

from genwsgi.deploy.actions import Held, Phase, Stage
from genwsgi.deploy.coordinator import (
    LEGAL,
    Order,
    Record,
    Report,
    Send,
    TakeSnapshot,
)
from genwsgi.deploy.framing import encode
from genwsgi.deploy.moves import ACKNOWLEDGE_WITHIN
from genwsgi.deploy.protocol import (
    Abort,
    Building,
    Commit,
    Committed,
    Failed,
    Generations,
    Hello,
    Outcome,
    Prepare,
    Ready,
    Release,
    Step,
    Welcome,
)
from genwsgi.deploy.running import GROWTHS
from genwsgi.generations.status import GenerationStatus
from genwsgi.isolation.scope import Addition
from tests.deploy.host import FIRST, HOLD, NEW, TIMEOUT, Host, an_order, messages, reports

# -- the way of a good deploy

#: What those are told who build what another one has looked at.
ALSO = Prepare(NEW, look=False)


def test_a_deploy_goes_from_one_worker_to_all_to_committed():
    """One worker builds first and looks at its scope, then the others build; then Record, Commit to
    all, and the Report.
    """
    host = Host(3)
    order = an_order()
    assert host.order() == [TakeSnapshot(order)]
    assert host.taken() == [Send(1, Prepare(NEW))]
    assert host.coordinator.phase == "canary"
    assert host.ready(1) == [Send(2, ALSO), Send(3, ALSO)]
    assert host.coordinator.phase == "preparing"
    assert host.ready(3) == []
    host.now = 1.0
    assert host.ready(2) == [Record(NEW), *(Send(worker, Commit(2)) for worker in (1, 2, 3))]
    assert host.coordinator.release == NEW
    assert host.coordinator.phase == "committing"
    assert host.swapped(2, 1) == []
    host.now = 1.5
    (report,) = host.swapped(3)
    assert report == Report(order, host.last)
    assert (report.outcome.id, report.outcome.outcome) == ("a", Outcome.COMMITTED)
    assert (report.outcome.release, report.outcome.seconds) == (2, 1.5)
    assert (report.outcome.reason, report.outcome.traceback) == ("", "")
    assert host.coordinator.phase == "idle"
    assert {one.release for one in host.coordinator.participants} == {2}
    assert host.ignored == 0


def test_a_deploy_to_one_worker_needs_no_second():
    """With one worker, the canary is all: when it is ready the release is committed."""
    host = Host(1)
    host.order()
    host.taken()
    assert host.ready(1) == [Record(NEW), Send(1, Commit(2))]


def test_the_canary_is_a_worker_that_has_nothing_to_catch_up():
    """A worker that still has to swap or to boot is not the one that builds first."""
    host = Host(0)
    host.hello(1, current=None)
    host.hello(2, current=Release(0, "older", "start", "", 0.0))
    host.hello(3)
    host.order()
    assert messages(host.taken()) == [(3, Prepare(NEW))]


def test_each_release_has_a_number_of_its_own():
    """A number is never given twice, not even that of a deploy that failed."""
    host = Host(1)
    for number in (2, 3, 4):
        host.order(str(number))
        assert messages(host.taken(f"code {number}"))[0][1].release.number == number
        host.call("failed", 1, Failed(number, "no", ""))


# -- all or none


def test_a_failure_in_the_canary_disturbs_nobody_else():
    """If the first worker fails, only it is told to discard; the others never heard of it."""
    host = Host(3).to(Phase.CANARY)
    did = host.call("failed", 1, Failed(2, "ValueError: no", "Traceback: no"))
    assert [to for to, _ in messages(did)] == [1]
    assert isinstance(messages(did, 1)[0], Abort)
    (outcome,) = reports(did)
    assert (outcome.outcome, outcome.release) == (Outcome.FAILED, 2)
    assert (outcome.reason, outcome.traceback) == ("worker 101: ValueError: no", "Traceback: no")
    assert host.coordinator.release == FIRST
    assert host.coordinator.phase == "idle"


@pytest.mark.parametrize("blameless", [True, False])
def test_code_that_is_not_to_blame_is_not_remembered_as_bad(blameless):
    """The watch deploys it again as it is if a worker lacked something else, and only then."""
    host = Host(1).to(Phase.CANARY)
    host.call("failed", 1, Failed(2, "no", "", blameless=blameless))
    host.order("b", trigger="watch")
    did = host.taken()
    assert any(isinstance(message, Prepare) for message in messages(did, 1)) is blameless


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_one_failure_aborts_all_who_were_told(failing):
    """If any worker fails, each that was told to build is told to discard, and nothing commits."""
    host = Host(3).to(Phase.PREPARING)
    host.ready(3)
    did = host.call("failed", failing, Failed(2, "no", ""))
    assert [(to, message.release) for to, message in messages(did)] == [(1, 2), (2, 2), (3, 2)]
    assert all("no" in message.reason for _, message in messages(did))
    assert host.outcomes() == [("a", Outcome.FAILED)]
    assert not any(isinstance(action, Record) for action in host.done)


def test_a_worker_that_dies_while_it_builds_aborts_the_deploy():
    """If a worker that was told to build goes away, the others discard and the outcome names it."""
    host = Host(2).to(Phase.PREPARING)
    did = host.call("gone", 2)
    assert [to for to, _ in messages(did)] == [1]
    assert host.last.outcome == Outcome.FAILED
    assert "102" in host.last.reason
    assert "building" in host.last.reason


@pytest.mark.parametrize("phase", [Phase.CANARY, Phase.PREPARING])
def test_a_worker_that_dies_before_it_has_begun_is_one_less(phase):
    """A worker that is told to build and goes away before it has begun is nothing to the deploy:
    where it was to be the first, another one is.
    """
    host = Host(3)
    host.order()
    host.taken()
    if phase is Phase.PREPARING:
        host.building(1)
        host.ready(1)
    did = host.call("gone", 1 if phase is Phase.CANARY else 2)
    assert messages(did) == ([(2, Prepare(NEW))] if phase is Phase.CANARY else [])
    left = [2, 3] if phase is Phase.CANARY else [3]
    for worker in left:
        did = host.ready(worker)
    assert isinstance(did[0], Record)
    assert not host.outcomes()


def test_a_ready_worker_that_goes_away_aborts_the_deploy():
    """A worker that said Ready and is gone before the commit aborts the deploy as well."""
    host = Host(2).to(Phase.PREPARING)
    assert messages(host.call("gone", 1), 2) != []
    assert "ready" in host.last.reason


def test_another_worker_builds_first_when_the_canary_leaves():
    """A canary that leaves in good order, and is gone then, hands its part to another worker."""
    host = Host(2).to(Phase.CANARY)
    assert host.call("leaving", 1) == [Send(2, Prepare(NEW))]
    assert host.call("gone", 1) == []
    assert host.ready(2) == [Record(NEW), Send(2, Commit(2))]


def test_the_others_build_while_the_first_looks_at_the_scope():
    """When only the look is left to the worker that builds first, all others begin; the commit is
    for when all are ready.
    """
    host = Host(3).to(Phase.CANARY)
    assert host.looking(1) == [Send(2, ALSO), Send(3, ALSO)]
    assert host.coordinator.phase == "preparing"
    assert host.ready(2, 3) == []
    assert host.ready(1)[0] == Record(NEW)


def test_a_look_that_finds_something_ends_the_builds_of_all():
    """What the look of the first finds begins the deploy anew, though the others build already."""
    host = Host(2).to(Phase.CANARY)
    host.looking(1)
    kit = Addition("kit", "it imports shop")
    did = host.call("failed", 1, Failed(2, "too small", "", (kit,)))
    assert [(to, type(message)) for to, message in messages(did)] == [(1, Abort), (2, Abort)]
    assert did[-1] == TakeSnapshot(an_order(), (kit,))


@pytest.mark.parametrize("end", ["leaving", "hello"])
def test_nothing_is_committed_that_nobody_has_looked_at(end):
    """When the worker that looks at the scope leaves, or has lost its build with its connection,
    another one builds first, under another number; what is told of the old one counts no more.
    """
    host = Host(2).to(Phase.CANARY)
    host.looking(1)
    host.building(2)
    did = host.call("leaving", 1) if end == "leaving" else host.hello(7, pid=101)
    again = dataclasses.replace(NEW, number=3)
    abort, prepare = messages(did, 2)
    assert (type(abort), prepare) == (Abort, Prepare(again))
    assert host.coordinator.phase == "canary"
    assert host.ready(2) == []
    did = host.ready(2, release=3)
    if end == "hello":
        assert did == [Send(7, Prepare(again, look=False))]
        did = host.ready(7, release=3)
    assert did[0] == Record(again)


def test_a_worker_that_dies_while_it_looks_ends_the_deploy():
    """The look's worker is waited for like the others; its code has killed nobody, and is tried
    again by the watch.
    """
    host = Host(2).to(Phase.CANARY)
    host.looking(1)
    host.call("gone", 1)
    assert host.last.reason == "worker 101 went away when it was looking"
    host.order("b", "watch")
    assert messages(host.taken()) != []


def test_a_ready_worker_may_leave():
    """A deploy goes on with those who stay when one that was ready leaves in good order."""
    host = Host(2).to(Phase.PREPARING)
    assert host.call("leaving", 1) == []
    assert host.ready(2) == [Record(NEW), Send(2, Commit(2))]


def test_a_deploy_waits_for_a_worker_when_all_have_left():
    """Nothing is committed while nobody is ready: whoever comes next builds."""
    host = Host(2).to(Phase.PREPARING)
    host.call("leaving", 1)
    assert host.call("leaving", 2) == []
    assert host.coordinator.release == FIRST
    assert host.hello(3) == [Send(3, Welcome(FIRST)), Send(3, Prepare(NEW))]
    assert host.ready(3) == [Record(NEW), Send(3, Commit(2))]


def test_the_last_worker_that_is_waited_for_may_leave():
    """When the only one that has not swapped leaves in good order the deploy is over, committed."""
    host = Host(2).to(Phase.COMMITTING)
    host.swapped(1)
    assert reports(host.call("leaving", 2))[0].outcome == Outcome.COMMITTED


def test_a_worker_that_was_not_told_may_go_away():
    """In the canary phase another worker that goes away is forgotten, and the deploy goes on."""
    host = Host(2).to(Phase.CANARY)
    assert host.call("gone", 2) == []
    assert host.ready(1) == [Record(NEW), Send(1, Commit(2))]


@pytest.mark.parametrize("phase", [Phase.CANARY, Phase.PREPARING])
def test_a_build_that_takes_too_long_aborts_the_deploy(phase):
    """The time limit runs from the canary's start over both phases, and names who builds still."""
    host = Host(2)
    host.order()
    host.now = 5.0
    host.taken()
    host.now = 30.0
    if phase is Phase.PREPARING:
        host.ready(1)
    assert host.coordinator.next_deadline() == 5.0 + TIMEOUT
    assert host.tick(4.9 + TIMEOUT) == []
    did = host.tick(5.0 + TIMEOUT)
    assert reports(did)[0].outcome == Outcome.FAILED
    late = 101 if phase is Phase.CANARY else 102
    assert host.last.reason == f"worker {late} not ready within 60 s"
    assert host.coordinator.phase == "idle"


def test_a_process_that_serves_and_is_not_connected_holds_up_the_commit():
    """All workers are ready, but the commit waits until the last process that serves is, too."""
    host = Host(1).to(Phase.CANARY)
    host.call("serving", frozenset({101, 155}))
    assert host.ready(1) == []
    assert host.coordinator.phase == "preparing"
    assert host.hello(5, pid=155) == [Send(5, Welcome(FIRST)), Send(5, ALSO)]
    assert host.ready(5) == [Record(NEW), Send(1, Commit(2)), Send(5, Commit(2))]


def test_a_process_that_does_not_serve_any_more_is_not_waited_for():
    """The commit happens as soon as the absent process has stopped to serve."""
    host = Host(1).to(Phase.CANARY)
    host.call("serving", frozenset({101, 155}))
    host.ready(1)
    assert host.call("serving", frozenset({101}))[0] == Record(NEW)


def test_a_process_that_serves_and_never_connects_fails_the_deploy():
    """A process that serves and does not connect in time fails the deploy, which names it."""
    host = Host(1).to(Phase.CANARY)
    host.call("serving", frozenset({155}))
    host.ready(1)
    host.tick(TIMEOUT)
    assert host.outcomes() == [("a", Outcome.FAILED)]
    assert host.last.reason == "worker 155 not connected within 60 s"


def test_an_unknown_worker_cannot_leave():
    """Leaving from a connection that said no Hello has no effect, and is counted."""
    host = Host(1)
    assert host.call("leaving", 9) == []
    assert host.ignored == 1


# -- after the Record


def test_a_worker_that_dies_after_the_record_does_not_fail_the_deploy():
    """After the Record a worker may go away: the one that replaces it boots the new release."""
    host = Host(2).to(Phase.COMMITTING)
    assert host.call("gone", 1) == []
    assert reports(host.swapped(2))[0].outcome == Outcome.COMMITTED
    assert host.coordinator.release == NEW


def test_the_last_worker_that_is_waited_for_may_die():
    """When the only missing worker goes away the deploy is over, committed."""
    host = Host(2).to(Phase.COMMITTING)
    host.swapped(1)
    assert reports(host.call("gone", 2))[0].outcome == Outcome.COMMITTED


def test_a_missing_acknowledgement_is_named_and_does_not_fail_the_deploy():
    """Who has not confirmed in ten seconds is named in the reason of a committed outcome."""
    host = Host(2).to(Phase.COMMITTING)
    host.swapped(1)
    assert host.coordinator.next_deadline() == ACKNOWLEDGE_WITHIN
    (outcome,) = reports(host.tick(ACKNOWLEDGE_WITHIN))
    assert outcome.outcome == Outcome.COMMITTED
    assert "102" in outcome.reason
    assert "101" not in outcome.reason
    assert host.swapped(2) == []
    assert host.coordinator.participants[1].release == 2


def test_a_worker_that_cannot_swap_is_named_and_does_not_fail_the_deploy():
    """Failed after the Record is told in the outcome's reason, and in the worker's state."""
    host = Host(2).to(Phase.COMMITTING)
    host.call("failed", 1, Failed(2, "MemoryError", "Traceback"))
    (outcome,) = reports(host.swapped(2))
    assert (outcome.outcome, outcome.reason) == (
        Outcome.COMMITTED,
        "worker 101 could not swap: MemoryError",
    )
    assert host.coordinator.participants[0].problem == "MemoryError"


def test_a_worker_that_cannot_catch_up_is_remembered_until_it_can():
    """Failed for the committed release has no effect but in the worker's state; a swap ends it."""
    host = Host(2)
    assert host.call("failed", 1, Failed(1, "no memory", "")) == []
    assert [one.problem for one in host.coordinator.participants] == ["no memory", ""]
    assert host.swapped(1, release=1) == []
    assert [one.problem for one in host.coordinator.participants] == ["", ""]
    assert host.ignored == 0


def test_catching_up_during_a_deploy_does_not_end_it():
    """A worker that fails to catch up, or does catch up, during a deploy has no effect on it."""
    host = Host(2).to(Phase.PREPARING)
    assert host.call("failed", 2, Failed(1, "no memory", "")) == []
    assert host.swapped(2, release=1) == []
    assert host.ready(2)[0] == Record(NEW)


def test_a_record_that_fails_leaves_the_old_release_committed():
    """If the Record fails all are told to discard, the outcome is failed, and nothing changed."""
    host = Host(2).to(Phase.COMMITTING)
    did = host.call("record_failed", "disk full")
    assert [(to, type(message)) for to, message in messages(did)] == [(1, Abort), (2, Abort)]
    assert (host.last.outcome, host.last.reason) == (Outcome.FAILED, "disk full")
    assert host.coordinator.release == FIRST
    assert host.hello(3) == [Send(3, Welcome(FIRST))]
    host.order("b", "watch")
    assert messages(host.taken())[0][1] == Prepare(
        dataclasses.replace(NEW, number=3, trigger="watch")
    )


@pytest.mark.parametrize(
    "between", [("hello", 3, Hello(103, FIRST, None)), ("tick",), ("committed", 1, Committed(2, 2))]
)
def test_a_record_cannot_fail_once_anything_else_has_happened(between):
    """record_failed after any other input is too late: workers may run the release already."""
    host = Host(2).to(Phase.COMMITTING)
    host.call(*between)
    assert host.call("record_failed", "disk full") == []
    assert host.coordinator.release == NEW
    assert host.ignored == 1


# -- hello


@pytest.mark.parametrize("phase", Phase)
def test_hello_is_always_answered_with_the_committed_release(phase):
    """In every phase the first thing that a worker hears is what it must run."""
    host = Host(2).to(phase)
    did = host.hello(3)
    assert did[0] == Send(3, Welcome(NEW if phase is Phase.COMMITTING else FIRST))
    goes_on = (Phase.PREPARING, Phase.HOLDING)
    assert messages(did, 3)[1:] == ([ALSO] if phase in goes_on else [])


def test_a_newcomer_takes_part_from_the_canary_on():
    """A worker that connects while the canary builds is told to build with all the others."""
    host = Host(1).to(Phase.CANARY)
    host.hello(2)
    assert host.ready(1) == [Send(2, ALSO)]
    assert host.ready(2) == [Record(NEW), Send(1, Commit(2)), Send(2, Commit(2))]


def test_the_first_newcomer_is_the_canary():
    """If no worker was connected the first that connects builds first, alone."""
    host = Host(0)
    host.order()
    assert host.taken() == []
    assert messages(host.hello(1)) == [(1, Welcome(FIRST)), (1, Prepare(NEW))]
    assert messages(host.hello(2)) == [(2, Welcome(FIRST))]


def test_a_newcomer_that_dies_aborts_the_deploy():
    """A newcomer that was told to build counts like the others."""
    host = Host(2).to(Phase.PREPARING)
    host.hello(3)
    host.building(3)
    host.call("gone", 3)
    assert host.outcomes() == [("a", Outcome.FAILED)]


def test_an_agent_that_connects_again_has_not_lost_its_build():
    """A worker that says Hello with the release in progress prepared is ready; the old is over."""
    host = Host(2).to(Phase.PREPARING)
    assert host.hello(7, pid=102, prepared=NEW) == [
        Send(7, Welcome(FIRST)),
        Record(NEW),
        Send(1, Commit(2)),
        Send(7, Commit(2)),
    ]
    assert host.call("gone", 2) == []
    assert reports(host.swapped(1, 7))[0].outcome == Outcome.COMMITTED


def test_an_agent_that_connects_again_without_its_build_builds_again():
    """A worker that says Hello again, nothing prepared, is told to build; nothing is aborted."""
    host = Host(2).to(Phase.PREPARING)
    assert host.hello(7, pid=102) == [Send(7, Welcome(FIRST)), Send(7, ALSO)]
    assert host.call("gone", 2) == []
    assert host.ready(2) == []
    assert host.ready(7)[0] == Record(NEW)


def test_a_canary_that_connects_again_does_not_end_the_deploy():
    """If the canary's agent comes back with nothing prepared, one worker builds first, as ever."""
    host = Host(2).to(Phase.CANARY)
    assert messages(host.hello(7, pid=101)) == [(7, Welcome(FIRST)), (2, Prepare(NEW))]
    assert host.coordinator.phase == "canary"
    assert host.call("gone", 1) == []
    assert host.ready(2) == [Send(7, ALSO)]


def test_an_agent_that_connects_again_too_late_discards():
    """What a worker has prepared of a deploy that is over it is told to discard."""
    host = Host(2).to(Phase.PREPARING)
    host.call("gone", 2)
    welcome, abort = messages(host.hello(7, pid=102, prepared=NEW), 7)
    assert welcome == Welcome(FIRST)
    assert (type(abort), abort.release) == (Abort, 2)


def test_an_agent_that_connects_again_during_the_commit_is_waited_for():
    """Its old connection's part passes to the new one; if it swapped already there is none."""
    host = Host(2).to(Phase.COMMITTING)
    assert host.hello(7, pid=101, prepared=NEW) == [Send(7, Welcome(NEW))]
    assert host.swapped(2) == []
    assert reports(host.hello(8, pid=101, current=NEW))[0].outcome == Outcome.COMMITTED


def test_a_newcomer_during_the_commit_is_not_waited_for():
    """A worker that connects during the commit boots the new release in its own time."""
    host = Host(2)
    host.to(Phase.COMMITTING)
    host.hello(3, current=None)
    assert reports(host.swapped(1, 2))[0].outcome == Outcome.COMMITTED


# -- a restarted coordinator


def test_a_restarted_coordinator_lets_workers_catch_up():
    """A worker that has the committed release prepared hears Welcome only, and may swap."""
    host = Host(0, committed=NEW)
    assert host.hello(1, current=FIRST, prepared=NEW) == [Send(1, Welcome(NEW))]
    assert host.swapped(1) == []
    assert host.coordinator.participants[0].release == 2


def test_a_restarted_coordinator_gives_no_number_again():
    """The next number is above every number that a worker has seen, committed or not."""
    host = Host(0)
    host.hello(1, prepared=Release(7, "lost", "ctl", "", 0.0))
    host.order()
    assert messages(host.taken())[0][1].release.number == 8


@pytest.mark.parametrize("seen", [2, 5])
@pytest.mark.parametrize("phase", [Phase.CANARY, Phase.PREPARING])
def test_a_number_that_turns_out_to_be_taken_is_given_up(phase, seen):
    """If a worker knows another release by this number or a later one, all build it anew."""
    host = Host(2).to(phase)
    did = host.hello(3, prepared=Release(seen, "lost", "ctl", "", 0.0))
    aborted = [(to, sent.release) for to, sent in messages(did) if isinstance(sent, Abort)]
    told = [(1, 2)] if phase is Phase.CANARY else [(1, 2), (2, 2)]
    assert aborted == [(3, seen), *told]
    assert Send(1, Prepare(dataclasses.replace(NEW, number=seen + 1))) in did
    assert messages(did, 3)[0] == Welcome(FIRST)
    assert host.coordinator.phase == "canary"
    assert host.ready(1, release=2) == []
    host.ready(1, release=seen + 1)
    host.ready(2, release=seen + 1)
    assert host.ready(3, release=seen + 1)[0] == Record(dataclasses.replace(NEW, number=seen + 1))


def test_the_same_number_of_other_code_is_not_ready():
    """A worker with this number prepared from another snapshot does not count as ready."""
    host = Host(1).to(Phase.CANARY)
    host.hello(2, prepared=Release(2, "lost", "ctl", "", 0.0))
    assert not any(isinstance(action, Record) for action in host.done)
    assert Stage.READY not in {one.stage for one in host.coordinator.participants}


# -- what is not meant for now


EVENTS: dict[str, tuple[object, ...]] = {
    "order": (an_order("late"),),
    "word": ("another",),
    "withdraw": ("another", "no"),
    "snapshot_taken": (),
    "snapshot_failed": ("no", ""),
    "hello": (3, Hello(103, FIRST, None)),
    "building": (2, Building(2, Step.BUILDING, 3, 9)),
    "ready": (2, Ready(2, 0.1)),
    "failed": (2, Failed(9, "no", "")),
    "committed": (2, Committed(9, 9)),
    "leaving": (2,),
    "gone": (2,),
    "serving": (frozenset({101, 102}),),
    "record_failed": ("disk full",),
    "tick": (),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("phase", Phase)
def test_every_event_in_every_phase_keeps_to_the_table(phase, event):
    """An input that the phase does not list changes nothing; every other raises nothing."""
    host = Host(2).to(phase)
    before = host.coordinator.statistics()
    did = host.taken() if event == "snapshot_taken" else host.call(event, *EVENTS[event])
    after = host.coordinator.statistics()
    if event not in LEGAL[phase]:
        assert did == []
        assert after == dataclasses.replace(before, ignored=before.ignored + 1)
    elif event not in ("failed", "committed") and (phase, event) not in (
        (Phase.CANARY, "building"),
        (Phase.CANARY, "ready"),
        (Phase.HOLDING, "ready"),
    ):
        assert after.ignored == before.ignored
    assert host.coordinator.phase in Phase
    assert repr(host.coordinator).startswith(f"<Coordinator {host.coordinator.phase.value}, ")


@pytest.mark.parametrize(
    ("name", "worker", "message"),
    [
        ("building", 2, Building(3, Step.BUILDING, 3, 9)),
        ("building", 9, Building(2, Step.BUILDING, 3, 9)),
        ("ready", 2, Ready(1, 0.1)),
        ("ready", 2, Ready(3, 0.1)),
        ("ready", 1, Ready(2, 0.1)),
        ("ready", 9, Ready(2, 0.1)),
        ("failed", 2, Failed(3, "no", "")),
        ("failed", 9, Failed(2, "no", "")),
        ("committed", 2, Committed(2, 2)),
        ("committed", 9, Committed(1, 2)),
    ],
)
def test_a_message_that_is_not_about_the_deploy_is_ignored(name, worker, message):
    """Another number, an unknown connection or a repetition is counted and has no effect."""
    host = Host(2).to(Phase.PREPARING)
    assert host.call(name, worker, message) == []
    assert host.ignored == 1
    assert host.coordinator.phase == "preparing"
    assert host.ready(2)[0] == Record(NEW)


def test_ready_from_a_worker_that_was_not_told_is_ignored():
    """In the canary phase another worker's Ready does not count."""
    host = Host(2).to(Phase.CANARY)
    assert host.ready(2) == []
    assert host.coordinator.phase == "canary"
    assert host.ignored == 1


def test_a_connection_that_is_gone_twice_is_gone_once():
    """Losing an unknown connection has no effect, and is counted."""
    host = Host(2)
    assert host.call("gone", 1) + host.call("gone", 1) == []
    assert host.ignored == 1


# -- what can be asked


def test_snapshots_are_needed_while_anything_may_read_them():
    """Needed are the committed release, that in progress, and what workers serve or hold."""
    host = Host(1)
    host.hello(2, current=Release(0, "older", "start", "", 0.0))
    assert host.coordinator.needed() == {"old", "older"}
    host.order()
    host.taken()
    assert host.coordinator.needed() == {"old", "older", "new"}
    host.call("failed", 1, Failed(2, "no", ""))
    assert host.coordinator.needed() == {"old", "older"}
    host.call("gone", 2)
    assert host.coordinator.needed() == {"old"}


def test_the_old_snapshot_is_needed_until_the_last_worker_has_swapped():
    """The code that a worker still serves stays, though another release is committed."""
    host = Host(2).to(Phase.COMMITTING)
    host.swapped(1)
    assert host.coordinator.needed() == {"old", "new"}
    host.swapped(2)
    assert host.coordinator.needed() == {"new"}


def test_the_status_tells_the_release_the_phase_and_the_workers():
    """The status message holds what the coordinator knows and what the triggers say."""
    host = Host(1)
    host.hello(2, current=None)
    status = host.coordinator.status({"watch": {"watching": 3}})
    assert (status.release, status.phase, status.last) == (FIRST, "idle", None)
    assert [(one.pid, one.release) for one in status.workers] == [(101, 1), (102, None)]
    assert status.triggers == {"watch": {"watching": 3}}


def test_participants_tell_how_far_they_are():
    """Each worker's stage follows the deploy: connected, told, building, ready, swapping, and
    connected again.
    """
    host = Host(2)
    stages = []
    for step in (
        host.order,
        host.taken,
        lambda: host.building(1),
        lambda: host.ready(1),
        lambda: host.building(2),
        lambda: host.ready(2),
        lambda: host.swapped(1),
    ):
        step()
        stages.append([one.stage.value for one in host.coordinator.participants])
    assert stages == [
        ["connected", "connected"],
        ["told", "connected"],
        ["building", "connected"],
        ["ready", "told"],
        ["ready", "building"],
        ["swapping", "swapping"],
        ["connected", "swapping"],
    ]


def test_statistics_count_orders():
    """The statistics are one frozen moment, and count what came."""
    host = Host(1)
    host.order("a")
    host.taken()
    host.order("b")
    host.order("c")
    host.ready(9)
    statistics = host.coordinator.statistics()
    assert (statistics.phase, statistics.release, statistics.in_progress) == ("canary", 1, 2)
    assert (statistics.running, statistics.waiting, statistics.workers) == ("a", "c", 1)
    assert (statistics.orders, statistics.ignored) == (3, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        statistics.orders = 0  # type: ignore[misc]


def test_long_texts_are_clipped():
    """Detail, reason and traceback are cut so that every message they travel in fits a frame."""
    host = Host(1)
    host.call("order", Order("a", "ctl", False, "x" * 10**6))
    (prepare,) = messages(host.taken(), 1)
    assert len(prepare.release.detail) <= 1 << 16
    (outcome,) = reports(host.call("failed", 1, Failed(2, "y" * 10**6, "z" * 10**6)))
    assert max(len(outcome.reason), len(outcome.traceback)) <= 1 << 16


# -- a scope that is too small


PROM = Addition("prometheus_client", "keeps a registry of metrics")
MITES = Addition("mites", "imports shop (mites: import shop)")
LIBRARY = Addition("", "the application has put it on sys.path", "/srv/shop/lib")


def too_small(host, worker, release, *additions):
    """A worker's build of ``release`` shows that ``additions`` belong in the scope."""
    message = Failed(release, "the scope is too small", "", additions)
    return host.call("failed", worker, message)


@pytest.mark.parametrize("phase", [Phase.CANARY, Phase.PREPARING])
def test_a_scope_that_is_too_small_begins_the_deploy_anew(phase):
    """All who were told to build discard, and the source is read again with what is to join."""
    host = Host(2).to(phase)
    did = too_small(host, 1, 2, PROM)
    asked = [1] if phase is Phase.CANARY else [1, 2]
    assert [(to, message.release) for to, message in messages(did)] == [(to, 2) for to in asked]
    assert did[-1] == TakeSnapshot(an_order(), (PROM,))
    assert host.coordinator.phase == "reading"
    assert host.outcomes() == []
    again = Release(3, "new, larger", "ctl", "by hand", 1000.0)
    assert host.taken("new, larger") == [Send(1, Prepare(again))]
    host.ready(1, 2, release=3)
    host.swapped(1, 2, release=3)
    assert host.outcomes() == [("a", Outcome.COMMITTED)]
    assert host.last.release == 3
    assert host.last.reason == ("prometheus_client joins the scope: keeps a registry of metrics")


def test_a_deploy_that_begins_anew_has_all_its_time_again():
    """Reading again, and building again, each have as long as at the first time."""
    host = Host(1).to(Phase.CANARY)
    host.now = TIMEOUT - 1
    too_small(host, 1, 2, PROM)
    assert host.coordinator.next_deadline() == 2 * TIMEOUT - 1
    host.now = 2 * TIMEOUT - 2
    host.taken("new, larger")
    assert host.coordinator.next_deadline() == 3 * TIMEOUT - 2


def test_a_scope_that_did_not_grow_is_a_failure():
    """What has joined the scope already can't be why it is too small: the deploy fails."""
    host = Host(1).to(Phase.CANARY)
    too_small(host, 1, 2, PROM)
    host.taken("new, larger")
    host.call("failed", 1, Failed(3, "still too small", "Traceback", (PROM,)))
    assert host.outcomes() == [("a", Outcome.FAILED)]
    assert (host.last.release, host.last.reason) == (3, "worker 101: still too small")
    assert host.last.traceback == "Traceback"


def test_each_round_adds_to_those_before():
    """What joined stays, folders too, and only what is new is said to be new."""
    host = Host(1).to(Phase.CANARY)
    assert too_small(host, 1, 2, PROM)[-1].additions == (PROM,)
    host.taken("larger")
    assert too_small(host, 1, 3, PROM, MITES)[-1].additions == (PROM, MITES)
    host.taken("larger still")
    assert too_small(host, 1, 4, LIBRARY)[-1].additions == (PROM, MITES, LIBRARY)
    host.taken("largest")
    host.ready(1, release=5)
    host.swapped(1, release=5)
    assert host.last.reason.split("; ") == [
        "prometheus_client joins the scope: keeps a registry of metrics",
        "mites joins the scope: imports shop (mites: import shop)",
        "/srv/shop/lib joins the scope: the application has put it on sys.path",
    ]


def test_a_scope_that_grows_for_ever_is_a_failure():
    """A deploy begins anew so many times, and no more."""
    host = Host(1).to(Phase.CANARY)
    for number in range(GROWTHS):
        too_small(host, 1, 2 + number, Addition(f"package{number}", "it imports shop"))
        host.taken(f"larger {number}")
    too_small(host, 1, 2 + GROWTHS, Addition("one_more", "it imports shop"))
    assert host.outcomes() == [("a", Outcome.FAILED)]


def test_the_next_deploy_begins_with_the_committed_scope():
    """What joined for a deploy that failed does not join for the next one."""
    host = Host(1).to(Phase.CANARY)
    too_small(host, 1, 2, PROM)
    host.taken("new, larger")
    host.call("failed", 1, Failed(3, "ValueError", ""))
    assert host.order("b") == [TakeSnapshot(an_order("b"))]


def test_only_the_first_word_of_a_small_scope_counts():
    """Another worker that finds the same, of the release that is given up, is not heard."""
    host = Host(2).to(Phase.PREPARING)
    too_small(host, 1, 2, PROM)
    assert too_small(host, 2, 2, PROM) == []
    assert host.ignored == 1
    assert host.coordinator.phase == "reading"


def test_a_worker_that_dies_meanwhile_does_not_end_the_order():
    """While the source is read anew nobody builds, so nobody's death is about the release."""
    host = Host(2).to(Phase.PREPARING)
    too_small(host, 1, 2, PROM)
    host.call("gone", 1)
    assert messages(host.taken("new, larger"))[0][0] == 2


def test_the_watch_does_not_retry_code_that_failed_with_a_larger_scope():
    """Code that failed is known by each of its snapshots: the small scope's is read first."""
    host = Host(1)
    host.order("a", "watch")
    host.taken("new")
    too_small(host, 1, 2, PROM)
    host.taken("new, larger")
    host.call("failed", 1, Failed(3, "ValueError", ""))
    host.order("b", "watch")
    host.taken("new")
    assert host.outcomes() == [("a", Outcome.FAILED), ("b", Outcome.UNCHANGED)]


def test_an_order_that_waits_need_not_wait_for_another_round():
    """A deploy that begins anew gives way to a newer order as any other does."""
    host = Host(1).to(Phase.CANARY)
    host.order("b")
    too_small(host, 1, 2, PROM)
    host.tick(host.coordinator.next_deadline())
    assert host.outcomes() == [("a", Outcome.SUPERSEDED)]
    assert host.taken("late") == []
    assert messages(host.taken("b's"))[0][1].release.digest == "b's"


# -- the word


def test_a_held_release_waits_for_the_word():
    """When all are ready the order is told so and nothing is committed until the word comes."""
    host = Host(2)
    order = an_order(hold=HOLD)
    host.order(hold=HOLD)
    host.taken()
    host.ready(1)
    host.now = 1.5
    assert host.ready(2) == [Held(order, 2, 1.5)]
    assert host.coordinator.phase == "holding"
    assert host.tick(30.0) == []
    assert host.call("word", "another") == []
    assert host.call("word", "a") == [Record(NEW), Send(1, Commit(2)), Send(2, Commit(2))]
    host.swapped(1, 2)
    assert host.outcomes() == [("a", Outcome.COMMITTED)]


def test_an_order_is_told_once_that_it_is_prepared():
    """Not again, though a worker that came while it was held had the deploy begin anew."""
    host = Host(1).to(Phase.HOLDING)
    host.hello(2)
    too_small(host, 2, 2, PROM)
    host.taken("new, larger")
    host.ready(1, 2, release=3)
    assert host.coordinator.phase == "holding"
    assert [action.release for action in host.done if isinstance(action, Held)] == [2]
    host.call("word", "a")
    host.swapped(1, 2, release=3)
    assert host.outcomes() == [("a", Outcome.COMMITTED)]


@pytest.mark.parametrize("phase", [Phase.READING, Phase.CANARY, Phase.PREPARING])
def test_the_word_may_come_before_all_are_ready(phase):
    """A word that comes early is kept: the release is committed as soon as all are ready."""
    host = Host(2)
    host.order(hold=HOLD)
    if phase is Phase.READING:
        assert host.call("word", "a") == []
    host.taken()
    if phase is Phase.CANARY:
        assert host.call("word", "a") == []
    host.ready(1)
    if phase is Phase.PREPARING:
        assert host.call("word", "a") == []
    assert host.ready(2)[0] == Record(NEW)


def test_no_word_within_the_time_is_an_abort():
    """A hold has a deadline: then all discard, and the outcome says why."""
    host = Host(2).to(Phase.HOLDING)
    did = host.tick(HOLD)
    assert [type(message) for _, message in messages(did)] == [Abort, Abort]
    (outcome,) = reports(did)
    assert (outcome.outcome, outcome.reason) == (
        Outcome.FAILED,
        "it was ready, and no word came within 30 s",
    )
    assert host.call("word", "a") == []
    assert host.coordinator.release == FIRST


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.IDLE, Phase.COMMITTING)])
def test_an_order_can_be_called_off_until_it_is_committed(phase):
    """Called off, an order fails with the sender's reason and everybody discards."""
    host = Host(2).to(phase)
    assert host.call("withdraw", "another", "no") == []
    did = host.call("withdraw", "a", "the sender calls it off")
    assert [(one.outcome, one.reason) for one in reports(did)] == [
        (Outcome.FAILED, "the sender calls it off")
    ]
    assert host.coordinator.phase == "idle"
    assert all(one.stage is Stage.CONNECTED for one in host.coordinator.participants)


def test_what_is_committed_can_not_be_called_off():
    """After the commit point an order ends as committed, whoever calls it off."""
    host = Host(2).to(Phase.COMMITTING)
    assert host.call("withdraw", "a", "no") == []
    host.swapped(1, 2)
    assert host.outcomes() == [("a", Outcome.COMMITTED)]


def test_a_waiting_order_can_be_called_off_or_get_its_word():
    """What is true of the order that is served is true of the one that waits for it."""
    host = Host(2).to(Phase.CANARY)
    host.order("b", hold=HOLD)
    assert [one.outcome for one in reports(host.call("withdraw", "b", "no"))] == [Outcome.FAILED]
    host.order("c", hold=HOLD)
    host.call("word", "c")
    host.call("failed", 1, Failed(2, "no", ""))
    host.taken("newer")
    host.ready(1, release=3)
    assert isinstance(host.ready(2, release=3)[0], Record)


def test_no_order_supersedes_a_held_one():
    """While a release is held other orders wait, for as long as its hold may last."""
    host = Host(2).to(Phase.HOLDING)
    host.order("b")
    assert host.tick(HOLD - 0.1) == []
    assert (Outcome.FAILED, "a") in [(one.outcome, one.id) for one in reports(host.tick(HOLD))]
    assert host.coordinator.statistics().running == "b"


def test_an_order_by_force_supersedes_a_held_one():
    """Who gives it is on this host and can't wait for a sender that may be gone."""
    host = Host(2).to(Phase.HOLDING)
    host.order("b", force=True)
    (outcome,) = reports(host.tick(2.0))
    assert (outcome.id, outcome.outcome) == ("a", Outcome.SUPERSEDED)


def test_a_worker_that_dies_while_a_release_is_held_fails_it():
    """Not all are ready any more, so the sender is told."""
    host = Host(2).to(Phase.HOLDING)
    assert [one.outcome for one in reports(host.call("gone", 1))] == [Outcome.FAILED]


def test_a_worker_that_starts_while_a_release_is_held_gets_ready_too():
    """The word commits when the newcomer is ready as well, and not before."""
    host = Host(2).to(Phase.HOLDING)
    host.hello(3)
    assert host.call("word", "a") == []
    assert host.ready(3)[0] == Record(NEW)


# -- where code is imported from


def test_a_folder_of_an_order_comes_first_from_then_on():
    """Its folder comes before those of earlier orders, in this release and in later ones."""
    host = Host(1)
    for name, path, expected in (
        ("a", "/one", ("/one",)),
        ("b", "/two", ("/two", "/one")),
        ("c", "", ("/two", "/one")),
        ("d", "/one", ("/one", "/two")),
    ):
        (asked,) = host.order(name, path=path)
        assert asked.path == expected
        number = host.coordinator.release.number + 1
        host.taken(name, asked.path)
        host.ready(1, release=number)
        host.swapped(1, release=number)
        assert host.coordinator.release.path == expected


def test_a_folder_of_an_order_that_fails_is_forgotten():
    """Only what is committed says where later releases are read from."""
    host = Host(1)
    host.order("a", path="/one")
    host.taken("a", ("/one",))
    host.call("failed", 1, Failed(2, "no", ""))
    assert host.order("b")[0].path == ()


def test_the_folder_of_a_superseded_order_goes_on_with_the_newer_one():
    """An order that supersedes another does what that one asked for besides."""
    host = Host(1).to(Phase.READING)
    host.order("b", path="/one")
    host.order("c", path="/two")
    host.order("d")
    did = host.coordinator.snapshot_failed("no", "", host.now)
    assert did[-1] == TakeSnapshot(an_order("d"), path=("/two", "/one"))


def test_what_can_not_be_what_was_ordered_is_refused():
    """A snapshot that lacks what the order names is a refusal and not a failure."""
    host = Host(1).to(Phase.READING)
    did = host.coordinator.snapshot_failed("no module b", "", host.now, refused=True)
    assert [(one.outcome, one.reason) for one in reports(did)] == [(Outcome.REFUSED, "no module b")]


# -- the status


def test_a_status_fits_into_a_message_whatever_is_held():
    """Of very many generations of very many workers the latest are told of, each worker's current
    one among them.
    """
    workers = 64
    host = Host(workers)
    held = tuple(
        GenerationStatus(number, "1-old", "retired", 0, None, "x" * 1000, "y" * 200, 1e9 / 7)
        for number in range(50)
    )
    current = GenerationStatus(50, "1-old", "current", 0, None, "")
    for worker in range(1, workers + 1):
        host.coordinator.generations(worker, Generations((*held, current)))
    status = host.coordinator.status({})
    assert encode(status)
    assert len(status.workers) == workers
    assert {one.generations[-1] for one in status.workers} == {current}
    assert min(len(one.generations) for one in status.workers) > 1
    assert len(Host(0).coordinator.status({}).workers) == 0

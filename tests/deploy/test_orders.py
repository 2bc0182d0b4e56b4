"""Which order is served, which is superseded, and which needs no deploy."""

from __future__ import annotations

import pytest

from genwsgi.deploy.actions import Phase
from genwsgi.deploy.coordinator import (
    TakeSnapshot,
)
from genwsgi.deploy.moves import ACKNOWLEDGE_WITHIN
from genwsgi.deploy.protocol import Failed, Outcome, Prepare
from tests.deploy.host import TIMEOUT, Host, an_order, messages, reports

# -- coalescing


def test_the_newest_of_the_waiting_orders_wins():
    """One order waits; a newer one takes its place, and the older is superseded by name."""
    host = Host(1)
    host.order("a")
    assert host.order("b") == []
    (outcome,) = reports(host.order("c"))
    assert (outcome.id, outcome.outcome, outcome.release) == ("b", Outcome.SUPERSEDED, None)
    assert "'c'" in outcome.reason
    assert host.taken("old")[-1] == TakeSnapshot(an_order("c"))


def test_an_order_that_may_be_called_off_takes_the_place_of_no_other():
    """Or else, once it is called off, neither would have been done."""
    host = Host(1)
    host.order("a")
    host.order("b")
    (outcome,) = reports(host.order("c", hold=30.0))
    assert (outcome.id, outcome.outcome) == ("c", Outcome.SUPERSEDED)
    assert "order 'b' waits" in outcome.reason
    assert host.taken("old")[-1] == TakeSnapshot(an_order("b"))


def test_a_deploy_is_not_superseded_by_an_order_that_may_be_called_off():
    """It goes on, however long it takes."""
    host = Host(1)
    host.order("a")
    host.taken("new")
    host.order("b", hold=30.0)
    assert host.coordinator.next_deadline() == TIMEOUT


def test_going_back_supersedes_the_running_deploy_at_once():
    """A rollback leaves what is on its way too, without patience, and needs no canary."""
    host = Host(2)
    host.order("a")
    host.taken("new")
    host.order("b", back_to=1)
    assert host.coordinator.next_deadline() == host.now
    (outcome,) = reports(host.tick(host.now))
    assert (outcome.id, outcome.outcome) == ("a", Outcome.SUPERSEDED)
    told = messages(host.taken("older"))
    assert [(to, type(message), message.look) for to, message in told] == [
        (1, Prepare, False),
        (2, Prepare, False),
    ]
    host.ready(1, 2, release=3)
    committed = host.coordinator.release
    assert (committed.digest, committed.back_to, committed.aside) == ("older", 1, ("old", "new"))


def test_what_a_rollback_supersedes_is_left_as_well():
    """The watch does not bring back what was on its way, unless that may be a probation's mend."""
    for trigger, left in (("rollback", ("old", "new")), ("probation", ("old",))):
        host = Host(1)
        host.order("a", "watch")
        host.taken("new")
        host.order("b", trigger, back_to=1)
        host.tick(host.now)
        host.taken("older")
        host.order("c", trigger, back_to=1)
        host.tick(host.now)
        host.taken("older")
        host.ready(1, release=4)
        host.swapped(1, release=4)
        assert host.coordinator.release.aside == left
        host.order("d", "watch")
        host.taken("new")
        assert host.coordinator.phase is (Phase.IDLE if "new" in left else Phase.CANARY)


def test_going_back_ends_a_hold():
    """What is held for a word that may never come is no reason to wait with a rollback."""
    host = Host(2).to(Phase.HOLDING)
    host.order("b", back_to=1)
    assert host.coordinator.next_deadline() == host.now


def test_going_back_gives_way_to_no_order_of_the_watch():
    """What the watch would deploy may be what is to be left: it waits, or has to come again."""
    host = Host(1)
    host.order("a", back_to=1)
    host.taken("older")
    host.order("b", "watch")
    assert host.coordinator.next_deadline() == TIMEOUT
    host = Host(1)
    host.order("a", back_to=1)
    host.order("b", back_to=1)
    (outcome,) = reports(host.order("c", "watch"))
    assert (outcome.id, outcome.outcome) == ("c", Outcome.SUPERSEDED)
    assert outcome.reason == "order 'b' goes back to release 1"


def test_going_back_gives_way_to_an_explicit_order():
    """A fix that somebody orders is not held up by a rollback that hangs."""
    host = Host(1)
    host.order("a", back_to=1)
    host.taken("older")
    host.order("b")
    deadline = host.coordinator.next_deadline()
    assert deadline is not None
    assert deadline < TIMEOUT


def test_force_is_inherited():
    """An order that supersedes a forced one deploys though the code is unchanged."""
    host = Host(1)
    host.order("a")
    host.order("b", force=True)
    host.order("c")
    host.taken("old")
    assert messages(host.taken("old")) != []


def test_force_of_a_running_order_is_inherited():
    """An order that supersedes a running forced deploy deploys though the code is unchanged."""
    host = Host(1)
    host.order("a", force=True)
    host.taken("old")
    host.order("b")
    host.tick(1.0)
    assert host.outcomes() == [("a", Outcome.SUPERSEDED)]
    assert messages(host.taken("old")) != []


def test_a_retry_is_inherited():
    """The watch's order that supersedes an explicit one retries code that failed, like that."""
    host = Host(1)
    host.order("a")
    host.taken()
    host.call("failed", 1, Failed(2, "no", ""))
    host.order("b", "watch")
    host.order("c", "ctl")
    host.order("d", "watch")
    host.taken("old")
    assert messages(host.taken("new")) != []


@pytest.mark.parametrize("phase", [Phase.READING, Phase.CANARY, Phase.PREPARING])
def test_a_deploy_that_holds_up_an_order_is_superseded(phase):
    """After a second of waiting the waiting order supersedes the deploy, which is aborted."""
    host = Host(2).to(phase)
    host.now = 20.0
    host.order("b")
    assert host.coordinator.next_deadline() == 21.0
    assert host.tick(20.9) == []
    did = host.tick(21.0)
    assert len(messages(did)) == {Phase.READING: 0, Phase.CANARY: 1, Phase.PREPARING: 2}[phase]
    assert reports(did)[0].outcome == Outcome.SUPERSEDED
    assert "'b'" in reports(did)[0].reason
    assert did[-1] == TakeSnapshot(an_order("b"))


def test_a_commit_is_never_superseded():
    """During the commit a waiting order waits for its end, however long."""
    host = Host(2).to(Phase.COMMITTING)
    host.order("b")
    assert host.coordinator.next_deadline() == ACKNOWLEDGE_WITHIN
    assert host.tick(9.0) == []
    host.swapped(1)
    assert host.swapped(2)[-1] == TakeSnapshot(an_order("b"))
    assert host.outcomes() == [("a", Outcome.COMMITTED)]


def test_the_wait_begins_with_the_first_order_that_waits():
    """Newer orders do not prolong the life of a build that hangs."""
    host = Host(1).to(Phase.CANARY)
    for step in range(10):
        host.tick(step / 10)
        host.order(str(step))
    assert host.tick(1.0)[-1] == TakeSnapshot(an_order("9"))


def test_a_deploy_gets_twice_its_usual_time():
    """Steady orders do not starve a build that takes as long as the last committed one."""
    host = Host(1)
    host.order()
    host.taken()
    host.now = 5.0
    host.ready(1)
    host.now = 50.0  # the acknowledgement's delay is not the build's
    host.swapped(1)
    host.order("b")
    host.order("c")
    assert host.coordinator.next_deadline() == 50.0 + 2 * 5.0


def test_a_deploy_that_takes_longer_than_ever_is_not_starved():
    """However many orders come, a build that needs ten seconds is committed at last."""
    host = Host(1)
    number = 2
    started = 0.0
    for step in range(1000):
        host.now = step / 10
        host.order(str(step))
        did = host.call("tick")
        if host.coordinator.phase == "reading":
            did = host.taken(f"code {step}")
            started = host.now
        if any(isinstance(message, Prepare) for _, message in messages(did)):
            number = messages(did)[-1][1].release.number
        if host.now - started >= 10.0:
            assert host.ready(1, release=number)[0].release.number == number
            break
    else:
        pytest.fail("no build was ever given ten seconds")


def test_the_allowance_is_the_usual_one_again_after_a_deploy_that_ended():
    """What superseded deploys have added to the allowance ends with the first that is not."""
    host = Host(1)
    host.order("a")
    host.order("b")
    host.tick(1.0)
    host.order("c")
    assert host.coordinator.next_deadline() == 1.0 + 2.0
    host.taken("stale")
    host.taken("old")
    host.order("d")
    assert host.coordinator.next_deadline() == 1.0 + 1.0


def test_an_answer_to_a_read_that_was_given_up_is_not_taken_for_the_next():
    """The snapshot of a superseded order may lack what the newer one is about: it is dropped."""
    host = Host(1)
    host.order("a")
    host.order("b")
    host.tick(1.0)
    assert host.taken("stale") == []
    assert host.coordinator.phase == "reading"
    assert messages(host.taken("fresh"))[0][1].release.digest == "fresh"


# -- unchanged


def test_code_that_is_committed_is_not_deployed_again():
    """A snapshot of the committed code ends the order as unchanged, and no worker hears of it."""
    host = Host(2)
    host.order()
    (report,) = host.taken("old")
    assert (report.outcome.outcome, report.outcome.release) == (Outcome.UNCHANGED, 1)


def test_a_forced_order_deploys_the_committed_code_again():
    """With force the committed code is deployed under a new number."""
    host = Host(1)
    host.order(force=True)
    assert messages(host.taken("old"))[0][1].release.number == 2


@pytest.mark.parametrize(
    ("trigger", "force", "again"),
    [("watch", False, False), ("ctl", False, True), ("watch", True, True)],
)
def test_code_that_failed_is_retried_only_on_request(trigger, force, again):
    """The watch does not retry the code that failed last; any other trigger does."""
    host = Host(1)
    host.order()
    host.taken()
    host.call("failed", 1, Failed(2, "no", ""))
    host.order("b", trigger, force)
    did = host.taken()
    assert bool(messages(did)) is again
    if not again:
        assert reports(did)[0].outcome == Outcome.UNCHANGED
        assert "failed before" in reports(did)[0].reason


def test_code_that_killed_the_canary_is_not_retried_by_the_watch():
    """A death during the build is the code's failure; one after Ready is not."""
    for death, again in (("building", False), ("ready", True)):
        host = Host(2).to(Phase.PREPARING)
        host.call("gone", 2 if death == "building" else 1)
        host.order("b", "watch")
        assert bool(messages(host.taken())) is again, death


def test_code_that_failed_is_forgotten_when_it_was_committed():
    """Code that failed, was retried and committed is deployed by the watch like any other."""
    host = Host(1)
    host.order("a")
    host.taken()
    host.call("failed", 1, Failed(2, "no", ""))
    for number, (name, digest) in enumerate([("b", "new"), ("c", "other")], start=3):
        host.order(name)
        host.taken(digest)
        host.ready(1, release=number)
        host.swapped(1, release=number)
    host.order("d", "watch")
    assert messages(host.taken("new")) != []


def test_source_that_does_not_compile_disturbs_no_worker():
    """A snapshot that fails ends the order as failed with its traceback; no worker hears of it."""
    host = Host(2)
    host.order()
    (report,) = host.call("snapshot_failed", "app.py: invalid syntax", "  ^")
    assert (report.outcome.outcome, report.outcome.release) == (Outcome.FAILED, None)
    assert (report.outcome.reason, report.outcome.traceback) == ("app.py: invalid syntax", "  ^")


# -- no worker


def test_without_a_worker_the_deploy_fails_in_the_end():
    """A deploy waits for a worker as long as a build may take; then it fails and says so."""
    host = Host(0)
    host.order()
    host.taken()
    assert host.coordinator.phase == "canary"
    assert host.tick(TIMEOUT - 1) == []
    host.tick(TIMEOUT)
    assert host.last.reason == "no worker is connected within 60 s"
    host.hello(1)
    host.order("b", "watch")
    assert messages(host.taken()) != []


def test_source_that_is_never_read_fails_the_deploy():
    """A read that does not end fails the order, and its late answer has no effect."""
    host = Host(1)
    host.order()
    host.tick(TIMEOUT)
    assert host.outcomes() == [("a", Outcome.FAILED)]
    assert host.taken() == []
    host.order("b")
    assert messages(host.taken("newer"))[0][1].release.digest == "newer"

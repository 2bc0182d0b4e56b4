"""Tests of genwsgi.deploy.desk, and of what the coordinator's server makes of it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.deploy.desk import Desk
from genwsgi.deploy.protocol import (
    Abort,
    Committed,
    OrderOutcome,
    OrderRequest,
    Outcome,
    Release,
)
from genwsgi.deploy.rundir import RunDirectory
from tests.deploy.real import LOG, directory, release, short
from tests.deploy.test_server import Host, commit, prepare
from tests.helpers import wait_until

__all__ = ["directory", "short"]


@pytest.fixture
def host(directory: RunDirectory, tmp_path: Path) -> Iterator[Host]:
    """A host whose coordinator is stopped at the end."""
    (tmp_path / "src").mkdir()
    host = Host(directory, tmp_path / "src")
    yield host
    host.stop()


class Told:
    """Who is told of outcomes."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[OrderOutcome] = queue.SimpleQueue()

    def __call__(self, outcome: OrderOutcome) -> None:
        self.queue.put(outcome)

    def next(self) -> OrderOutcome:
        """The next thing told."""
        return self.queue.get(timeout=10)


def test_whoever_gave_an_order_is_told_its_outcome_with_the_generation(host: Host) -> None:
    """The outcome comes with the number of the generation that serves it."""
    told = Told()
    server = host.start()
    worker = host.worker(101)
    host.write(2)
    server.submit("amqp", "by message", id="one", then=told)
    number = prepare(worker).number
    commit(worker)
    outcome = told.next()
    assert (outcome.id, outcome.outcome, outcome.release) == ("one", Outcome.COMMITTED, number)
    assert outcome.generation is not None


def test_an_order_that_comes_again_is_not_done_again(host: Host) -> None:
    """Whoever gives an order that has ended is told how it ended, and nothing else happens."""
    first, second = Told(), Told()
    server = host.start()
    server.submit("amqp", "by message", id="one", then=first)
    outcome = first.next()
    assert outcome.outcome == Outcome.UNCHANGED
    server.submit("amqp", "by message", id="one", then=second)
    assert second.next() == outcome


def test_a_held_order_is_prepared_then_let_go(host: Host) -> None:
    """With a hold, whoever gave the order is told that it is prepared; the word lets it go live."""
    told = Told()
    server = host.start()
    worker = host.worker(101)
    host.write(2)
    server.submit("amqp", "by message", id="one", hold=60.0, then=told)
    number = prepare(worker).number
    assert (told.next().outcome, worker.quiet()) == (Outcome.PREPARED, True)
    server.submit("amqp", "by message", id="one")
    commit(worker)
    assert told.next().outcome == Outcome.COMMITTED
    assert host.directory.committed().number == number


def test_a_held_order_can_be_called_off(host: Host) -> None:
    """Called off, it is discarded everywhere, and its outcome says why."""
    told = Told()
    server = host.start()
    worker = host.worker(101)
    host.write(2)
    server.submit("amqp", "by message", id="one", hold=60.0, then=told)
    prepare(worker)
    assert told.next().outcome == Outcome.PREPARED
    server.submit("amqp", "the sender calls it off", id="one", withdraw=True)
    worker.expect(Abort)
    assert told.next().reason == "the sender calls it off"
    assert host.directory.committed().number == 1


def test_an_order_with_a_hold_waits_for_its_trigger_after_a_restart(host: Host) -> None:
    """Whether it is still to be held only its trigger knows: so the next coordinator asks it."""
    entry = {"id": "one", "trigger": "amqp", "force": False, "detail": "", "hold": 5.0}
    host.directory.keep_orders([{**entry, "attempts": 1}])
    host.write(2)
    told = Told()
    server = host.start()
    wait_until(lambda: host.directory.orders() == [], what="the journal to be taken over")
    worker = host.worker(101)
    assert worker.quiet()
    server.submit("amqp", "by message", id="one", then=told)
    prepare(worker)
    (order,) = host.directory.orders()
    assert order["attempts"] == 2
    commit(worker)
    assert told.next().outcome == Outcome.COMMITTED


def test_a_folder_of_an_order_is_committed_with_it_and_watched(host: Host, tmp_path: Path) -> None:
    """The committed release says where later ones are read from, and the watch is told."""
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "shop.py").write_text("V = 9\n")
    told = Told()
    watched: list[tuple[str, ...]] = []
    server = host.start(moved=lambda places: watched.append(tuple(places)))
    worker = host.worker(101)
    server.submit("amqp", "by message", path=str(newer), modules=["shop"], then=told)
    built = prepare(worker)
    commit(worker)
    assert told.next().outcome == Outcome.COMMITTED
    assert built.path == host.directory.committed().path == (str(newer),)
    assert [str(newer) in places for places in watched] == [True]
    server.submit("amqp", "none such", modules=["none"], then=told)
    assert told.next().outcome == Outcome.REFUSED


def test_a_listener_that_raises_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What a trigger raises when it is told is in the log, and the coordinator goes on."""
    desk = Desk(lambda: None, LOG)

    def broken(_outcome: OrderOutcome) -> None:
        raise ValueError("broken")

    name = desk.submit("amqp", "", then=broken)
    assert [one.order.id for one in desk.submissions()] == [name]
    desk.ended(OrderOutcome(name, Outcome.UNCHANGED, 1, "", "", 0.0), release(1))
    assert "can't be told" in caplog.text


def test_the_generation_is_the_highest_of_the_release_that_is_committed() -> None:
    """Workers that started later count fewer generations; another release's numbers don't count."""
    told = Told()
    desk = Desk(lambda: None, LOG)

    def outcome(name: str, committed: Release) -> OrderOutcome:
        desk.submit("amqp", "", id=name, then=told)
        list(desk.submissions())
        desk.ended(OrderOutcome(name, Outcome.COMMITTED, committed.number, "", "", 0.0), committed)
        return told.next()

    for number, generation in ((2, 7), (3, 4), (3, 8), (3, 2)):
        desk.serves(Committed(number, generation))
    assert outcome("a", release(3)).generation == 8
    assert outcome("b", release(2)).generation is None


def test_few_outcomes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten."""
    monkeypatch.setattr("genwsgi.deploy.desk.REMEMBERED", 1)
    desk = Desk(lambda: None, LOG)
    for name in "ab":
        desk.ended(OrderOutcome(name, Outcome.UNCHANGED, 1, "", "", 0.0), release(1))
    assert not desk.tell_again("a")
    assert desk.tell_again("b")


def test_a_client_may_name_a_folder_and_modules_too(host: Host, tmp_path: Path) -> None:
    """An order through the socket says as much as one that a trigger hands in."""
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "shop.py").write_text("V = 9\n")
    host.start()
    worker = host.worker(101)
    client = host.connect()
    client.send(OrderRequest("one", "ctl", False, "by hand", str(newer), ("shop",)))
    assert prepare(worker).path == (str(newer),)
    commit(worker)
    assert client.expect(OrderOutcome).outcome == Outcome.COMMITTED
    client.send(OrderRequest("two", "ctl", False, "by hand", "", ("none",)))
    assert client.expect(OrderOutcome).outcome == Outcome.REFUSED

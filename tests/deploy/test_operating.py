"""What those who operate a server ask of its coordinator, and what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genwsgi.deploy import answers, performing
from genwsgi.deploy.control import (
    CancelRequest,
    Diff,
    DiffRequest,
    Done,
    History,
    HistoryRequest,
    PauseRequest,
    RestartRequest,
    Status,
    StatusRequest,
)
from genwsgi.deploy.protocol import (
    Building,
    Cancel,
    Cancelled,
    Generations,
    OrderOutcome,
    OrderRequest,
    Outcome,
    Prepare,
    Progress,
    Ready,
    RollbackRequest,
    Step,
    Tell,
)
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import OrderError
from genwsgi.generations.status import GenerationStatus
from tests.deploy.real import Connection, directory, short
from tests.deploy.test_server import Host, commit, host, prepare
from tests.helpers import wait_until

__all__ = ["directory", "host", "short"]


def ask(host: Host, question: Any, kind: type) -> Any:
    """Ask the coordinator on a connection of its own."""
    connection = host.connect()
    connection.send(question)
    return connection.expect(kind)


def deploy(host: Host, worker: Connection, version: int) -> OrderOutcome:
    """Edit the source and deploy it."""
    host.write(version)
    client = host.order(f"deploy {version}")
    prepare(worker)
    commit(worker)
    outcome = client.expect(OrderOutcome)
    assert isinstance(outcome, OrderOutcome)
    return outcome


def go_back(host: Host, worker: Connection, release: int | None = None) -> OrderOutcome:
    """Roll back, and return the outcome."""
    client = host.connect()
    client.send(RollbackRequest(f"back to {release} {len(host.trail)}", release, "by hand"))
    host.trail.append(client)
    message = worker.receive()
    while isinstance(message, Tell):
        message = worker.receive()
    assert isinstance(message, Prepare)
    assert not message.look
    worker.send(Ready(message.release.number, 0.1))
    commit(worker)
    outcome = client.expect(OrderOutcome)
    assert isinstance(outcome, OrderOutcome)
    return outcome


# -- rollback


def test_rollback_takes_the_kept_code_and_leaves_the_files(host: Host) -> None:
    """The release before is served again under a new number, the tree is not read, and the watch
    leaves it alone until it changes.
    """
    host.start(keep=5, triggers=lambda: {"watch": {}})
    worker = host.worker(101)
    first = host.directory.committed()
    deploy(host, worker, 2)
    bad = host.directory.committed()
    (host.tree / "shop.py").write_text("syntax error")
    outcome = go_back(host, worker)
    committed = host.directory.committed()
    assert (outcome.outcome, outcome.release) == (Outcome.COMMITTED, 3)
    assert (committed.digest, committed.back_to) == (first.digest, 1)
    assert committed.aside == (bad.digest,)
    assert (host.tree / "shop.py").read_text() == "syntax error"
    host.write(2)
    quiet = host.order("w", "watch").expect(OrderOutcome)
    assert quiet.outcome == Outcome.UNCHANGED
    assert "is not deployed again until the files change" in quiet.reason
    assert host.settled().quiet == quiet.reason
    host.write(3)
    watched = host.order("x", "watch")
    prepare(worker)
    commit(worker)
    assert watched.expect(OrderOutcome).outcome == Outcome.COMMITTED
    assert host.settled().quiet == ""


def test_what_was_set_aside_stays_so_in_the_next_coordinator(host: Host) -> None:
    """After a rollback, and a second one, neither release is deployed by a look at the files."""
    host.start(keep=5)
    worker = host.worker(101)
    deploy(host, worker, 2)
    deploy(host, worker, 3)
    go_back(host, worker)
    go_back(host, worker)
    assert host.directory.committed().back_to == 1
    host.stop()
    host.start(keep=5)
    worker = host.worker(101)
    for version in (2, 3):
        host.write(version)
        outcome = host.order(f"w{version}", "watch").expect(OrderOutcome)
        assert outcome.outcome == Outcome.UNCHANGED
    explicit = host.order("x")
    prepare(worker)
    commit(worker)
    assert explicit.expect(OrderOutcome).outcome == Outcome.COMMITTED
    assert host.directory.committed().aside == ()


def test_rollback_that_can_not_be_is_refused(host: Host) -> None:
    """Without a release before, or of one that is not kept, and of what is served already."""
    host.start(keep=1)
    worker = host.worker(101)

    def outcome(release: int | None, name: str) -> tuple[str, str]:
        found = ask(host, RollbackRequest(name, release, "by hand"), OrderOutcome)
        return found.outcome, found.reason

    assert outcome(None, "a") == (
        Outcome.REFUSED,
        "no release before this one is kept; kept are: none",
    )
    for version in (2, 3, 4):
        deploy(host, worker, version)
    assert outcome(1, "b") == (Outcome.REFUSED, "release 1 is not kept; kept are: 3")
    assert outcome(4, "c") == (Outcome.UNCHANGED, "release 4 is this code already")
    for entry in Path(host.source.store.path, "snapshots").iterdir():
        if entry.stem != host.directory.committed().digest:
            entry.unlink()
    refused, reason = outcome(3, "d")
    assert refused == Outcome.REFUSED
    assert "release 3 can't be gone back to" in reason
    kept = [entry.release for entry in ask(host, HistoryRequest(9), History).entries if entry.kept]
    assert kept == [4]


def test_only_so_many_snapshots_are_kept(host: Host) -> None:
    """The store is swept of what is neither needed nor kept, and what is kept is written down."""
    host.start(keep=1)
    worker = host.worker(101)
    for version in (2, 3, 4):
        deploy(host, worker, version)
    wait_until(lambda: len(host.source.store.digests()) == 2, what="the sweep")
    assert [one.number for one in host.directory.releases()] == [3, 4]
    kept = [entry.release for entry in ask(host, HistoryRequest(9), History).entries if entry.kept]
    assert kept == [4, 3]


# -- progress


def test_progress_is_told_to_whoever_follows(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the reading to the last swap, in order, to the one who asked for it and nobody else."""
    # However long the reading takes here, how far it is is not told.
    monkeypatch.setattr(performing, "PROGRESS", 3600.0)
    host.start()
    worker, other = host.worker(101), host.worker(102)
    host.write(2)
    client = host.connect()
    client.send(OrderRequest("a", "ctl", False, "by hand", follow=True))
    worker.expect(Prepare)
    worker.send(Building(2, Step.BUILDING, 3, 9))
    worker.send(Building(2, Step.VERIFYING, 1, 2), Ready(2, 0.1))
    prepare(other)
    for one in (worker, other):
        commit(one)
    told = []
    while isinstance(message := client.receive(), Progress):
        told.append((message.pid, message.stage, message.done, message.total))
    assert told[:6] == [
        (None, Step.READING, 0, 0),
        (101, Step.BUILDING, 0, 0),
        (101, Step.BUILDING, 3, 9),
        (101, Step.VERIFYING, 1, 2),
        (101, Step.READY, 0, 0),
        (102, Step.BUILDING, 0, 0),
    ]
    assert sorted(told[6:], key=str) == sorted(
        [(102, Step.READY, 0, 0), (101, Step.COMMITTED, 0, 0), (102, Step.COMMITTED, 0, 0)],
        key=str,
    )
    assert message.outcome == Outcome.COMMITTED
    host.write(3)
    silent = host.order("b")
    prepare(worker)
    prepare(other)
    commit(worker)
    commit(other)
    assert isinstance(silent.receive(), OrderOutcome)


def test_how_many_files_are_compiled_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading takes its time, whoever follows hears how far it is."""
    monkeypatch.setattr(performing, "PROGRESS", 0.0)
    host.start()
    host.worker(101)
    host.write(2)
    client = host.connect()
    client.send(OrderRequest("a", "ctl", False, "by hand", follow=True))
    assert client.expect(Progress) == Progress("a", None, Step.READING)
    assert client.expect(Progress) == Progress("a", None, Step.COMPILING, 0, 1)


def test_an_order_that_a_client_gives_again_is_not_done_again(host: Host, tmp_path: Path) -> None:
    """One that has ended is answered, by this coordinator and by the next one."""
    host.start(state=str(tmp_path / "state"))
    worker = host.worker(101)
    assert deploy(host, worker, 2).release == 2
    assert host.order("deploy 2").expect(OrderOutcome).release == 2
    host.stop()
    host.start(state=str(tmp_path / "state"))
    outcome = host.order("deploy 2").expect(OrderOutcome)
    assert (outcome.outcome, outcome.release) == (Outcome.COMMITTED, 2)
    assert host.directory.committed().number == 2


def test_a_client_that_hangs_up_calls_nothing_off(host: Host) -> None:
    """Whoever stops waiting stops only that."""
    host.start()
    worker = host.worker(101)
    host.write(2)
    client = host.order("a")
    worker.expect(Prepare)
    client.close()
    worker.send(Ready(2, 0.1))
    commit(worker)
    wait_until(lambda: host.directory.committed().number == 2, what="the commit")


def test_a_folder_that_is_not_trusted_is_refused(host: Host) -> None:
    """Whether a client's folder may be read is decided before anything is."""

    def trusted(path: str) -> str:
        raise OrderError(f"others may write to {path}")

    host.start(trusted=trusted)
    request = OrderRequest("a", "ctl", False, "by hand", path="/tmp/open")
    outcome = ask(host, request, OrderOutcome)
    assert (outcome.outcome, outcome.reason) == (
        Outcome.REFUSED,
        "others may write to /tmp/open",
    )


# -- pause


def test_automatic_orders_are_not_taken_while_paused(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """The watch is passed over and looks again afterwards, others are refused, and who gives an
    order here is obeyed; a new coordinator knows it too.
    """
    host.start(triggers=lambda: {"watch": {}})
    host.worker(101)
    done = ask(host, PauseRequest(True, "somebody"), Done)
    assert done.ok
    assert done.reason.startswith("automatic deploys are paused by somebody since 20")
    assert "already" in ask(host, PauseRequest(True, "else"), Done).reason
    host.stop()
    outcomes: list[OrderOutcome] = []
    host.start("changed: shop.py", triggers=lambda: {"watch": {}})
    host.server.submit("amqp", "order 7", then=outcomes.append)
    wait_until(lambda: outcomes, what="the refusal")
    assert outcomes[0].outcome == Outcome.REFUSED
    assert "genwsgictl resume, and order it once more" in outcomes[0].reason
    assert host.server.figures(10).outcomes == {Outcome.REFUSED: 2}, "the watch's and this one"
    status = host.settled()
    assert status.paused is not None
    assert status.paused.by == "somebody"
    assert [(one.trigger, one.outcome) for one in status.recent][:1] == [("amqp", Outcome.REFUSED)]
    worker = host.worker(102)
    host.directory.end_serving(101)
    deploy(host, worker, 2)
    host.write(3)
    assert ask(host, PauseRequest(False, "somebody"), Done) == Done(True, "automatic deploys go on")
    prepare(worker)
    commit(worker)
    wait_until(lambda: host.directory.committed().trigger == "watch", what="the newest state")
    assert host.settled().paused is None
    assert "already" in ask(host, PauseRequest(False, "else"), Done).reason


def test_without_a_watch_nothing_is_looked_at(host: Host) -> None:
    """Where no file watch is, to resume gives no order."""
    host.start()
    ask(host, PauseRequest(True, "somebody"), Done)
    assert ask(host, PauseRequest(False, "somebody"), Done).ok
    assert [one.trigger for one in host.settled().recent] == ["ctl"]


# -- the rest


def test_differences_between_releases(host: Host) -> None:
    """Of two releases, or the committed one and the one before; or why that can't be told."""
    host.start(keep=5)
    worker = host.worker(101)
    assert ask(host, DiffRequest(None, None), Diff).reason == "no release before 1 is kept"
    deploy(host, worker, 2)
    deploy(host, worker, 3)
    found = ask(host, DiffRequest(None, None), Diff)
    assert (found.one.number, found.other.number, found.reason) == (2, 3, "")
    assert found.changed == ("shop.py",)
    assert "-V = 2\n+V = 3\n" in found.text
    assert "-V = 3\n+V = 1\n" in ask(host, DiffRequest(3, 1), Diff).text
    assert "-V = 1\n+V = 2\n" in ask(host, DiffRequest(None, 2), Diff).text
    missing = ask(host, DiffRequest(1, 9), Diff)
    assert (missing.one, missing.reason) == (None, "release 9 is not kept; kept are: 1, 2")


def test_restart_is_left_to_the_master(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """The master finds that it is asked to replace the workers, once, whoever dies meanwhile."""
    host.start()
    done = ask(host, RestartRequest("somebody"), Done)
    assert done.ok
    assert "connections that are kept open end with them" in done.reason
    host.stop()
    directory = RunDirectory(host.directory.path)
    assert directory.take_restart()
    assert not directory.take_restart()
    assert "the workers are to be replaced: somebody" in caplog.text


def test_what_can_not_be_written_is_answered(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause or a restart that can't be written down is not done, and the client is told why."""

    def full(*_: object) -> None:
        raise OSError("disk full")

    host.start()
    for name in ("pause", "ask_restart"):
        monkeypatch.setattr(host.directory, name, full)
    assert ask(host, PauseRequest(True, "x"), Done) == Done(
        False, "it can't be written down: disk full"
    )
    assert ask(host, RestartRequest("x"), Done) == Done(
        False, "the master can't be told: disk full"
    )


def test_requests_are_cancelled_in_the_workers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers are asked, or one; the answer adds up what they have done."""
    monkeypatch.setattr(answers, "CANCEL_WITHIN", 10.0)
    host.start()
    worker, other = host.worker(101), host.worker(102)
    client = host.connect()
    client.send(CancelRequest(1, None))
    for one, ended, left in ((worker, 1, 0), (other, 1, 1)):
        assert one.expect(Cancel).generation == 1
        one.send(Cancelled(1, ended, left))
    assert client.expect(Done) == Done(
        False, "2 requests of generation 1 are ended; 1 can't be interrupted, and goes on"
    )
    client.send(CancelRequest(1, 102))
    assert other.expect(Cancel)
    other.send(Cancelled(1, 1, 0))
    assert client.expect(Done) == Done(True, "1 request of generation 1 is ended")
    assert worker.quiet()
    client.send(CancelRequest(1, 999))
    assert client.expect(Done) == Done(
        False, "no worker has a replaced generation 1 that owes a response"
    )


def test_a_status_waits_for_the_workers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked how it stands now; of one that has gone nobody waits for an answer."""
    monkeypatch.setattr(answers, "TELL_WITHIN", 10.0)
    host.start()
    worker, other = host.worker(101), host.worker(102)
    client, gone = host.connect(), host.connect()
    client.send(StatusRequest())
    gone.send(StatusRequest())
    assert worker.expect(Tell)
    gone.close()
    now = (GenerationStatus(1, "1-code", "current", 3, 0.5, "", "GET /"),)
    worker.send(Generations(now))
    other.close()
    status = client.expect(Status)
    assert [(one.pid, one.generations) for one in status.workers] == [(101, now)]


def test_the_history_is_told(host: Host, tmp_path: Path) -> None:
    """How orders ended, the latest first, and what the server was started with."""
    host.start(keep=5, state=str(tmp_path / "state"))
    worker = host.worker(101)
    deploy(host, worker, 2)
    (host.tree / "shop.py").write_text("syntax error")
    assert host.order("bad").expect(OrderOutcome).outcome == Outcome.FAILED
    host.write(2)
    assert host.order("w", "watch").expect(OrderOutcome).outcome == Outcome.UNCHANGED
    entries = ask(host, HistoryRequest(50), History).entries
    told = [(one.order, one.outcome, one.release, one.kept) for one in entries]
    assert told == [
        ("bad", Outcome.FAILED, None, False),
        ("deploy 2", Outcome.COMMITTED, 2, True),
        ("", Outcome.COMMITTED, 1, True),
    ]
    assert entries[1].generation == 2
    assert ask(host, HistoryRequest(1), History).entries == entries[:1]

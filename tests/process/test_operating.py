"""A server that is operated: rollback, pause, restart, and the history over all ends."""

from __future__ import annotations

from pathlib import Path

from genwsgi.deploy.control import Done, History, HistoryRequest, PauseRequest, RestartRequest
from genwsgi.deploy.framing import Message
from genwsgi.deploy.protocol import (
    OrderOutcome,
    OrderRequest,
    Outcome,
    Progress,
    RollbackRequest,
    Step,
)
from tests.helpers import wait_until
from tests.process.harness import COMMITTED, Server, application, serving


def outcome(server: Server, request: OrderRequest | RollbackRequest) -> OrderOutcome:
    """Give an order and wait for its end."""
    answer = server.ask(request)
    assert isinstance(answer, OrderOutcome)
    return answer


def kill_coordinator(server: Server) -> None:
    """Kill the coordinator, and wait until the workers are connected to the next one."""
    server.kill_coordinator()
    server.wait_for_coordinator()


def test_rollback_pause_and_restart(tmp_path: Path) -> None:
    """Code that was left stays left whoever dies, until the files change; automatic deploys wait
    for the end of a pause; and workers that are replaced boot what is committed.
    """
    file = application(tmp_path, "one")
    state = tmp_path / "state"
    with serving(tmp_path, f"--state-dir={state}") as server:
        application(tmp_path, "two")
        server.wait_for_log(COMMITTED)
        two = file.read_text()
        heard: list[Message] = []
        answer = server.ask(RollbackRequest("back", None, "by hand", follow=True), heard)
        assert isinstance(answer, OrderOutcome)
        assert (answer.outcome, answer.release) == (Outcome.COMMITTED, 3)
        assert file.read_text() == two
        assert server.get().startswith("one 3 3-")
        for pid in server.workers():
            steps = [one.stage for one in heard if isinstance(one, Progress) and one.pid == pid]
            assert list(dict.fromkeys(steps)) == [Step.BUILDING, Step.READY, Step.COMMITTED]
        # The watch looks, and so does that of the next coordinator.
        application(tmp_path, "two")
        quiet = "release 3 went back to the code of release 1: what it has replaced is not"
        server.wait_for_log(f"by watch: unchanged: {quiet}")
        kill_coordinator(server)
        server.wait_for_log(f"by watch: unchanged: {quiet}", count=2)
        assert quiet in server.status().quiet
        assert server.get().startswith("one")

        done = server.ask(PauseRequest(True, "the night shift"))
        assert isinstance(done, Done)
        assert done.ok
        application(tmp_path, "three")
        server.wait_for_log("by watch: refused: automatic deploys are paused by the night shift")
        kill_coordinator(server)
        paused = server.status().paused
        assert paused is not None
        assert paused.by == "the night shift"
        assert server.get().startswith("one")
        server.ask(PauseRequest(False, "the day shift"))
        server.wait_for_log(f"{COMMITTED}release 4-")
        assert server.get().startswith("three")
        assert server.status().quiet == ""

        before = server.workers()
        file.write_text("syntax error")
        server.wait_for_log("by watch: failed")
        server.ask(RestartRequest("somebody"))
        wait_until(lambda: len(set(server.workers()) - set(before)) == 2, 60, "new workers")
        wait_until(lambda: not set(server.workers()) & set(before), 60, "the end of the old ones")
        assert server.get().startswith("three")
        again = server.ask(RollbackRequest("again", None, "by hand"))
        assert isinstance(again, OrderOutcome)
        assert again.outcome == Outcome.COMMITTED
        assert server.get().startswith("one")

    application(tmp_path, "four")
    with serving(tmp_path, f"--state-dir={state}", workers=1) as server:
        history = server.ask(HistoryRequest(50))
        assert isinstance(history, History)
        told = [
            (one.trigger, one.outcome, one.release, one.kept)
            for one in reversed(history.entries)
            if one.outcome != Outcome.UNCHANGED
        ]
        assert told == [
            ("start", Outcome.COMMITTED, 1, False),
            ("watch", Outcome.COMMITTED, 2, False),
            ("rollback", Outcome.COMMITTED, 3, False),
            ("watch", Outcome.COMMITTED, 4, False),
            ("watch", Outcome.FAILED, None, False),
            ("rollback", Outcome.COMMITTED, 5, False),
            ("start", Outcome.COMMITTED, 1, True),
        ]
        refused = outcome(server, RollbackRequest("none", None, "by hand"))
        assert refused.outcome == Outcome.REFUSED


def test_what_can_not_be_done_changes_nothing(tmp_path: Path) -> None:
    """A folder that others may write to is refused, and one that is this user's alone is served;
    workers are not replaced by way of a configuration that can't be loaded.
    """
    application(tmp_path, "one")
    config = tmp_path / "settings.py"
    config.write_text("watch = False\n")
    with serving(tmp_path, f"--config={config}", workers=1) as server:
        folder = tmp_path / "release"
        folder.mkdir(mode=0o700)
        application(folder, "two")
        (folder / "myapp.py").chmod(0o666)
        order = OrderRequest("a", "ctl", False, "by hand", path=str(folder))
        refused = outcome(server, order)
        assert refused.outcome == Outcome.REFUSED
        assert "others may write to" in refused.reason
        (folder / "myapp.py").chmod(0o644)
        order = OrderRequest("b", "ctl", False, "by hand", path=str(folder))
        done = outcome(server, order)
        assert (done.outcome, done.generation) == (Outcome.COMMITTED, 2)
        assert server.get().startswith("two")
        back = outcome(server, RollbackRequest("c", 1, "by hand"))
        assert back.outcome == Outcome.COMMITTED
        assert server.get().startswith("one")
        before = server.workers()
        config.write_text("watch = ")
        server.ask(RestartRequest("somebody"))
        server.wait_for_log("the configuration can't be loaded: the workers stay as they are")
        assert server.workers() == before
        config.write_text("watch = False\n")
        server.ask(RestartRequest("somebody"))
        wait_until(lambda: len(now := server.workers()) == 1 and now != before, 60, "a new worker")
        assert server.get().startswith("one")

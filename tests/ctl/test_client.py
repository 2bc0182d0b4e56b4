"""Tests of genwsgi.ctl.client, against a coordinator that is played."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest

from genwsgi.ctl.client import Client
from genwsgi.ctl.find import at
from genwsgi.deploy.control import Done, History, HistoryRequest, PauseRequest
from genwsgi.deploy.protocol import Progress
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import ServerNotFound, ServerUnreachable
from tests.ctl.played import coordinator
from tests.ctl.test_find import Start, start, told
from tests.deploy.real import directory, short
from tests.helpers import wait_until

__all__ = ["directory", "short", "start"]

ASK = HistoryRequest(3)
NONE = History(())


def client(directory: RunDirectory, timeout: float = 20.0) -> tuple[Client, list[str]]:
    """A client of what stands for a server, and what it has said of its coordinator."""
    said: list[str] = []
    return Client(at(directory.path), timeout, said.append), said


def test_the_answer_is_what_was_asked_for(directory: RunDirectory):
    """Whatever else comes is passed over; a second question gets a connection of its own."""
    with coordinator(directory, lambda request: [Progress("a", None, "reading"), NONE]) as played:
        asker, said = client(directory)
        assert not asker.sent
        assert asker.ask(History, ASK) == NONE
        assert asker.sent
        assert asker.ask(History, ASK) == NONE
        assert played.asked == [ASK, ASK]
    assert said == []


def test_a_coordinator_that_is_away_is_waited_for(directory: RunDirectory):
    """It is said once, and what was asked is asked of the next one."""
    asker, said = client(directory)
    answers: list[History] = []
    waiting = threading.Thread(target=lambda: answers.append(asker.ask(History, ASK)))
    waiting.start()
    wait_until(lambda: said, what="the word that it is away")
    with coordinator(directory, lambda request: [NONE]):
        waiting.join(20)
    assert answers == [NONE]
    assert said == ["the coordinator is away (No such file or directory); trying again"]


def test_one_that_dies_is_asked_again_when_it_is_back(directory: RunDirectory):
    """A connection that ends without an answer has been no answer."""
    hangs_up = iter([True, True, False])
    with coordinator(
        directory, lambda request: None if next(hangs_up) else [Done(True, "")]
    ) as played:
        asker, said = client(directory)
        assert asker.ask(Done, PauseRequest(True, "me")).ok
        assert len(played.asked) == 3
    assert said == ["the coordinator is away (the connection was closed); trying again"]


@pytest.mark.parametrize("listens", [True, False])
def test_it_is_given_up_when_the_time_is_over(directory: RunDirectory, listens: bool):
    """One that hangs and one that is away are the same to somebody who waits."""
    asker, _ = client(directory, 0.3)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if listens:
            stack.enter_context(coordinator(directory, lambda request: []))
        with pytest.raises(ServerUnreachable) as caught:
            asker.ask(History, ASK)
    assert time.monotonic() - began < 3
    reason = "" if listens else ": No such file or directory"
    assert str(caught.value) == (
        f"no answer from the coordinator of {directory.path} within 0.3 s{reason}; "
        "the workers serve on without it"
    )
    assert asker.sent is listens


def test_a_server_that_has_ended_is_not_waited_for(start: Start):
    """Nobody will start another coordinator there."""
    process = start()
    asker = Client(at(told(process)), 20.0)
    process.kill()
    process.wait(20)
    with pytest.raises(ServerNotFound, match="is left over"):
        asker.ask(History, ASK)


def test_a_run_directory_that_was_deleted_is_waited_for(directory: RunDirectory):
    """The server makes it again."""
    asker, said = client(directory)
    answers: list[History] = []
    os.rename(directory.path, f"{directory.path}.gone")
    waiting = threading.Thread(target=lambda: answers.append(asker.ask(History, ASK)))
    waiting.start()
    wait_until(lambda: said, what="the word that it is away")
    os.rename(f"{directory.path}.gone", directory.path)
    with coordinator(directory, lambda request: [NONE]):
        waiting.join(20)
    assert answers == [NONE]


def test_what_can_not_be_understood_is_another_version(directory: RunDirectory):
    """To ask again would be of no use."""
    with coordinator(directory, lambda request: [NONE]) as played:
        played.garble = True
        with pytest.raises(ServerUnreachable, match=r"can't be understood: .*own version"):
            client(directory)[0].ask(History, ASK)


def test_somebody_else_s_socket_is_not_spoken_to(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
):
    """The kernel says who listens."""
    monkeypatch.setattr("genwsgi.ctl.client.peer_uid", lambda connection: os.geteuid() + 1)
    with coordinator(directory, lambda request: [NONE]) as played:
        with pytest.raises(ServerUnreachable, match="somebody else listens there"):
            client(directory)[0].ask(History, ASK)
    assert played.asked == []

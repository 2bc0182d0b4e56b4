"""Tests of genwsgi.ctl.deploying."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from genwsgi.ctl.__main__ import main
from genwsgi.ctl.deploying import ending, row
from genwsgi.ctl.render import plain
from genwsgi.deploy import framing
from genwsgi.deploy.protocol import OrderOutcome, OrderRequest, Outcome, Progress, RollbackRequest
from genwsgi.deploy.rundir import RunDirectory
from tests.ctl.played import Answer, coordinator
from tests.ctl.test_status import STATUS
from tests.deploy.real import directory, short
from tests.helpers import unmeasured, wait_until

__all__ = ["directory", "short"]

GOOD = OrderOutcome("", Outcome.COMMITTED, 9, "", "", 0.25, 7)
BAD = replace(GOOD, outcome=Outcome.FAILED, reason="no luck", traceback="Traceback:\nValueError\n")


def answering(*answers: framing.Message) -> Answer:
    """Answer an order with these, as if they were about it."""

    def answer(request: framing.Message) -> list[framing.Message]:
        if isinstance(request, (OrderRequest, RollbackRequest)):
            named = [a for a in answers if isinstance(a, (OrderOutcome, Progress))]
            return [replace(one, id=request.id) for one in named]
        return [STATUS]

    return answer


def run(directory: RunDirectory, *words: str) -> int:
    """Run a subcommand on what stands for a server."""
    return main([*words, "--run-dir", directory.path])


def test_in_a_pipe_each_stage_is_a_line(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    """And not each module; then comes the outcome."""
    answers = (
        Progress("", None, "reading"),
        Progress("", 4711, "building", 1, 9),
        Progress("", 4711, "building", 2, 9),
        Progress("", 4711, "ready"),
        GOOD,
    )
    with coordinator(directory, answering(*answers)):
        assert run(directory, "deploy") == 0
    assert capsys.readouterr().out == (
        "coordinator  reading\ncoordinator  done\nworker 4711  building\nworker 4711  ready\n"
        "committed: release 9 is live as generation 7 after 0.250 s\n"
    )


@pytest.mark.parametrize(
    ("progress", "cells"),
    [
        (Progress("", None, "compiling", 0, 0), ("coordinator", "compiling", "")),
        (Progress("", 1, "building", 3, 12), ("worker 1", "building", "module 3 of 12")),
        (Progress("", 1, "building", 3, 0), ("worker 1", "building", "module 3")),
        (Progress("", 1, "verifying", 1, 2), ("worker 1", "verifying", "1 of 2")),
    ],
)
def test_progress_in_words(progress: Progress, cells: tuple[str, ...]):
    """Of what there are how many, as far as that is known."""
    assert row(progress) == cells


@pytest.mark.parametrize(
    ("outcome", "status", "text"),
    [
        (GOOD, 0, "committed: release 9 is live as generation 7 after 0.250 s\n"),
        (
            replace(GOOD, generation=None, reason="late"),
            0,
            "committed: release 9 is live after 0.250 s: late\n",
        ),
        (
            replace(GOOD, outcome=Outcome.UNCHANGED, reason="it is this code already"),
            0,
            "unchanged: it is this code already\n",
        ),
        (BAD, 1, "Traceback:\nValueError\nfailed: no luck; what was served is served on\n"),
        (
            replace(BAD, outcome=Outcome.REFUSED, traceback=""),
            1,
            "refused: no luck; what was served is served on\n",
        ),
        (
            replace(BAD, outcome=Outcome.SUPERSEDED, traceback=""),
            1,
            "superseded: no luck; what was served is served on\n",
        ),
    ],
)
def test_the_outcome_decides_the_exit_status(
    directory: RunDirectory,
    capsys: pytest.CaptureFixture[str],
    outcome: OrderOutcome,
    status: int,
    text: str,
):
    """0 if the code is live; the traceback of a failure is whole; programs get all of it."""
    assert plain(ending(outcome)) == text
    with coordinator(directory, answering(outcome)):
        assert run(directory, "deploy") == status
        assert capsys.readouterr().out == text
        assert run(directory, "rollback", "--json") == status
        told = json.loads(capsys.readouterr().out)
    assert told["outcome"]["outcome"] == outcome.outcome
    assert told["order"] == told["outcome"]["id"]


def test_what_the_orders_say(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    """Who gives them, and why; a folder as the server can find it; the release to go back to."""
    monkeypatch.setattr("genwsgi.ctl.deploying.somebody", lambda: "me@host")
    monkeypatch.chdir(directory.path)
    with coordinator(directory, answering(GOOD)) as played:
        run(directory, "deploy", "--path", "store", "--force", "-m", "why")
        run(directory, "rollback", "3")
        run(directory, "rollback", "-m", "bad")
    deploy, third, last = played.asked
    assert isinstance(deploy, OrderRequest)
    assert (deploy.trigger, deploy.detail) == ("genwsgictl", "why (by me@host)")
    assert (deploy.path, deploy.force, deploy.follow) == (directory.store, True, True)
    assert isinstance(third, RollbackRequest)
    assert isinstance(last, RollbackRequest)
    assert (third.release, third.detail, third.follow) == (3, "by me@host", True)
    assert (last.release, last.detail) == (None, "bad (by me@host)")


def test_without_waiting_the_order_is_taken(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    """It is certain that the coordinator has it, or how it ended at once."""
    with coordinator(directory, answering()) as played:
        assert run(directory, "deploy", "--no-wait") == 0
        assert "is taken\n" in capsys.readouterr().out
        assert run(directory, "deploy", "--no-wait", "--json") == 0
        assert json.loads(capsys.readouterr().out)["outcome"] is None
    assert isinstance(played.asked[0], OrderRequest)
    assert not played.asked[0].follow
    with coordinator(directory, answering(BAD)):
        assert run(directory, "rollback", "--no-wait") == 1


def test_an_order_that_is_not_over_in_time_goes_on(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    """The status is 3, which is no failure of the deploy."""
    with coordinator(directory, answering(Progress("", 1, "building"))):
        assert run(directory, "deploy", "--timeout", "0.3") == 3
    said = capsys.readouterr().err
    assert "is not over: it takes longer than 0.3 s and goes on; see genwsgictl history" in said


def test_an_order_that_could_not_be_given_is_another_matter(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    """Nobody has heard of it: the status is 2."""
    assert run(directory, "deploy", "--timeout", "0.3") == 2
    assert "no answer from the coordinator" in capsys.readouterr().err


@pytest.mark.parametrize(("outcome", "status"), [(GOOD, 0), (BAD, 1)])
@pytest.mark.parametrize("words", [["deploy"], ["rollback", "--json"]])
def test_a_reader_that_has_seen_enough_does_not_end_the_waiting(
    directory: RunDirectory, words: list[str], outcome: OrderOutcome, status: int
):
    """As with head(1): the status is still that of the outcome, and nothing is complained of."""
    command = [sys.executable, "-m", "genwsgi.ctl", *words, "--run-dir", directory.path]
    reading, writing = os.pipe()
    os.close(reading)
    with coordinator(directory, answering(Progress("", 1, "building"), outcome)):
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
        )
    os.close(writing)
    assert (done.returncode, done.stderr) == (status, "")


def test_interrupted_the_order_goes_on(directory: RunDirectory):
    """Ctrl-C ends the waiting only, and says so; the order is sent no second word."""
    command = [sys.executable, "-m", "genwsgi.ctl", "deploy", "--run-dir", directory.path]
    with coordinator(directory, answering(Progress("", 1, "building"))) as played:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=unmeasured()
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "worker 1  building\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
        assert process.returncode == 130
        wait_until(lambda: played.asked)
        (order,) = played.asked
    assert isinstance(order, OrderRequest)
    assert error == (
        f"genwsgictl: the waiting has ended, and order {order.id} goes on: see genwsgictl history\n"
    )

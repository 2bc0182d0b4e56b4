"""Tests of genwsgi.ctl.manage."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from genwsgi.ctl.__main__ import main
from genwsgi.deploy.control import (
    CancelRequest,
    Done,
    FromClient,
    PauseRequest,
    RestartRequest,
)
from genwsgi.deploy.rundir import RunDirectory
from tests.ctl.played import coordinator
from tests.ctl.test_status import STATUS
from tests.deploy.real import directory, short

__all__ = ["directory", "short"]


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("pause", PauseRequest(True, "me@host")),
        ("pause -m why", PauseRequest(True, "me@host: why")),
        ("resume", PauseRequest(False, "me@host")),
        ("restart -m why", RestartRequest("me@host: why")),
        ("drain --cancel 6", CancelRequest(6, None)),
        ("drain --cancel 6 --worker 4711", CancelRequest(6, 4711)),
    ],
)
def test_it_is_ordered_and_the_answer_shown(
    directory: RunDirectory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    asked: FromClient,
):
    """Done is 0, not done is 1 with the reason; programs are told the same."""
    monkeypatch.setattr("genwsgi.ctl.manage.somebody", lambda: "me@host")
    command = [*words.split(), "--run-dir", directory.path]
    with coordinator(directory, lambda request: [Done(True, "it is so")]) as played:
        assert main(command) == 0
        assert capsys.readouterr().out == "it is so\n"
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["ok"] is True
    assert played.asked == [asked, asked]
    with coordinator(directory, lambda request: [Done(False, "it\x1b can't be")]):
        assert main(command) == 1
    assert capsys.readouterr().err == "genwsgictl: it  can't be\n"


def test_what_drains_is_shown(directory: RunDirectory, capsys: pytest.CaptureFixture[str]):
    """Replaced generations only, or that there are none."""
    command = ["drain", "--run-dir", directory.path]
    with coordinator(directory, lambda request: [STATUS]):
        assert main(command) == 0
        text = capsys.readouterr().out
        assert main([*command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
    assert "draining" in text
    assert "current" not in text
    assert [[one["number"] for one in w["generations"]] for w in told["workers"]] == [[5, 6], []]
    with coordinator(directory, lambda request: [replace(STATUS, workers=())]):
        assert main(command) == 0
    assert capsys.readouterr().out == "no replaced generation is there\n"


def test_a_worker_alone_is_no_order(capsys: pytest.CaptureFixture[str]):
    """It says where to cancel, and nothing is to be cancelled."""
    assert main(["drain", "--worker", "4711"]) == 2
    assert "add --cancel" in capsys.readouterr().err

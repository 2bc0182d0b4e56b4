"""Tests of genwsgi.ctl.__main__ and of what all subcommands share."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from genwsgi.ctl.__main__ import main, parser
from genwsgi.ctl.command import somebody
from genwsgi.ctl.conductor import Host
from genwsgi.ctl.find import Server
from genwsgi.deploy.control import (
    Diff,
    Done,
    HistoryEntry,
    HistoryRequest,
    Pause,
    Status,
    WorkerStatus,
)
from genwsgi.deploy.protocol import OrderOutcome, Problem, Release
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.generations.status import GenerationStatus
from tests.ctl.played import coordinator
from tests.ctl.test_history import HISTORY
from tests.deploy.real import directory, short

__all__ = ["directory", "short"]

ROOT = Path(__file__).resolve().parents[2]

#: What is told with --json.
TOLD: list[type] = [Server, Status, WorkerStatus, GenerationStatus, Release, OrderOutcome]
TOLD += [HistoryEntry, Problem, Pause, Diff, Done, Host]

TWO = [Server(17, "shop:app", "/run/shop", 1.0), Server(4711, "blog", "/run/blog", 2.0)]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each subcommand, by its name."""
    (action,) = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("name", subcommands())
def test_every_subcommand_teaches(name: str):
    """Its help says what it does, shows an example of itself, and fits on a terminal."""
    text = subcommands()[name].format_help()
    assert f"\n  genwsgictl {name}" in text
    assert "exit status" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told.__name__)
def test_what_programs_are_told_is_documented(told: type):
    """Every field of every object stands in the reference."""
    text = (ROOT / "docs" / "genwsgictl.md").read_text()
    assert [field.name for field in fields(told) if f"`{field.name}`" not in text] == []


def test_of_several_servers_none_is_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """They are listed, the next step is named, and the status is 2."""
    monkeypatch.setattr("genwsgi.ctl.find.running", lambda: TWO)
    assert main(["status"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    head, *rows, last = err.splitlines()
    assert head.split() == ["PID", "TARGET", "RUN", "DIRECTORY", "SINCE", "RUNNING", "FOR"]
    assert [row.split()[:3] for row in rows] == [
        ["17", "shop:app", "/run/shop"],
        ["4711", "blog", "/run/blog"],
    ]
    assert last == "genwsgictl: 2 servers run; choose one with --run-dir"


def test_servers_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """For people and for programs; that there is none is no failure."""
    monkeypatch.setattr("genwsgi.ctl.listing.running", lambda: TWO)
    assert main(["list"]) == 0
    assert "/run/shop" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert [one["pid"] for one in json.loads(capsys.readouterr().out)["servers"]] == [17, 4711]
    monkeypatch.setattr("genwsgi.ctl.listing.running", list)
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "no server of this user runs\n"


def test_who_gives_orders_is_named(monkeypatch: pytest.MonkeyPatch):
    """By the user's name, or the number of one that has none."""
    assert somebody().partition("@")[0]

    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr("getpass.getuser", nobody)
    assert somebody().startswith(f"{os.geteuid()}@")


@pytest.mark.parametrize("words", [["--timeout", "0"], ["--timeout", "nan"], ["--every", "x"]])
def test_times_that_can_not_be_are_refused(words: list[str]):
    """By the parser, with the status that it has for that."""
    with pytest.raises(SystemExit) as end:
        main(["status", *words])
    assert end.value.code == 2


def test_a_reader_that_has_seen_enough_is_no_failure(directory: RunDirectory):
    """As with head(1): no traceback, and nothing at the interpreter's end."""
    command = [sys.executable, "-m", "genwsgi.ctl", "history", "--run-dir", directory.path]
    reading, writing = os.pipe()
    os.close(reading)
    with coordinator(directory, lambda request: [HISTORY]) as played:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
        )
        os.close(writing)
        assert played.asked == [HistoryRequest(50)]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_the_output_is_one_line(directory: RunDirectory):
    """And a status that is not that of success."""
    command = [sys.executable, "-m", "genwsgi.ctl", "history", "--run-dir", directory.path]
    with coordinator(directory, lambda request: [HISTORY]), open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    said = "genwsgictl: the answer can't be shown: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("words", [["history", "-n", "0"], ["rollback", "99999999999999999999"]])
def test_numbers_that_can_not_be_are_refused(words: list[str]):
    """By the parser: a coordinator hangs up on a message with such a number."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2


def test_interrupted_a_command_ends_quietly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C is no failure of the command."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genwsgi.ctl.find.running", interrupt)
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_name_that_the_terminal_can_not_show_is_no_reason_to_show_nothing(
    directory: RunDirectory,
):
    """What its coding hasn't is replaced."""
    entry = HISTORY.entries[0]
    odd = type(HISTORY)((type(entry)(**{**vars(entry), "detail": "café"}),))
    command = [sys.executable, "-m", "genwsgi.ctl", "history", "--run-dir", directory.path]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with coordinator(directory, lambda request: [odd]):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    assert "caf?" in done.stdout

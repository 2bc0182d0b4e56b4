"""Tests of genwsgi.ctl.status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from genwsgi.ctl.__main__ import main
from genwsgi.ctl.find import Server
from genwsgi.ctl.render import plain
from genwsgi.ctl.status import PHASES, in_words, view
from genwsgi.deploy.actions import Phase
from genwsgi.deploy.control import HistoryEntry, Pause, Status, StatusRequest, WorkerStatus
from genwsgi.deploy.protocol import Problem, Release
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.generations.status import GenerationStatus
from tests.ctl.played import coordinator
from tests.deploy.real import directory, short
from tests.helpers import unmeasured

__all__ = ["directory", "short"]

SERVER = Server(4000, "shop:app", "/run/shop", 1000.0)
CURRENT = GenerationStatus(7, "9-abcdef01", "current", 1, 0.2, "", "GET /")
OLD = GenerationStatus(5, "7-12345678", "draining", 2, 75.0, "", "GET /stream", 60.0)
HELD = GenerationStatus(6, "8-87654321", "retired", 0, None, "a cache", "", 3.0)
STATUS = Status(
    Release(9, "abcdef0123", "watch", "shop/cart.py", 1.0),
    "idle",
    (
        WorkerStatus(4712, 9, (OLD, HELD, CURRENT), 48_300_000, 3700.0),
        WorkerStatus(4711, None),
    ),
    {"watch": {"watching": 12, "polling": False, "problem": None}},
    None,
)


def shown(status: Status) -> list[str]:
    """The lines that are shown of a status, without those that are empty."""
    return [line for line in plain(view(SERVER, status, 1090.0)).splitlines() if line]


def test_all_that_matters_is_shown():
    """The release, each worker, each replaced generation with its oldest request, the triggers."""
    assert shown(STATUS) == [
        "shop:app: release 9-abcdef01, by watch (shop/cart.py)",
        "pid 4000, /run/shop, running for 1 min 30 s",
        "WORKER  RELEASE  GENERATION  IN FLIGHT  MEMORY   RUNNING FOR",
        "4711                         0",
        "4712    9        7           3          48.3 MB  1 h 1 min",
        "WORKER  REPLACED  RELEASE     STATE     SINCE  LEASES  OLDEST      REQUEST      HELD BY",
        "4712    5         7-12345678  draining  1 min  2       1 min 15 s  GET /stream",
        "4712    6         8-87654321  retired   3.0 s  0                                a cache",
        "TRIGGER  STATE",
        "watch    watching 12 folders",
    ]


def test_what_is_out_of_the_ordinary_comes_first():
    """A deploy under way, a pause, a watch that keeps quiet, a probation, and what is wrong."""
    status = replace(
        STATUS,
        phase="preparing",
        paused=Pause("me@host", 1000.0),
        quiet="the files are those that were rolled back from",
        trial="release 7-ab is on probation for 9 s more: it has failed 0 of 3 requests",
        problems=(
            Problem("disk-full", "no space is left", 1000.0),
            Problem("memory", "it grows", 1000.0, 4711),
        ),
    )
    lines = shown(status)
    assert lines[1].endswith("1 min 30 s; a deploy is built in all workers")
    assert lines[2].startswith("paused by me@host since ")
    assert lines[2].endswith("genwsgictl resume ends it")
    assert lines[3] == "quiet: the files are those that were rolled back from"
    assert lines[4] == status.trial
    assert lines[5].endswith(": no space is left")
    assert lines[6].endswith(": worker 4711: it grows")


def test_every_phase_of_a_coordinator_has_words():
    """None is shown as programs call it."""
    assert PHASES.keys() == {phase.value for phase in Phase}


def test_the_latest_outcomes_are_shown():
    """With why they are what they are."""
    entry = HistoryEntry(
        0.0, "a", "watch", "shop.py", "failed", "no luck", 0.5, 8, "d" * 20, (), 7, True
    )
    lines = shown(replace(STATUS, triggers={}, recent=(entry,)))
    assert lines[-2].split() == ["WHEN", "OUTCOME", "RELEASE", "TOOK", "BY", "WHY"]
    assert lines[-1].endswith("failed   8-dddddddd  0.500 s  watch  no luck")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"watching": 3, "polling": True, "problem": "/a does not exist"},
            "polling 3 folders, problem: /a does not exist",
        ),
        (
            {"connected": True, "connected_for": 4.0, "broker": "amqp://h/", "problem": ""},
            "connected to amqp://h/ for 4.0 s",
        ),
        (
            {"connected": False, "broker": "amqp://h/", "problem": "no", "next_try_in": 2.0},
            "problem: amqp://h/ can't be used: no, next try in 2.0 s",
        ),
        ({"connected": False}, "problem: the broker can't be used"),
        ({"connected": True, "taken": 4, "ill_formed": 0}, "connected to the broker, taken 4"),
        ({"some_thing": [1]}, "some thing [1]"),
        ("fine", "fine"),
    ],
)
def test_a_trigger_s_state_is_said_in_words(told: object, words: str):
    """Those of other people are shown as they tell it."""
    assert in_words(told) == words


def test_programs_get_the_whole_status(directory: RunDirectory, capsys: pytest.CaptureFixture[str]):
    """As one object, with the server it is of."""
    with coordinator(directory, lambda request: [STATUS]) as played:
        assert main(["status", "--json", "--run-dir", directory.path]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["server"]["run_dir"] == directory.path
    assert told["status"]["workers"][0]["generations"][0]["request"] == "GET /stream"
    assert played.asked == [StatusRequest()]


@pytest.mark.parametrize("as_json", [True, False])
def test_watching_goes_on_until_it_is_interrupted(directory: RunDirectory, as_json: bool):
    """Ctrl-C is how one ends it, and no failure; in a pipe one look comes after the other."""
    command = [sys.executable, "-m", "genwsgi.ctl", "status", "--watch", "--every", "0.05"]
    command += ["--run-dir", directory.path, *["--json"] * as_json]
    with coordinator(directory, lambda request: [STATUS]):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=unmeasured()
        ) as process:
            assert process.stdout is not None
            heads = 0
            while heads < 3:
                heads += "shop/cart.py" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(20) == 0

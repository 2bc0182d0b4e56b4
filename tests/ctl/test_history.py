"""Tests of genwsgi.ctl.history."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from genwsgi.ctl.__main__ import main
from genwsgi.ctl.history import difference, outcomes
from genwsgi.ctl.render import plain
from genwsgi.deploy.control import Diff, DiffRequest, History, HistoryEntry, HistoryRequest
from genwsgi.deploy.protocol import Release
from genwsgi.deploy.rundir import RunDirectory
from tests.ctl.played import coordinator
from tests.deploy.real import directory, short

__all__ = ["directory", "short"]

ENTRY = HistoryEntry(0.0, "a", "watch", "shop.py", "committed", "", 0.25, 8, "d" * 20, (), 7, True)
HISTORY = History((ENTRY, replace(ENTRY, release=None, outcome="refused", reason="no", kept=False)))
DIFF = Diff(
    Release(7, "a" * 20, "watch", "", 1.0),
    Release(8, "b" * 20, "watch", "", 2.0),
    ("shop/new.py",),
    (),
    ("shop/cart.py", "shop/page.py"),
    1,
    "--- a/shop/cart.py\n+++ b/shop/cart.py\n@@ -1 +1 @@\n-old\n+new\n",
    "",
)


def test_each_outcome_is_a_row():
    """With why, or else what it was about; and whether one can go back to it."""
    rows = [line.split() for line in plain([outcomes(HISTORY.entries, kept=True)]).splitlines()]
    assert rows[0] == ["WHEN", "OUTCOME", "RELEASE", "TOOK", "BY", "KEPT", "WHY"]
    assert rows[1][2:] == ["committed", "8-dddddddd", "0.250", "s", "watch", "kept", "shop.py"]
    assert rows[2][2:] == ["refused", "0.250", "s", "watch", "no"]


def test_the_history_is_asked_for(directory: RunDirectory, capsys: pytest.CaptureFixture[str]):
    """As many outcomes as are wanted, for people or for programs."""
    with coordinator(directory, lambda request: [HISTORY]) as played:
        assert main(["history", "--run-dir", directory.path]) == 0
        assert "kept  shop.py\n" in capsys.readouterr().out
        assert main(["history", "-n", "3", "--json", "--run-dir", directory.path]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [entry["outcome"] for entry in told["history"]] == ["committed", "refused"]
    assert played.asked == [HistoryRequest(50), HistoryRequest(3)]


def test_a_difference_is_the_files_and_their_lines():
    """What it leaves out is said."""
    assert plain(difference(DIFF)) == (
        "7-aaaaaaaa -> 8-bbbbbbbb: 1 added, 2 changed\n"
        "added: shop/new.py\nchanged: shop/cart.py\nchanged: shop/page.py\nand 1 more file\n"
        "--- a/shop/cart.py\n+++ b/shop/cart.py\n@@ -1 +1 @@\n-old\n+new\n"
    )
    none = replace(DIFF, added=(), changed=(), more=0, text="")
    assert plain(difference(none)) == "7-aaaaaaaa -> 8-bbbbbbbb: no difference\n"


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ([], DiffRequest(None, None)),
        (["7"], DiffRequest(7, None)),
        (["7", "8"], DiffRequest(7, 8)),
    ],
)
def test_releases_are_named_by_their_numbers(
    directory: RunDirectory,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    request_: DiffRequest,
):
    """Left out, they are the last two."""
    with coordinator(directory, lambda request: [DIFF]) as played:
        assert main(["diff", *words, "--run-dir", directory.path]) == 0
        assert "+new\n" in capsys.readouterr().out
        assert main(["diff", *words, "--json", "--run-dir", directory.path]) == 0
        assert json.loads(capsys.readouterr().out)["diff"]["added"] == ["shop/new.py"]
    assert played.asked == [request_, request_]


def test_a_release_that_is_not_kept_is_a_status_of_1(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
):
    """And one line why."""
    none = Diff(None, None, (), (), (), 0, "", "release 3 is not kept")
    with coordinator(directory, lambda request: [none]):
        assert main(["diff", "3", "--run-dir", directory.path]) == 1
    assert capsys.readouterr().err == "genwsgictl: release 3 is not kept\n"


@pytest.mark.parametrize("words", [["diff", "0"], ["history", "-n", "0"], ["diff", "x"]])
def test_numbers_that_can_not_be_are_refused(words: list[str]):
    """By the parser, with the status that it has for that."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2

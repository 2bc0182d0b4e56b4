"""Tests of genwsgi.ctl.table."""

from __future__ import annotations

import io

import pytest

from genwsgi.ctl.render import Screen
from genwsgi.ctl.table import LiveTable
from tests.ctl.terminal import Terminal

HEAD = ("HOST", "STATE", "WHY")
HERE = {1: ("web1", "committed", ""), 2: ("web2", "here", "")}


def test_a_pipe_gets_a_line_for_each_news():
    """A row that is the same as before is not told again."""
    stream = io.StringIO()
    screen = Screen(stream)
    table = LiveTable(screen, HEAD)
    with screen.drawing():
        table.show({})
        table.show(HERE)
        table.show(HERE)
        table.show({2: ("web2", "failed", "why")})
    assert stream.getvalue() == "web1  committed\nweb2  here\nweb2  failed  why\n"


def test_a_terminal_gets_a_table_that_is_drawn_anew(monkeypatch: pytest.MonkeyPatch):
    """The lines drawn before are gone back over, and rows that are not told of stay."""
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    screen = Screen(stream)
    table = LiveTable(screen, HEAD)
    with screen.drawing():
        table.show(HERE)
        first = stream.getvalue()
        assert "HOST" in first
        table.show({2: ("web2", "failed", "why")})
        second = stream.getvalue()[len(first) :]
    assert "\x1b[1A" in second
    assert "web1" in second
    assert "why" in second


def test_programs_get_none_of_it():
    """Where objects are asked for, only the outcome is one."""
    stream = io.StringIO()
    screen = Screen(stream, as_json=True)
    with screen.drawing():
        LiveTable(screen, HEAD).show(HERE)
    assert stream.getvalue() == ""

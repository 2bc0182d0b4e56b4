"""Tests of genwsgi.ctl.render."""

from __future__ import annotations

import io
import json

import pytest

from genwsgi.ctl.render import Block, Code, Line, Screen, Table, plain
from genwsgi.deploy.framing import clean
from tests.ctl.terminal import Terminal

TABLE = Table(
    ("WORKER", "STATE", "HELD BY"), (("17", "failed here", ""), ("4711", "ready", "")), "Workers"
)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch):
    """A terminal with colours, of a width that is known."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


def test_a_table_in_a_pipe_is_aligned_and_has_no_empty_columns():
    """Columns begin below each other, and no line ends in spaces."""
    assert plain([TABLE]) == ("Workers\nWORKER  STATE\n17      failed here\n4711    ready\n")


def test_a_table_without_rows_shows_its_columns():
    """So that one sees what is not there."""
    assert plain([Table(("A", "B"), ())]) == "A  B\n"


def test_nothing_that_is_shown_can_break_a_line_or_steer_the_terminal():
    """Names come from elsewhere; code keeps its lines, and its tabs as spaces."""
    blocks: list[Block] = [
        Line("web\x1b[2J\n1\u202e"),
        Table(("A\r",), (("b\nc",),)),
        Code("if x:\n\ty\x1b[0m\n", "pytb"),
    ]
    assert plain(blocks) == "web [2J 1 \nA\nb c\nif x:\n    y [0m\n"
    assert clean("\udcff") == " "


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_the_stream_is_what_decides(stream: type[io.StringIO]):
    """A pipe gets the plain text; a terminal the same with colours where a word says how it is."""
    given = stream()
    Screen(given).show(TABLE, Line("failed: boom"), Code("--- a\n+++ b\n+x\n", "diff"))
    text = given.getvalue()
    assert ("\x1b[1;31mfailed here" in text) == (stream is Terminal)
    assert ("\x1b[1;31mfailed: boom" in text) == (stream is Terminal)
    if stream is io.StringIO:
        assert "\x1b" not in text
        assert text.endswith("failed: boom\n--- a\n+++ b\n+x\n")


def test_a_dumb_terminal_is_a_pipe(monkeypatch: pytest.MonkeyPatch):
    """It can't go back over what it has shown, so that all is shown once."""
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    screen = Screen(stream)
    with screen.drawing():
        screen.draw(Line("failed"))
        assert stream.getvalue() == "failed\n"


def test_long_lines_are_left_to_the_terminal():
    """What is copied from it has no breaks that were not there."""
    stream = Terminal()
    Screen(stream).show(Line("x" * 200), Code("y" * 200, "pytb"))
    assert "x" * 200 in stream.getvalue()
    assert "y" * 200 in stream.getvalue()


def test_programs_get_one_object_in_a_line():
    """With JSON nothing else is written; without, no object is."""
    stream = Terminal()
    screen = Screen(stream, as_json=True)
    screen.show(Line("text"))
    screen.draw(Line("text"))
    screen.tell({"a": "é\n"})
    assert not screen.terminal
    assert stream.getvalue().count("\n") == 1
    assert json.loads(stream.getvalue()) == {"a": "é\n"}
    Screen(quiet := io.StringIO()).tell({"a": 1})
    assert quiet.getvalue() == ""


def test_what_is_drawn_is_drawn_over_on_a_terminal_only():
    """In a pipe one comes after the other."""
    stream, pipe = Terminal(), io.StringIO()
    for given in (stream, pipe):
        screen = Screen(given)
        with screen.drawing():
            for text in ("one", "two", "three"):
                screen.draw(Line(text))
        screen.draw(Line("four"))
    assert pipe.getvalue() == "one\ntwo\nthree\nfour\n"
    assert "\r\x1b[2Ktwo" in stream.getvalue()
    assert stream.getvalue().count("three") == 2  # once more as it is left
    assert stream.getvalue().endswith("\x1b[?25hfour\n")


def test_nothing_is_written_where_nothing_is_drawn():
    """Not even an empty line."""
    stream = Terminal()
    with Screen(stream).drawing():
        pass
    assert stream.getvalue() == ""

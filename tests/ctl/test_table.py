"""Tests of genwsgi.ctl.table."""

from __future__ import annotations

import io

from genwsgi.ctl.conductor import Host
from genwsgi.ctl.table import Table


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def hosts(state: str) -> list[Host]:
    """Two hosts, the second at ``state``."""
    return [
        Host("web1", "/run/shop", "committed", 7, 3, 0.25),
        Host("web2", "/run/shop", state, error="wh\ny" if state == "failed" else ""),
    ]


def test_a_pipe_gets_a_line_for_each_news():
    """A host whose state is the same as before is not told again."""
    stream = io.StringIO()
    table = Table(stream)
    table.show([])
    table.show(hosts("here"))
    table.show(hosts("here"))
    table.show(hosts("failed"))
    assert stream.getvalue() == (
        "web1  /run/shop  committed  release 7  generation 3  0.250 s\n"
        "web2  /run/shop  here\n"
        "web2  /run/shop  failed  wh y\n"
    )


def test_a_terminal_gets_a_table_that_is_drawn_anew():
    """The lines drawn before are gone back over, so that the table stays in its place."""
    stream = Terminal()
    table = Table(stream)
    table.show([])
    table.show(hosts("here"))
    first = stream.getvalue()
    assert first.startswith("HOST  SERVER     STATE      RELEASE    GENERATION    TOOK\n")
    assert "web2  /run/shop  here\n" in first
    table.show(hosts("failed"))
    second = stream.getvalue()[len(first) :]
    assert second.startswith("\x1b[3F\x1b[J")
    assert second.count("\n") == 3
    assert second.endswith("wh y\n")


def test_what_hosts_say_of_themselves_does_not_steer_the_terminal():
    """Control characters in names and states are shown as spaces."""
    stream = io.StringIO()
    Table(stream).show([Host("web\x1b[2J", "/run\n", "here\r")])
    assert stream.getvalue() == "web [2J  /run   here \n"


def test_a_line_on_a_terminal_stays_above_the_table():
    """What is said is not overwritten when the table is drawn again below it."""
    stream = Terminal()
    table = Table(stream)
    table.show(hosts("here"))
    before = len(stream.getvalue())
    table.say("the broker is away")
    said = stream.getvalue()[before:]
    assert said.startswith("\x1b[3F\x1b[Jthe broker is away\nHOST")

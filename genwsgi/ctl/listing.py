"""``genwsgictl list``: the servers of this user."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from genwsgi.ctl.command import STATUSES, Exit
from genwsgi.ctl.find import Server, running
from genwsgi.ctl.render import Line, Screen, Table
from genwsgi.ctl.words import moment, span

DESCRIPTION = """\
List the servers of this user that run here, the oldest first. Those of other users
are not listed; they are named with --run-dir, and speak with their user and root.
"""

EXAMPLES = """\
  genwsgictl list
  genwsgictl list --json | jq -r .servers[].run_dir
"""


def add_to(commands: Any) -> None:
    """Add the subcommand to a parser's."""
    parser = commands.add_parser(
        "list",
        help="list the servers that run",
        description=DESCRIPTION,
        epilog=f"examples:\n{EXAMPLES}\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="for programs: one object in a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List them; return the exit status."""
    screen = Screen(sys.stdout, as_json=options.json)
    servers = running()
    screen.tell({"servers": [asdict(server) for server in servers]})
    screen.show(listing(servers, time.time()) if servers else Line("no server of this user runs"))
    return Exit.DONE


def listing(servers: Iterable[Server], now: float) -> Table:
    """The table of servers.

    :param now: the wall clock's time, in seconds since the epoch.
    """
    return Table(
        ("PID", "TARGET", "RUN DIRECTORY", "SINCE", "RUNNING FOR"),
        tuple(
            (
                str(server.pid),
                server.serves,
                server.run_dir,
                moment(server.since),
                span(now - server.since),
            )
            for server in servers
        ),
    )

"""What the subcommands that speak with a server have in common: options, statuses, the server."""

from __future__ import annotations

import argparse
import contextlib
import enum
import getpass
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from genwsgi.ctl.client import Client
from genwsgi.ctl.find import Server, choose
from genwsgi.ctl.render import Screen
from genwsgi.deploy.framing import clean


class Exit(enum.IntEnum):
    """The exit statuses, documented in ``--help``."""

    DONE = 0
    NOT_DONE = 1
    USAGE = 2
    LATE = 3
    INTERRUPTED = 130


STATUSES: Final = """\
exit status:
  0    done: what was ordered is live (or was already), what was asked is shown
  1    not done: the order failed, was refused or superseded
  2    the command line can't be obeyed, or no server answers
  3    the order is not over within --timeout; it goes on
  130  interrupted (Ctrl-C): the waiting has ended, the order goes on
"""

#: The largest number that a release, or anything else that is counted, can have.
_MOST: Final = 10**9

#: How long a server has for an answer, in seconds, unless it is told.
ANSWER: Final = 10.0


@dataclass(frozen=True)
class Session:
    """One server, and where to show what it says."""

    server: Server
    client: Client
    screen: Screen

    def tell(self, **fields: Any) -> None:
        """Give programs what was learnt, and of which server."""
        self.screen.tell({"server": asdict(self.server), **fields})


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    brief: str,
    description: str,
    examples: str,
    timeout: float = ANSWER,
) -> argparse.ArgumentParser:
    """Add a subcommand to a parser's, with the options that all have; return its parser.

    :param brief: what it does, in the list of subcommands.
    :param examples: lines, each with a command and what it does.
    :param timeout: the default of ``--timeout``, in seconds.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=brief,
        description=description,
        epilog=f"examples:\n{examples}\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("which server, and how")
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--run-dir", metavar="DIR", help="its run directory; needed if several servers run"
    )
    one.add_argument("--pid", metavar="FILE", help="its pid file, which genwsgi's --pid names")
    group.add_argument("--json", action="store_true", help="for programs: one object in a line")
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=timeout,
        help="for how long to wait [%(default)g]",
    )
    parser.set_defaults(run=run)
    return parser


def open_session(options: argparse.Namespace, *, to_the_end: bool = False) -> Session:
    """Return the session with the server that the options mean.

    :param to_the_end: see :class:`~genwsgi.ctl.render.Screen`.
    :raises ServerNotFound: there is none, or it can't be told which of several.
    """
    server = choose(options.run_dir, options.pid)
    client = Client(server, options.timeout, complain)
    screen = Screen(sys.stdout, as_json=options.json, to_the_end=to_the_end)
    return Session(server, client, screen)


def complain(text: str) -> None:
    """Write a line to standard error, where neither a pipe nor a program takes it for news."""
    print(f"genwsgictl: {clean(text)}", file=sys.stderr, flush=True)


def somebody() -> str:
    """Who gives the orders, for the log and the history."""
    name = str(os.geteuid())
    with contextlib.suppress(KeyError, OSError):  # a user without a name
        name = getpass.getuser()
    return f"{name}@{socket.gethostname()}"


def seconds(text: str) -> float:
    """Return the time that an option gives, for argparse."""
    value = float(text)
    if not 0 < value <= 86400:  # and so NaN, which compares with nothing
        raise argparse.ArgumentTypeError("above 0 and at most 86400 seconds")
    return value


def count(text: str) -> int:
    """Return the number from 1 that an argument gives, for argparse."""
    value = int(text)
    if not 1 <= value <= _MOST:  # or no message could hold it
        raise argparse.ArgumentTypeError(f"from 1 to {_MOST}")
    return value

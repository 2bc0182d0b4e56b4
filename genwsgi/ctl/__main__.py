"""The ``genwsgictl`` command, also ``python -m genwsgi.ctl``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from genwsgi._version import __version__
from genwsgi.ctl import notify
from genwsgi.errors import GenwsgiError
from genwsgi.triggers.amqp.hiding import hide_from_process_list

#: Exit status for a command line that can't be obeyed, as argparse has it.
USAGE_ERROR = 2


def parser() -> argparse.ArgumentParser:
    """Return a parser that knows every subcommand."""
    made = argparse.ArgumentParser(
        prog="genwsgictl", description="Give orders to servers that genwsgi runs."
    )
    made.add_argument("-v", "--version", action="version", version=f"genwsgi {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    notify.add_to(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit status."""
    hide_from_process_list()
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except GenwsgiError as error:
        print(f"genwsgictl: {error}", file=sys.stderr)
        return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())

"""The ``genwsgictl`` command, also ``python -m genwsgi.ctl``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from genwsgi import completion
from genwsgi._version import __version__
from genwsgi.ctl import deploying, history, listing, manage, notify, status
from genwsgi.ctl.command import STATUSES, Exit, complain
from genwsgi.ctl.render import plain
from genwsgi.errors import GenwsgiError, ServerNotFound
from genwsgi.triggers.amqp.hiding import hide_from_process_list

DESCRIPTION = """\
Look at servers that genwsgi runs, and give them orders. A server is found by
itself if it is the only one of this user; else it is named with --run-dir DIR or
--pid FILE.

On a terminal it shows colours and what changes; in a pipe plain text; and with
--json one object in a line for programs.
"""

EXAMPLES = """\
examples:
  genwsgictl status                what is served, by whom, and what is wrong
  genwsgictl deploy                deploy what is on disk, and show how it goes
  genwsgictl rollback              back to the release before
  genwsgictl history -n 10         how the last ten orders ended
  genwsgictl COMMAND --help        about each command, with examples
"""


def parser() -> argparse.ArgumentParser:
    """Return a parser that knows every subcommand."""
    made = argparse.ArgumentParser(
        prog="genwsgictl",
        description=DESCRIPTION,
        epilog=f"{EXAMPLES}\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("-v", "--version", action="version", version=f"genwsgi {__version__}")
    completion.add_to(made)
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (status, deploying, history, manage, listing, notify):
        module.add_to(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit status."""
    hide_from_process_list()
    # A name that this terminal can't show is no reason to show nothing.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        options = parser().parse_args(arguments)
        return int(options.run(options))
    except ServerNotFound as error:
        if error.servers:
            sys.stderr.write(plain([listing.listing(error.servers, time.time())]))
        complain(str(error))
    except GenwsgiError as error:
        complain(str(error))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough; and there is nobody to be told at the interpreter's end.
        sys.stdout = None
        return Exit.DONE
    except OSError as error:
        complain(f"the answer can't be shown: {error.strerror or error}")
        sys.stdout = None
    return Exit.USAGE


if __name__ == "__main__":
    sys.exit(main())

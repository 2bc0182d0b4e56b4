"""``genwsgictl pause``, ``resume``, ``restart`` and ``drain``: what is ordered in one word."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from genwsgi.ctl.command import Exit, add_command, complain, count, open_session, somebody
from genwsgi.ctl.render import Line
from genwsgi.ctl.status import replaced
from genwsgi.deploy.control import (
    CancelRequest,
    Done,
    FromClient,
    PauseRequest,
    RestartRequest,
    Status,
    StatusRequest,
)

PAUSE = """\
Take no automatic orders any more, such as those of the file watch and of brokers,
until genwsgictl resume; also if the coordinator is restarted meanwhile. genwsgictl
deploy and rollback are obeyed.
"""

PAUSE_EXAMPLES = """\
  genwsgictl pause -m 'until the migration is over'
"""

RESUME = """\
Take automatic orders again. What has changed on disk meanwhile is deployed.
"""

RESUME_EXAMPLES = """\
  genwsgictl resume
"""

RESTART = """\
Replace the workers by new processes, as gunicorn does it: for what no deploy can
renew, such as C extensions and upgraded dependencies. The new workers serve the
committed release. Keep-alive connections of the old ones end with them; requests
under way are served out, for --graceful-timeout at most.
"""

RESTART_EXAMPLES = """\
  genwsgictl restart -m 'a new database driver'
"""

DRAIN = """\
Show the generations that are replaced and still owe responses: how many, and the
oldest. With --cancel the requests of one are ended; their clients see the
connection end, and nobody else sees anything.
"""

DRAIN_EXAMPLES = """\
  genwsgictl drain
  genwsgictl drain --cancel 6                 generation 6 of every worker
  genwsgictl drain --cancel 6 --worker 4711   of this worker
"""


def add_to(commands: Any) -> None:
    """Add the subcommands to a parser's."""
    pause = add_command(
        commands,
        "pause",
        lambda options: _ask(options, PauseRequest(True, _detail(options))),
        brief="take no automatic orders",
        description=PAUSE,
        examples=PAUSE_EXAMPLES,
    )
    resume = add_command(
        commands,
        "resume",
        lambda options: _ask(options, PauseRequest(False, _detail(options))),
        brief="take automatic orders again",
        description=RESUME,
        examples=RESUME_EXAMPLES,
    )
    restart = add_command(
        commands,
        "restart",
        lambda options: _ask(options, RestartRequest(_detail(options))),
        brief="replace the workers by new processes",
        description=RESTART,
        examples=RESTART_EXAMPLES,
    )
    for parser in (pause, resume, restart):
        parser.add_argument("-m", "--message", metavar="TEXT", default="", help="why, for people")
    drain = add_command(
        commands,
        "drain",
        run_drain,
        brief="show replaced generations that owe responses, or end one",
        description=DRAIN,
        examples=DRAIN_EXAMPLES,
    )
    drain.add_argument("--cancel", metavar="GENERATION", type=count, help="end its requests")
    drain.add_argument("--worker", metavar="PID", type=count, help="with --cancel: only there")


def run_drain(options: argparse.Namespace) -> int:
    """Show old generations, or end one; return the exit status."""
    if options.cancel is not None:
        return _ask(options, CancelRequest(options.cancel, options.worker))
    if options.worker is not None:
        complain("--worker says where to cancel: add --cancel GENERATION")
        return Exit.USAGE
    session = open_session(options)
    status = session.client.ask(Status, StatusRequest())
    table = replaced(status.workers)
    session.tell(
        workers=[
            {
                "pid": worker.pid,
                "generations": [
                    dataclasses.asdict(one) for one in worker.generations if one.state != "current"
                ],
            }
            for worker in status.workers
        ]
    )
    session.screen.show(table if table.rows else Line("no replaced generation is there"))
    return Exit.DONE


def _detail(options: argparse.Namespace) -> str:
    return f"{somebody()}: {options.message}" if options.message else somebody()


def _ask(options: argparse.Namespace, request: FromClient) -> int:
    """Have it done; show what is said; return the exit status."""
    session = open_session(options)
    done = session.client.ask(Done, request)
    session.tell(**dataclasses.asdict(done))
    if not done.ok:
        complain(done.reason)
        return Exit.NOT_DONE
    session.screen.show(Line(done.reason or "done"))
    return Exit.DONE

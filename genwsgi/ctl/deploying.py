"""``genwsgictl deploy`` and ``rollback``: an order, how it goes in every worker, how it ends."""

from __future__ import annotations

import argparse
import dataclasses
import os
import uuid
from collections.abc import Iterator
from typing import Any, Final

from genwsgi.ctl.command import (
    Exit,
    Session,
    add_command,
    complain,
    count,
    open_session,
    somebody,
)
from genwsgi.ctl.render import Block, Code, Line
from genwsgi.ctl.table import LiveTable
from genwsgi.ctl.words import span
from genwsgi.deploy.control import Status, StatusRequest
from genwsgi.deploy.protocol import (
    OrderOutcome,
    OrderRequest,
    Outcome,
    Progress,
    RollbackRequest,
)
from genwsgi.errors import ServerUnreachable

DEPLOY = """\
Deploy what is on disk now, on all workers of a server or on none, and wait for
the outcome. With --path it is read from that folder first, from now on. Ctrl-C
ends the waiting and not the deploy.
"""

DEPLOY_EXAMPLES = """\
  genwsgictl deploy                          what is on disk now
  genwsgictl deploy --path /srv/shop/v42     from a new folder, from now on
  genwsgictl deploy -m 'fix of the basket'   why, for log and history
  genwsgictl deploy --no-wait                order it, and don't wait
"""

ROLLBACK = """\
Go back to the code of an earlier release, from its kept snapshot: the tree on
disk is neither read nor changed. Without RELEASE it is the release before the
one that is served. The file watch then deploys nothing until the files change
again; genwsgictl deploy ends that at once. genwsgictl history shows which
releases are kept.
"""

ROLLBACK_EXAMPLES = """\
  genwsgictl rollback            to the release before
  genwsgictl rollback 12         to release 12
  genwsgictl rollback -m 'error 500 on /basket'
"""

#: How long an order may take, in seconds, unless it is told.
PATIENCE: Final = 600.0

_STATUSES: Final = {Outcome.COMMITTED: Exit.DONE, Outcome.UNCHANGED: Exit.DONE}


def add_to(commands: Any) -> None:
    """Add the subcommands to a parser's."""
    deploy = add_command(
        commands,
        "deploy",
        run_deploy,
        brief="deploy what is on disk, and show how it goes",
        description=DEPLOY,
        examples=DEPLOY_EXAMPLES,
        timeout=PATIENCE,
    )
    deploy.add_argument("--path", metavar="DIR", help="import from this folder first, from now on")
    deploy.add_argument(
        "--force", action="store_true", help="also if the code is the one that is served"
    )
    rollback = add_command(
        commands,
        "rollback",
        run_rollback,
        brief="go back to an earlier release",
        description=ROLLBACK,
        examples=ROLLBACK_EXAMPLES,
        timeout=PATIENCE,
    )
    rollback.add_argument("release", metavar="RELEASE", nargs="?", type=count, help="its number")
    for parser in (deploy, rollback):
        parser.add_argument("-m", "--message", metavar="TEXT", default="", help="why, for people")
        parser.add_argument(
            "--wait",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="wait for the outcome, or only until the order is taken",
        )


def run_deploy(options: argparse.Namespace) -> int:
    """Give the order; return the exit status."""
    path = os.path.abspath(options.path) if options.path else ""
    order = OrderRequest(
        _name(), "genwsgictl", options.force, _detail(options), path, follow=options.wait
    )
    return _run(options, order)


def run_rollback(options: argparse.Namespace) -> int:
    """Give the order; return the exit status."""
    order = RollbackRequest(_name(), options.release, _detail(options), follow=options.wait)
    return _run(options, order)


def _name() -> str:
    return uuid.uuid4().hex[:12]


def _detail(options: argparse.Namespace) -> str:
    who = f"by {somebody()}"
    return f"{options.message} ({who})" if options.message else who


def _run(options: argparse.Namespace, order: OrderRequest | RollbackRequest) -> int:
    session = open_session(options, to_the_end=True)
    try:
        outcome = _follow(session, order) if options.wait else _give(session, order)
    except KeyboardInterrupt:
        complain(f"the waiting has ended, and order {order.id} goes on: see genwsgictl history")
        return Exit.INTERRUPTED
    except ServerUnreachable as error:
        if not session.client.sent:
            raise
        late = f"it takes longer than {options.timeout:g} s and goes on"
        why = late if error.connected else str(error)
        complain(f"order {order.id} is not over: {why}; see genwsgictl history")
        return Exit.LATE
    if outcome is None:
        session.tell(order=order.id, outcome=None)
        session.screen.show(Line(f"order {order.id} is taken"))
        return Exit.DONE
    session.tell(order=order.id, outcome=dataclasses.asdict(outcome))
    session.screen.show(*ending(outcome))
    return _STATUSES.get(outcome.outcome, Exit.NOT_DONE)


def _give(session: Session, order: OrderRequest | RollbackRequest) -> OrderOutcome | None:
    """Give an order that nobody waits for; return its outcome if it has one at once."""
    heard: list[object] = []
    # A coordinator hears one request after the other: when it answers this one, it has the order.
    session.client.ask(Status, order, StatusRequest(), meanwhile=heard.append)
    return next((message for message in heard if isinstance(message, OrderOutcome)), None)


def _follow(session: Session, order: OrderRequest | RollbackRequest) -> OrderOutcome:
    """Give an order, show how it goes, and return its outcome."""
    table = LiveTable(session.screen, ("WHERE", "STAGE", "DONE"))

    working: set[int | None] = set()

    def show(message: object) -> None:
        if isinstance(message, Progress):
            # In a pipe each stage is worth a line, and each module is not.
            cells = row(message) if session.screen.terminal else row(message)[:2]
            rows: dict[int | None, tuple[str, ...]] = {message.pid: cells}
            working.add(message.pid)
            if len(working) > 1 and None in working:
                rows = {None: ("coordinator", "done", ""), **rows}
            table.show(rows)

    with session.screen.drawing():
        return session.client.ask(OrderOutcome, order, meanwhile=show)


def row(progress: Progress) -> tuple[str, ...]:
    """How far one process is, in words."""
    where = "coordinator" if progress.pid is None else f"worker {progress.pid}"
    if not progress.done and not progress.total:
        return (where, progress.stage, "at its scope" if progress.stage == "looking" else "")
    what = "module " if progress.stage == "building" else ""
    done = f"{what}{progress.done}"
    return (where, progress.stage, f"{done} of {progress.total}" if progress.total else done)


def ending(outcome: OrderOutcome) -> Iterator[Block]:
    """What is shown of an outcome."""
    if outcome.traceback:
        yield Code(outcome.traceback, "pytb")
    note = f": {outcome.reason}" if outcome.reason else ""
    if outcome.outcome == Outcome.COMMITTED:
        generation = "" if outcome.generation is None else f" as generation {outcome.generation}"
        yield Line(
            f"committed: release {outcome.release} is live{generation} after "
            f"{span(outcome.seconds)}{note}"
        )
    elif outcome.outcome == Outcome.UNCHANGED:
        yield Line(f"{outcome.outcome}{note}")
    else:
        yield Line(f"{outcome.outcome}{note}; what was served is served on")

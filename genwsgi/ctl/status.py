"""``genwsgictl status``: how a server stands."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from genwsgi.ctl.command import Exit, Session, add_command, open_session, seconds
from genwsgi.ctl.find import Server
from genwsgi.ctl.history import outcomes
from genwsgi.ctl.render import Block, Line, Table
from genwsgi.ctl.words import moment, size, span
from genwsgi.deploy.control import Status, StatusRequest, WorkerStatus
from genwsgi.deploy.protocol import label

DESCRIPTION = """\
Show how a server stands: the release that is served, each worker with its
generation, its requests in flight and its memory, generations that are replaced
and still owe responses, what asks for deploys, how the last orders ended, and
what is wrong.
"""

EXAMPLES = """\
  genwsgictl status                       the only server of this user
  genwsgictl status --run-dir /run/shop
  genwsgictl status --watch               looked at every second, until Ctrl-C
  genwsgictl status --json | jq .status.release.number
"""

#: What a coordinator is doing, in words; nothing to say of one that waits for orders.
PHASES: Final = {
    "idle": "",
    "reading": "a deploy begins",
    "canary": "a deploy is tried in one worker",
    "preparing": "a deploy is built in all workers",
    "holding": "a deploy is held for the word",
    "committing": "a deploy goes live",
}

#: What ``--watch`` waits between two looks, in seconds.
EVERY: Final = 1.0


def add_to(commands: Any) -> None:
    """Add the subcommand to a parser's."""
    parser = add_command(
        commands,
        "status",
        run,
        brief="show how a server stands",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("--watch", action="store_true", help="keep it live until interrupted")
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=seconds,
        default=EVERY,
        help="with --watch: how often to look [%(default)g]",
    )


def run(options: argparse.Namespace) -> int:
    """Show it; return the exit status."""
    session = open_session(options)
    if not options.watch:
        _look(session)
        return Exit.DONE
    try:
        with session.screen.drawing():
            while True:
                _look(session)
                time.sleep(options.every)
    except KeyboardInterrupt:
        return Exit.DONE  # that is how one ends it


def _look(session: Session) -> None:
    status = session.client.ask(Status, StatusRequest())
    session.tell(status=dataclasses.asdict(status))
    session.screen.draw(*view(session.server, status, time.time()))


def view(server: Server, status: Status, now: float) -> Iterator[Block]:
    """What ``status`` shows.

    :param now: the wall clock's time, in seconds since the epoch.
    """
    release = status.release
    origin = f"by {release.trigger} ({release.detail})"
    yield Line(f"{server.serves}: release {label(release)}, {origin}")
    about = f"pid {server.pid}, {server.run_dir}, running for {span(now - server.since)}"
    yield Line("; ".join(filter(None, (about, PHASES.get(status.phase, status.phase)))))
    if status.paused is not None:
        since = moment(status.paused.since)
        yield Line(f"paused by {status.paused.by} since {since}; genwsgictl resume ends it")
    if status.quiet:
        yield Line(f"quiet: {status.quiet}")
    if status.trial:
        yield Line(status.trial)
    for problem in status.problems:
        where = "" if problem.pid is None else f"worker {problem.pid}: "
        yield Line(f"problem since {moment(problem.since)}: {where}{problem.text}")
    yield Line("")
    yield workers(status.workers)
    old = replaced(status.workers)
    if old.rows:
        yield Line("")
        yield old
    if status.triggers:
        yield Line("")
        rows = [(name, in_words(told)) for name, told in status.triggers.items()]
        yield Table(("TRIGGER", "STATE"), tuple(rows))
    if status.recent:
        yield Line("")
        yield outcomes(status.recent)


def workers(all_of_them: tuple[WorkerStatus, ...]) -> Table:
    """The table of the workers."""
    return Table(
        ("WORKER", "RELEASE", "GENERATION", "IN FLIGHT", "MEMORY", "RUNNING FOR"),
        tuple(
            (
                str(worker.pid),
                "" if worker.release is None else str(worker.release),
                ", ".join(str(g.number) for g in worker.generations if g.state == "current"),
                str(sum(g.leases for g in worker.generations)),
                size(worker.memory),
                span(worker.uptime),
            )
            for worker in sorted(all_of_them, key=lambda worker: worker.pid)
        ),
    )


def replaced(all_of_them: tuple[WorkerStatus, ...]) -> Table:
    """The table of the generations that are replaced and not gone."""
    return Table(
        (
            "WORKER",
            "REPLACED",
            "RELEASE",
            "STATE",
            "SINCE",
            "LEASES",
            "OLDEST",
            "REQUEST",
            "HELD BY",
        ),
        tuple(
            (
                str(worker.pid),
                str(old.number),
                old.release,
                old.state,
                span(old.age),
                str(old.leases),
                span(old.oldest),
                old.request,
                old.holder,
            )
            for worker in sorted(all_of_them, key=lambda worker: worker.pid)
            for old in worker.generations
            if old.state != "current"
        ),
    )


def in_words(told: object) -> str:
    """What a trigger says of itself, in words: ours in a sentence, any other's as it is."""
    if not isinstance(told, Mapping):
        return str(told)
    rest = dict(told)
    parts = [*_watch(rest), *_broker(rest)]
    parts += [f"{key.replace('_', ' ')} {value}" for key, value in rest.items() if value]
    return ", ".join(parts)


def _watch(told: dict[str, Any]) -> Iterator[str]:
    """Take out of ``told`` what the file watch says."""
    if isinstance(told.get("watching"), int):
        how = "polling" if told.pop("polling", False) else "watching"
        yield f"{how} {told.pop('watching')} folders"
        if told.get("problem"):
            yield f"problem: {told.pop('problem')}"


def _broker(told: dict[str, Any]) -> Iterator[str]:
    """Take out of ``told`` what a listener to a broker says."""
    if "connected" not in told:
        return
    since, again = told.pop("connected_for", None), told.pop("next_try_in", None)
    broker, problem = told.pop("broker", "the broker"), told.pop("problem", None)
    if told.pop("connected"):
        yield f"connected to {broker}" + (f" for {span(since)}" if since is not None else "")
    else:
        yield f"problem: {broker} can't be used" + (f": {problem}" if problem else "")
        if again is not None:
            yield f"next try in {span(again)}"

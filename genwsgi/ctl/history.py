"""``genwsgictl history`` and ``diff``: what was deployed, and what it changed."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Final

from genwsgi.ctl.command import Exit, add_command, complain, count, open_session
from genwsgi.ctl.render import Block, Code, Line, Table
from genwsgi.ctl.words import counted, moment, span
from genwsgi.deploy.control import Diff, DiffRequest, History, HistoryEntry, HistoryRequest
from genwsgi.deploy.protocol import label

#: How many outcomes are kept, and shown unless fewer are asked for.
MOST: Final = 50

HISTORY = """\
Show how the last 50 orders ended, those of earlier servers of the same
application too: the latest first. A release whose snapshot is kept can be gone
back to: see genwsgictl rollback.
"""

HISTORY_EXAMPLES = """\
  genwsgictl history -n 5
  genwsgictl history --json | jq '.history[] | select(.outcome == "failed")'
"""

DIFF = """\
Show what changed from release A to release B: the files, and the lines of their
source. Without B it is the release that is served, without A the one before B.
Releases have the numbers that genwsgictl history shows; only those that are kept
can be compared.
"""

DIFF_EXAMPLES = """\
  genwsgictl diff                what the last deploy changed
  genwsgictl diff 12             what has changed since release 12
  genwsgictl diff 12 14 | less
"""


def add_to(commands: Any) -> None:
    """Add the subcommands to a parser's."""
    history = add_command(
        commands,
        "history",
        show_history,
        brief="show how the last orders ended",
        description=HISTORY,
        examples=HISTORY_EXAMPLES,
    )
    history.add_argument(
        "-n", "--count", metavar="N", type=count, default=MOST, help="how many [%(default)s]"
    )
    diff = add_command(
        commands,
        "diff",
        show_diff,
        brief="show what changed between two releases",
        description=DIFF,
        examples=DIFF_EXAMPLES,
    )
    diff.add_argument("one", metavar="A", nargs="?", type=count, help="the older release")
    diff.add_argument("other", metavar="B", nargs="?", type=count, help="the newer release")


def show_history(options: argparse.Namespace) -> int:
    """Show the history; return the exit status."""
    session = open_session(options)
    history = session.client.ask(History, HistoryRequest(options.count))
    session.tell(history=[dataclasses.asdict(entry) for entry in history.entries])
    session.screen.show(outcomes(history.entries, kept=True))
    return Exit.DONE


def show_diff(options: argparse.Namespace) -> int:
    """Show a difference; return the exit status."""
    session = open_session(options)
    diff = session.client.ask(Diff, DiffRequest(options.one, options.other))
    session.tell(diff=dataclasses.asdict(diff))
    if diff.reason:
        complain(diff.reason)
        return Exit.NOT_DONE
    session.screen.show(*difference(diff))
    return Exit.DONE


def outcomes(entries: Iterable[HistoryEntry], *, kept: bool = False) -> Table:
    """The table of how orders ended.

    :param kept: with a column that says whether one can go back to the release.
    """
    return Table(
        ("WHEN", "OUTCOME", "RELEASE", "TOOK", "BY", "KEPT", "WHY"),
        tuple(
            (
                moment(entry.time),
                entry.outcome,
                _release(entry),
                span(entry.seconds) if entry.seconds else "",
                entry.trigger,
                "kept" * (kept and entry.kept),
                entry.reason or entry.detail,
            )
            for entry in entries
        ),
    )


def _release(entry: HistoryEntry) -> str:
    number = "" if entry.release is None else str(entry.release)
    return f"{number}-{entry.digest[:8]}" if number and entry.digest else number


def difference(diff: Diff) -> Iterator[Block]:
    """What ``diff`` shows."""
    names = [label(release) for release in (diff.one, diff.other) if release is not None]
    files = (("added", diff.added), ("removed", diff.removed), ("changed", diff.changed))
    sums = [f"{len(paths)} {what}" for what, paths in files if paths]
    yield Line(f"{' -> '.join(names)}: {', '.join(sums) or 'no difference'}")
    for what, paths in files:
        for path in paths:
            yield Line(f"{what}: {path}")
    if diff.more:
        yield Line(f"and {counted(diff.more, 'more file')}")
    if diff.text:
        yield Code(diff.text, "diff")

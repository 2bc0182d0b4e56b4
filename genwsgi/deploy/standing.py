"""How the host stands in one line, as the coordinator tells it to the master.

Pure.  The master reads it from a pipe, one word in each line, and passes it on to systemd.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from genwsgi.deploy.framing import clean
from genwsgi.deploy.protocol import OrderOutcome, Outcome, Problem, Release, label

#: Longest text, in characters: a word is written to the pipe in one piece, or not at all.
LONGEST: Final = 500


@dataclass(frozen=True)
class Word:
    """What there is to say now.

    :ivar order: the order whose deploy is under way; empty while none is.
    :ivar text: one line for people.
    """

    order: str
    text: str

    def encode(self) -> bytes:
        """The word as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"


def decode(line: bytes) -> Word | None:
    """Read a line; ``None`` if it is no word."""
    try:
        told = json.loads(line)
        return Word(str(told["order"]), _one_line(str(told["text"])))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def in_brief(
    release: Release,
    workers: int,
    *,
    deploying: str | None = None,
    last: OrderOutcome | None = None,
    problems: Sequence[Problem] = (),
) -> Word:
    """Put into one line what serves, what is being done about it, and what is wrong.

    :param workers: how many are connected.
    :param deploying: the order whose deploy is under way.
    :param last: the latest outcome of an order.
    """
    said = [f"release {label(release)} on {workers} worker{'s' * (workers != 1)}"]
    if deploying:
        said.append(f"deploying for order {deploying}")
    elif last is not None and last.outcome != Outcome.UNCHANGED:
        reason = f": {last.reason}" if last.reason else ""
        said.append(f"last order: {last.outcome}{reason}")
    if problems:
        names = dict.fromkeys(problem.name for problem in problems)
        said.append(f"problems: {', '.join(names)}")
    return Word(deploying or "", _one_line("; ".join(said)))


def _one_line(text: str) -> str:
    line = " ".join(clean(text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"

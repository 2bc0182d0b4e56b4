"""Which orders were accepted before, and how they ended: so that each is done once.

Kept in a file beside the committed release, so that a coordinator that takes over knows it too.
There is room for so many orders.  One that is forgotten can't be done again all the same: of those
with a time, nothing is accepted any more that is older than the newest of the forgotten, and of
those that are as old (times are mostly whole seconds) the ids are kept.

Nor is an order accepted that is older than one that was, by more than clocks may differ: a host
that has just started has seen no ids, and whoever has recorded an old order could send it there.

One thread at a time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from typing import Any, Final

from genwsgi.triggers.amqp.message import Refusal
from genwsgi.triggers.amqp.signing import AHEAD

#: How many orders are remembered.
ROOM: Final = 1000

#: How many messages without an id are.
NAMELESS: Final = 20


@dataclass
class Entry:
    """One order.

    :ivar issued_at: when it was given, as its message says.
    :ivar outcome: what is answered when somebody asks; empty while it is under way.
    :ivar fields: the message, while it is under way.
    :ivar replies: to whom its outcome is told: pairs of queue and correlation id.
    """

    issued_at: float | None
    outcome: dict[str, Any]
    fields: dict[str, Any]
    replies: list[list[str]]


class Memory:
    """The orders accepted here.

    :param path: the file it is kept in; ``None``: only as long as the process lives.
    """

    def __init__(self, path: str | None, log: logging.Logger) -> None:
        self._path = path
        self._log = log
        self._entries: dict[str, Entry] = {}
        # Digests, the latest last.
        self._nameless: dict[str, None] = {}
        self._floor = 0.0
        self._on_floor: list[str] = []
        self._newest = 0.0
        # Whether the log has been told that it can't be written.
        self._unwritten = False
        if path is not None:
            self._load(path)

    def __repr__(self) -> str:
        return f"<Memory of {len(self._entries)} orders>"

    def find(self, order: str) -> Entry | None:
        """Return what is known of an order."""
        return self._entries.get(order)

    def under_way(self) -> dict[str, Entry]:
        """The orders that were accepted and have no outcome."""
        return {order: entry for order, entry in self._entries.items() if not entry.outcome}

    def accept(self, order: str, entry: Entry, *, prepared: bool = False) -> None:
        """Take an order that is not known.

        :param prepared: its preparation was accepted, and other hosts may go live with it now: so
            nothing newer that has come in between is a reason to refuse it.
        :raises Refusal: it is so old that it may have been forgotten, or older than another.
        """
        at = entry.issued_at
        if at is not None and (at < self._floor or (at == self._floor and order in self._on_floor)):
            raise Refusal("it is as old as orders that are forgotten here", quiet=True)
        if at is not None and at < self._newest - AHEAD and not prepared:
            age = f"{self._newest - at:.0f} s older than one that was accepted here"
            raise Refusal(f"it is {age}: give it anew, or compare the clocks")
        self._newest = max(self._newest, at or 0.0)
        self._entries[order] = entry
        if len(self._entries) > ROOM:
            self._forget()
        self._keep()

    def finish(self, order: str, outcome: dict[str, Any]) -> None:
        """Note how an order ended."""
        entry = self._entries.get(order)
        if entry is not None:
            entry.outcome, entry.fields, entry.replies = outcome, {}, []
            self._keep()

    def is_known(self, body: bytes) -> bool:
        """Whether a message of these bytes, without an id, was accepted here before."""
        return _digest(body) in self._nameless

    def know(self, body: bytes) -> None:
        """Note that this message without an id was accepted, however it ends."""
        self._nameless.pop(_digest(body), None)
        self._nameless[_digest(body)] = None
        while len(self._nameless) > NAMELESS:
            del self._nameless[next(iter(self._nameless))]
        self._keep()

    def _forget(self) -> None:
        ended = [order for order, entry in self._entries.items() if entry.outcome]
        for order in ended[: max(0, len(self._entries) - ROOM)]:
            at = self._entries.pop(order).issued_at
            if at is not None and at > self._floor:
                self._floor, self._on_floor = at, []
            if at is not None and at == self._floor:
                self._on_floor.append(order)

    def _load(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            self._entries = {order: Entry(**entry) for order, entry in found["entries"].items()}
            self._nameless, self._floor = dict.fromkeys(found["nameless"]), found["floor"]
            self._on_floor, self._newest = found["on_floor"], found["newest"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._log.error("which orders were accepted is lost (%s: %s)", path, error)

    def _keep(self) -> None:
        if self._path is None:
            return
        entries = {order: vars(entry) for order, entry in self._entries.items()}
        content = {
            "entries": entries,
            "nameless": list(self._nameless),
            "floor": self._floor,
            "on_floor": self._on_floor,
            "newest": self._newest,
        }
        try:
            temporary = self._path + ".new"
            with open(temporary, "w", encoding="utf-8") as file:
                # Made in one piece, which is ten times as fast: a burst brings thousands of orders.
                file.write(json.dumps(content))
            os.replace(temporary, self._path)
        except OSError as error:
            if not self._unwritten:
                self._log.error("which orders were accepted can't be written down: %s", error)
            self._unwritten = True
        else:
            self._unwritten = False


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()

"""Entries of ``sys.modules`` that code of a build makes or removes by itself.

Under names of the scope they are the generation's own.  Others are everybody's: a failed build's
are put back, and one that is a module of a generation's code goes with that generation.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from genwsgi.isolation.effects.base import Book, Record, Run, building, living
from genwsgi.isolation.effects.claims import Entry, counted
from genwsgi.isolation.holders import belongs


class Entries(Record):
    """The entries that one build has changed: what was there before, and what it put there."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.changed: dict[str, tuple[Entry, Any, Any]] = {}

    def undo(self) -> None:
        """Put back what was there, where nobody has changed it since."""
        while self.changed:
            _, (entry, before, mine) = self.changed.popitem()
            if entry.get() is mine:
                entry.set(before)

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Take the generation's own modules away; everything else is the process's now."""
        book = self.book()
        generation = None if book is None else book.generation()
        table = None if generation is None else generation.modules
        for name, (entry, before, mine) in self.changed.items():
            if table is None or table.closed or not belongs(mine, table.builtins):
                continue
            for _, other in living():
                found = other.of(Entries).changed
                if other is not book and name in found and found[name][1] is mine:
                    found[name] = found[name][0], before, found[name][2]
            if entry.get() is mine:
                entry.set(before)
        self.changed = {}

    def report(self) -> list[str]:
        """How many there are."""
        return counted({"sys.modules entry": len(self.changed)})


def changing(table: MutableMapping[str, Any], name: str, value: Any) -> None:
    """Write down, before it is done, that code changes an entry that is everybody's.

    What the import system does while a shared module is imported is not a generation's doing.
    """
    entries = building(Entries)
    if entries is not None:
        entry = Entry(table, name)
        known = entries.changed.get(name)
        entries.changed[name] = entry, entry.get() if known is None else known[1], value


def install() -> None:
    """Nothing to wrap: the view of ``sys.modules`` says what is changed."""


def uninstall() -> None:
    """Undo :func:`install`."""

"""The book of one generation: what it did, to be undone or retired as one."""

from __future__ import annotations

import logging
import threading
from types import ModuleType
from typing import cast

from genwsgi.generations.generation import Generation
from genwsgi.isolation.effects import (
    claims,
    codings,
    exits,
    forks,
    lists,
    logs,
    mimes,
    offers,
    registries,
    signals,
    threads,
)
from genwsgi.isolation.effects.base import Book, Record, Run, book_of, open_book

log = logging.getLogger("genwsgi")

#: Guards installing and uninstalling.
_lock = threading.Lock()
_installed = 0

#: Every family's module and record, in the order of installing; all that ends goes backwards.
_FAMILIES: tuple[tuple[ModuleType, type[Record]], ...] = (
    (lists, lists.Lists),
    (registries, claims.Claims),
    (codings, codings.Codecs),
    (mimes, mimes.Mimes),
    (forks, forks.Forks),
    (signals, signals.Signals),
    (logs, logs.Logs),
    (threads, threads.Threads),
    (offers, offers.Offers),
    (exits, exits.Exits),
)


class Effects(Book):
    """What one generation did to the process.  Kept by the thread that builds; see each method."""

    def __init__(self, generation: Generation) -> None:
        super().__init__(generation)
        for _, kind in _FAMILIES:
            self.records[kind] = kind(self)
        open_book(generation, self)

    def built(self) -> None:
        """The build has ended: see what it did that goes through no function."""
        for record in self.records.values():
            self._guarded(record, "built")

    def undo(self) -> None:
        """Undo all of it: the build failed.  Threads are told to stop; see :meth:`stragglers`."""
        self.built()
        self.closed = True
        for record in reversed(self.records.values()):
            self._guarded(record, "undo")

    def retire(self, run: Run) -> None:
        """Run the exit callbacks, last registered first, and take away what was the generation's.

        :param run: runs a callable in the generation's context.
        """
        for record in reversed(self.records.values()):
            self._guarded(record, "retire", run)
        self.closed = True

    def stragglers(self) -> list[threading.Thread]:
        """Threads that the generation started and that still run."""
        return self.of(threads.Threads).running()

    def report(self) -> list[str]:
        """What of the generation's doing is in force outside of its modules, a phrase each.

        Any thread may ask.
        """
        return [phrase for record in self.records.values() for phrase in record.report()]

    def _guarded(self, record: Record, step: str, *args: object) -> None:
        try:
            getattr(record, step)(*args)
        except Exception:  # the other records have their turn
            log.exception("%s: %s() of its %s failed", self.name, step, type(record).__name__)


def effects_of(generation: Generation) -> Effects | None:
    """What is written down for ``generation``, if anything."""
    return cast("Effects | None", book_of(generation))


def install() -> None:
    """Begin to write effects down.  Any thread; balanced by :func:`uninstall`."""
    global _installed
    with _lock:
        _installed += 1
        if _installed > 1:
            return
        for family, _ in _FAMILIES:
            family.install()


def uninstall() -> None:
    """Undo :func:`install`; with the last one everything is as it was before the first."""
    global _installed
    with _lock:
        _installed -= 1
        if _installed:
            return
        for family, _ in reversed(_FAMILIES):
            family.uninstall()

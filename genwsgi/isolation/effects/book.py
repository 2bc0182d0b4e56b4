"""The book of one generation: what it did, to be undone or retired as one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from types import ModuleType
from typing import Any, cast

from genwsgi.generations.generation import Generation
from genwsgi.isolation.effects import (
    catalogues,
    checks,
    claims,
    codings,
    entries,
    environment,
    exits,
    finalizers,
    forks,
    hooks,
    listeners,
    lists,
    logs,
    mimes,
    offers,
    overrides,
    processes,
    registries,
    settings,
    signals,
    threads,
    warns,
)
from genwsgi.isolation.effects.base import Book, Record, Run, book_of, open_book, under_way

log = logging.getLogger("genwsgi")

#: Guards installing and uninstalling.
_lock = threading.Lock()
_installed = 0

#: Every family's module and record, in the order of installing; all that ends goes backwards.
_FAMILIES: tuple[tuple[ModuleType, type[Record]], ...] = (
    (environment, environment.Environment),
    (settings, settings.Settings),
    (entries, entries.Entries),
    (lists, lists.Lists),
    (registries, claims.Claims),
    (warns, claims.Claims),
    (hooks, hooks.Hooks),
    (overrides, overrides.Overrides),
    (listeners, listeners.Listeners),
    (codings, codings.Codecs),
    (mimes, mimes.Mimes),
    (catalogues, catalogues.Catalogues),
    (forks, forks.Forks),
    (signals, signals.Signals),
    (logs, logs.Logs),
    (processes, processes.Processes),
    (threads, threads.Threads),
    (offers, offers.Offers),
    (checks, checks.Checks),
    (finalizers, finalizers.Finalizers),
    (exits, exits.Exits),
)


class Effects(Book):
    """What one generation did to the process.  Kept by the thread that builds; see each method."""

    def __init__(self, generation: Generation) -> None:
        super().__init__(generation)
        for _, kind in _FAMILIES:
            if kind not in self.records:
                self.records[kind] = kind(self)
        open_book(generation, self)
        under_way.append(self)

    def built(self) -> None:
        """The build has ended well: see what it did that goes through no function, and log it."""
        self._settle()
        done = self.report()
        if done:
            log.info("%s did to the process: %s", self.name, ", ".join(done))

    def undo(self) -> None:
        """Undo all of it: the build failed.  Threads are told to stop; see :meth:`stragglers`."""
        self._settle()
        self.closed = True
        for record in reversed(self.records.values()):
            self._guarded(record, "undo")
        self.of(threads.Threads).name_left()

    def forget(self, packages: Collection[str]) -> None:
        """Undo what shared packages did that only this build had loaded, and that are unloaded."""
        self._guarded(self.of(overrides.Overrides), "forget", packages)

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

    def _settle(self) -> None:
        self.building = False
        if self in under_way:
            under_way.remove(self)
        for record in self.records.values():
            self._guarded(record, "built")

    def _guarded(self, record: Record, step: str, *args: object) -> None:
        try:
            getattr(record, step)(*args)
        except Exception:  # the other records have their turn
            log.exception("%s: %s() of its %s failed", self.name, step, type(record).__name__)


def effects_of(generation: Generation) -> Effects | None:
    """What is written down for ``generation``, if anything."""
    return cast("Effects | None", book_of(generation))


def shared_import_begins() -> Any:
    """A shared module is about to be imported: what it does is nobody's.

    :returns: what to give to :func:`shared_import_ended`; ``None`` if nothing is being built.
    """
    return hooks.look() if under_way else None


def shared_import_ended(seen: Any) -> None:
    """What has changed since ``seen`` no build has done."""
    for book in tuple(under_way):
        book.of(hooks.Hooks).not_mine(seen)
        book.of(overrides.Overrides).look()


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

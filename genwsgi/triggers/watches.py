"""The watches of one watchdog observer, kept as a plan says.

Each watch that watchdog schedules is a thread (and with watchdog 6 an inotify instance, of which a
user has 128), so a tree gets one recursive watch and not one for each directory that isn't ignored:
what happens in ``.git`` or ``node_modules`` arrives and is thrown away, and may be so much that the
system loses events (see :mod:`genwsgi.triggers.flood`).  An observer that polls would read these
directories each time; it is given a listing that leaves them out.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from queue import Queue
from typing import Any

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from genwsgi.triggers.flood import KEPT
from genwsgi.triggers.looks import Key, Listing, LookEvent, PollingObserver
from genwsgi.triggers.paths import Plan, identity
from genwsgi.triggers.sieve import relative

#: Files that are only read are no news; without this each ``open()`` would be an event.
EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    LookEvent,
]

#: watchdog 7 passes over directories below a recursive watch for which no watch was left.  One
#: more, of a directory that is in no plan, brings the error to light.
PROBE = "/proc"

#: How many events inotify keeps for a reader.
QUEUE = "/proc/sys/fs/inotify/max_queued_events"


class WatchError(Exception):
    """A directory can't be watched; the message says why and, for a limit, which one to raise."""


@dataclass(frozen=True)
class _Held:
    watch: ObservedWatch
    identity: tuple[int, int] | None


class Watches:
    """One observer and what it watches.

    One thread owns it; ``emit`` is called from the observer's threads and must not block.

    :param emit: called with each event.
    :param admits: whether a polling observer must look at a path; called from its threads.
    :param interval: seconds between two polls, or ``None`` to be told by the system.
    :raises WatchError: the observer can't start.
    """

    def __init__(
        self,
        emit: Callable[[FileSystemEvent], None],
        admits: Callable[[str], bool],
        interval: float | None,
    ) -> None:
        # watchdog 7 warns, in the thread that reads, when it finds a new directory twice. Where
        # warnings are errors that would end the thread, and nothing would be seen any more.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning, r"watchdog\.")
        self._handler = _Handler(emit)
        self._held: dict[Key, _Held] = {}
        self._refused: set[Key] = set()
        self._told = interval is None
        self._observer: BaseObserver
        try:
            if interval is None:
                self._observer = Observer()
            else:
                self._observer = PollingObserver(_listing(admits), interval)
            _fit_queue(self._observer)
            self._observer.start()
        except OSError as error:
            raise WatchError(_reason(error)) from error

    def __len__(self) -> int:
        return len(self._held)

    @property
    def keys(self) -> Set[Key]:
        """What is watched, as :class:`LookEvent` has it."""
        return self._held.keys()

    def apply(self, plan: Plan, stale: frozenset[str] = frozenset()) -> set[str]:
        """Watch what ``plan`` says and nothing else.

        Watches of directories at or below a path in ``stale``, of directories that are no longer
        the same, and those that ended by themselves, are replaced.

        :returns: the trees whose watch was replaced: events may have been lost.
        :raises WatchError: something can't be watched, most often since a limit is reached.
        """
        wanted = {(path, True) for path in plan.recursive} | {
            (path, False) for path in plan.shallow
        }
        replaced = set()
        ended = self._ended()
        for key, held in list(self._held.items()):
            out_of_date = key in ended or any(relative(key[0], path) is not None for path in stale)
            if out_of_date or key not in wanted:
                del self._held[key]
                self._observer.unschedule(held.watch)
            if out_of_date and key in wanted and key[1]:
                replaced.add(key[0])
        self._refused &= wanted
        self._schedule(wanted - self._held.keys())
        return replaced

    def renew(self, bases: set[str]) -> None:
        """Replace the recursive watches of ``bases``.

        :raises WatchError: as :meth:`apply`.
        """
        keys = self._held.keys() & {(base, True) for base in bases}
        for key in keys:
            self._observer.unschedule(self._held.pop(key).watch)
        self._schedule(keys)

    @property
    def alive(self) -> bool:
        """Whether the thread that hands events on still runs: it ends over an error in watchdog."""
        return self._observer.is_alive()

    def broken(self) -> bool:
        """Whether a watch ended by itself, or its directory is no longer the same."""
        return bool(self._ended())

    def close(self, timeout: float) -> None:
        """End the observer's threads, waiting at most ``timeout`` seconds for them."""
        self._observer.stop()
        self._observer.join(timeout)

    def _schedule(self, keys: set[Key]) -> None:
        try:
            for path, recursive in sorted(keys - self._refused):
                self._schedule_one(path, recursive=recursive)
            if keys and self._told and os.path.isdir(PROBE):
                probe = self._observer.schedule(self._handler, PROBE, event_filter=EVENTS)
                self._observer.unschedule(probe)
        except OSError as error:
            raise WatchError(_reason(error)) from error

    def _schedule_one(self, path: str, *, recursive: bool) -> None:
        # Before the watch: a directory that is replaced in between is found by its identity.
        found = identity(path)
        try:
            watch = self._observer.schedule(
                self._handler, path, recursive=recursive, event_filter=EVENTS
            )
        except PermissionError:
            self._refused.add((path, recursive))
        except (FileNotFoundError, NotADirectoryError):
            pass  # gone since the plan was made: the next plan doesn't contain it
        else:
            self._held[path, recursive] = _Held(watch, found)

    def _ended(self) -> set[Key]:
        alive = {emitter.watch for emitter in self._observer.emitters.copy() if emitter.is_alive()}
        return {
            key
            for key, held in self._held.items()
            if held.watch not in alive or identity(key[0]) != held.identity
        }


class _Handler(FileSystemEventHandler):
    def __init__(self, emit: Callable[[FileSystemEvent], None]) -> None:
        self._emit = emit

    def dispatch(self, event: FileSystemEvent) -> None:
        self._emit(event)


def _fit_queue(observer: BaseObserver) -> None:
    """Give ``observer`` a queue that works where gevent has patched the standard library.

    watchdog 7 makes its own on top of the standard library's and looks into that; gevent's has
    nothing there, and each of the observer's threads would end with its first event.
    """
    if not hasattr(observer.event_queue, "mutex"):
        observer._event_queue = Queue()  # type: ignore[assignment]


def events_kept() -> int:
    """Return how many events the system keeps until they are read; what comes then is lost."""
    try:
        with open(QUEUE, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return KEPT


def _listing(admits: Callable[[str], bool]) -> Listing:
    def listing(path: str | None) -> Iterator[os.DirEntry[Any]]:
        with os.scandir(path) as entries:
            yield from [entry for entry in entries if admits(entry.path)]

    return listing


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no inotify watches left; raise fs.inotify.max_user_watches"
    if error.errno == errno.EMFILE:
        return "no inotify instances left; raise fs.inotify.max_user_instances or `ulimit -n`"
    return str(error)

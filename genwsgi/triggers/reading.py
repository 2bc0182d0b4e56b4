"""What an event of watchdog means for the change under way, and for the watches.

A write is incomplete until the file is closed or renamed into place, where the system tells of
that, which inotify alone does; a deleted file is incomplete too, since many programs delete what
they are about to write anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from watchdog.events import (
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
)

from genwsgi.triggers.paths import Plan, entries, symlinks
from genwsgi.triggers.settle import Settle
from genwsgi.triggers.sieve import Sieve, Tree, relative


class Reader:
    """Tells ``settle`` what events mean, and keeps what they say about the watches.

    Not thread-safe: one thread owns it.

    :ivar stale: real paths that may lead elsewhere now: make a new plan, and replace the watches
        at and below them.
    :ivar moved: bases of trees in which directories came or went: replace their watches.
    :ivar closes: whether the system tells when a file is closed.
    :ivar written: files that somebody has open and has written to, and since when.
    """

    def __init__(self, sieve: Sieve, settle: Settle) -> None:
        self._sieve = sieve
        self._settle = settle
        self._plan = Plan()
        self.stale: set[str] = set()
        self.moved: set[str] = set()
        self.closes = False
        self.written: dict[str, float] = {}
        # When those that were closed had last been written to.
        self._closed: dict[str, int | None] = {}

    def note(self, at: float, event: FileSystemEvent, plan: Plan) -> None:
        """Take in ``event``, seen at ``at`` while ``plan`` was watched."""
        self._plan = plan
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if isinstance(event, FileMovedEvent | DirMovedEvent):
            self._gone(source, at, directory=event.is_directory)
            self._forget([target])
            self._came(target, at, directory=event.is_directory)
        elif isinstance(event, FileDeletedEvent | DirDeletedEvent):
            self._gone(source, at, directory=event.is_directory)
        elif isinstance(event, FileModifiedEvent):
            self._changed(source, at, complete=False)
            if self.closes and self._relevant(source) and self._is_written(source):
                self.written.setdefault(source, at)
        elif isinstance(event, FileClosedEvent):
            self._changed(source, at, complete=True)
            self.written.pop(source, None)
            if self._relevant(source):
                self._closed[source] = _written_at(source)
        else:
            self._came(source, at, directory=event.is_directory)

    def _relevant(self, path: str) -> bool:
        return path in self._plan.files or any(
            self._sieve.relevant(seen, everything=tree.everything) for tree, seen in self._in(path)
        )

    def _is_written(self, path: str) -> bool:
        """Whether a file that was modified was written to, and not its mode or a time set.

        That is the same event for watchdog 6, and no close follows it.
        """
        at = _written_at(path)
        return at is not None and at != self._closed.get(path)

    def _forget(self, paths: Iterable[str]) -> None:
        """Nobody writes to these paths any more: they lead to other files, or to none."""
        for path in paths:
            self.written.pop(path, None)
            self._closed.pop(path, None)

    def _changed(self, path: str, at: float, *, complete: bool) -> None:
        if self._relevant(path):
            self._settle.touch(path, at, complete=complete)
        elif any(self._sieve.temporary(seen) for _, seen in self._in(path)):
            self._settle.stir(at, sync=self._sieve.syncing(path))

    def _gone(self, path: str, at: float, *, directory: bool) -> None:
        if path in self._plan.hinges:
            self.stale.add(path)
        if not directory:
            self._forget([path])
            # Many programs delete, or move away, what they are about to write anew.
            self._changed(path, at, complete=False)
            return
        for tree, seen in self._in(path):
            if not self._sieve.ignored(seen):
                # If it was moved away, its watches went along and report its old name.
                self.moved.add(tree.base)
                self._settle.touch(path, at, complete=False)
                known = self.written.keys() | self._closed.keys()
                self._forget(other for other in known if relative(other, path) is not None)

    def _came(self, path: str, at: float, *, directory: bool) -> None:
        if path in self._plan.hinges:
            self.stale.add(path)
        if not directory:
            self._changed(path, at, complete=_has_content(path))
            if os.path.islink(path) and any(not self._sieve.ignored(s) for _, s in self._in(path)):
                self.stale.add(path)
            return
        for tree, seen in self._in(path):
            if self._sieve.ignored(seen):
                continue
            # watchdog 6 doesn't watch a directory that was moved in from elsewhere.
            self.moved.add(tree.base)
            # Who makes a directory has more to write.
            self._settle.stir(at, sync=True)
            for found, relation in entries(tree, self._sieve, seen):
                if self._sieve.relevant(relation, everything=tree.everything):
                    self._settle.touch(found, at)
            self.stale.update(symlinks(tree, self._sieve, seen))

    def _in(self, path: str) -> list[tuple[Tree, str]]:
        found = ((tree, relative(path, tree.base)) for tree in self._plan.trees)
        return [(tree, seen) for tree, seen in found if seen is not None]


def _written_at(path: str) -> int | None:
    """Return when ``path`` was written to, if nothing else has happened to it since; else None.

    A write sets the time of modification and that of the last change of anything alike.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_mtime_ns if status.st_mtime_ns == status.st_ctime_ns else None


def _has_content(path: str) -> bool:
    """Whether ``path`` looks complete: a file that was just opened for writing is empty."""
    try:
        return os.lstat(path).st_size > 0
    except OSError:
        return False

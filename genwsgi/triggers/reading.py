"""What an event of watchdog means for the change under way, and for the watches.

A write is incomplete until the file is closed or renamed into place; a deleted file is incomplete
too, since many programs delete what they are about to write anew.
"""

from __future__ import annotations

import os

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
    """

    def __init__(self, sieve: Sieve, settle: Settle) -> None:
        self._sieve = sieve
        self._settle = settle
        self._plan = Plan()
        self.stale: set[str] = set()
        self.moved: set[str] = set()

    def note(self, at: float, event: FileSystemEvent, plan: Plan) -> None:
        """Take in ``event``, seen at ``at`` while ``plan`` was watched."""
        self._plan = plan
        source, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if isinstance(event, FileMovedEvent | DirMovedEvent):
            self._gone(source, at, directory=event.is_directory)
            self._came(target, at, directory=event.is_directory)
        elif isinstance(event, FileDeletedEvent | DirDeletedEvent):
            self._gone(source, at, directory=event.is_directory)
        elif isinstance(event, FileModifiedEvent):
            self._written(source, at, complete=False)
        elif isinstance(event, FileClosedEvent):
            self._written(source, at, complete=True)
        else:
            self._came(source, at, directory=event.is_directory)

    def _written(self, path: str, at: float, *, complete: bool) -> None:
        if path in self._plan.files or any(
            self._sieve.relevant(seen, everything=tree.everything) for tree, seen in self._in(path)
        ):
            self._settle.touch(path, at, complete=complete)
        elif any(self._sieve.temporary(seen) for _, seen in self._in(path)):
            self._settle.stir(at, sync=self._sieve.syncing(path))

    def _gone(self, path: str, at: float, *, directory: bool) -> None:
        if path in self._plan.hinges:
            self.stale.add(path)
        if not directory:
            # Many programs delete, or move away, what they are about to write anew.
            self._written(path, at, complete=False)
            return
        for tree, seen in self._in(path):
            if not self._sieve.ignored(seen):
                # If it was moved away, its watches went along and report its old name.
                self.moved.add(tree.base)
                self._settle.touch(path, at, complete=False)

    def _came(self, path: str, at: float, *, directory: bool) -> None:
        if path in self._plan.hinges:
            self.stale.add(path)
        if not directory:
            self._written(path, at, complete=_has_content(path))
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


def _has_content(path: str) -> bool:
    """Whether ``path`` looks complete: a file that was just opened for writing is empty."""
    try:
        return os.lstat(path).st_size > 0
    except OSError:
        return False

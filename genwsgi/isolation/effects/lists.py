"""Lists of the process that code appends to when it is imported: ``sys.path``, import hooks, ..."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from genwsgi.isolation.effects.base import Book, Record, Run, current
from genwsgi.isolation.effects.claims import counted

_LISTS: dict[str, Callable[[], list[Any]]] = {
    "sys.path": lambda: sys.path,
    "sys.meta_path": lambda: sys.meta_path,
    "sys.path_hooks": lambda: sys.path_hooks,
    "gc.callbacks": lambda: gc.callbacks,
}
_WHAT = {
    "sys.path": "sys.path entry",
    "sys.meta_path": "import hook",
    "sys.path_hooks": "path hook",
    "gc.callbacks": "garbage collector callback",
}


class Lists(Record):
    """What one build added to them, by identity, and what it took out."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._before = look()
        self._removed: dict[str, list[Any]] = {}
        self.added: dict[str, list[Any]] = {name: [] for name in _LISTS}

    def not_mine(self, seen: dict[str, list[Any]]) -> None:
        """What has come since ``seen`` is the process's: a shared module added it."""
        for name, get in _LISTS.items():
            if name in self._before:
                self._before[name] += _more(get(), seen[name])

    def built(self) -> None:
        """What the lists have now and had not before is the build's."""
        for name, before in self._before.items():
            now = _LISTS[name]()
            self.added[name] = _more(now, before)
            if _more(before, now):
                self._removed[name] = before
        self._before = {}

    def undo(self) -> None:
        """Take what the build added out again, and put back what it took out."""
        for name, added in self.added.items():
            now = _LISTS[name]()
            for item in added:
                _remove(now, item)
            before = self._removed.get(name)
            if before is not None:
                _put_back(now, before)
            added.clear()

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Take it out, but leave a folder that would not be on the path any more.

        The current generation may have found it there and not added it again, so it goes on to
        that one; not if it lies in the code of this generation and not of that: it is part of a
        release that has ended.
        """
        newest = current()
        for name, added in self.added.items():
            now = _LISTS[name]()
            for item in added:
                if not isinstance(item, str) or now.count(item) != 1 or self._only_mine(item):
                    _remove(now, item)
                elif newest is not None:
                    newest[1].of(Lists).added[name].append(item)
            added.clear()

    def report(self) -> list[str]:
        """How many there are of each."""
        return counted({_WHAT[name]: len(added) for name, added in self.added.items()})

    def _only_mine(self, folder: str) -> bool:
        """Whether ``folder`` is covered by the generation's snapshot, and not the current one's."""
        book, newest = self.book(), current()
        generation = None if book is None else book.generation()
        if generation is None or newest is None:
            return False
        return _covers(generation, folder) and not _covers(newest[0], folder)


def _covers(generation: Any, folder: str) -> bool:
    snapshot = getattr(generation.modules, "snapshot", None)
    if snapshot is None:
        return False
    place = os.path.abspath(folder)
    return any(snapshot.covers(one) for one in (place, os.path.realpath(place)))


def look() -> dict[str, list[Any]]:
    """Return copies of the lists as they are now."""
    return {name: list(get()) for name, get in _LISTS.items()}


def _more(those: list[Any], than: list[Any]) -> list[Any]:
    """Return the items of ``those`` that ``than`` has not, or not as often."""
    known = Counter(map(id, than))
    found = []
    for item in those:
        if known[id(item)]:
            known[id(item)] -= 1
        else:
            found.append(item)
    return found


def _remove(items: list[Any], item: Any) -> None:
    # Not by remove(), which compares: a hook may be equal to anything.
    for index, other in enumerate(items):
        if other is item:
            del items[index]
            return


def _put_back(items: list[Any], before: list[Any]) -> None:
    """Insert what ``items`` lacks of ``before``, each after what it came after."""
    missing = {id(item) for item in _more(before, items)}
    after = 0
    for item in before:
        if id(item) in missing:
            items.insert(after, item)
            after += 1
        else:
            places = [index for index, other in enumerate(items) if other is item]
            after = places[0] + 1 if places else after


def install() -> None:
    """Nothing to wrap."""


def uninstall() -> None:
    """Nothing to put back."""

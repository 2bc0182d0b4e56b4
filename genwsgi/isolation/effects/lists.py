"""Lists of the process that code appends to when it is imported: ``sys.path``, import hooks, ...

A request may change them as well while something is built, and a comparison would not tell who did.
So each is replaced by a list that knows whose code changes it.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from genwsgi.isolation.effects.base import Book, Record, Run, building, current
from genwsgi.isolation.effects.claims import counted

_PLACES: dict[str, tuple[Any, str]] = {
    "sys.path": (sys, "path"),
    "sys.meta_path": (sys, "meta_path"),
    "sys.path_hooks": (sys, "path_hooks"),
    "gc.callbacks": (gc, "callbacks"),
}
_WHAT = {
    "sys.path": "sys.path entry",
    "sys.meta_path": "import hook",
    "sys.path_hooks": "path hook",
    "gc.callbacks": "garbage collector callback",
}


class Noting(list[Any]):
    """Takes the place of one of the lists, and notes what the code of a build does to it.

    :ivar plain: the list whose place it has, which is kept the same: the garbage collector reads
        its own, and others may have taken theirs out of its module.
    """

    def __init__(self, name: str, plain: list[Any]) -> None:
        super().__init__(plain)
        self.name = name
        self.plain = plain

    def __reduce__(self) -> Any:
        return list, (list(self),)


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def change(self: Noting, *args: Any, **kwargs: Any) -> Any:
        lists = building(Lists)
        before = None if lists is None else list(self)
        try:
            return method(self, *args, **kwargs)
        finally:
            self.plain[:] = self
            if lists is not None and before is not None:
                lists.changed(self.name, before, self)

    return change


for _method in (
    *("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
    *("__setitem__", "__delitem__", "__iadd__", "__imul__"),
):
    setattr(Noting, _method, _noting(getattr(list, _method)))


class Lists(Record):
    """What one build added to them, by identity, and what it took out."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._noting = {name: _note(name) for name in _PLACES}
        #: What it took out, and the identities of all that the list had before: it is not to hold
        #: what other generations have put there.
        self._removed: dict[str, tuple[list[Any], list[int]]] = {}
        self.added: dict[str, list[Any]] = {name: [] for name in _PLACES}

    def changed(self, name: str, before: list[Any], now: list[Any]) -> None:
        """Note that the build has changed the list ``name``."""
        removed = self._removed.setdefault(name, ([], list(map(id, before))))[0]
        for item in _more(now, before):
            if not _remove(removed, item):
                self.added[name].append(item)
        for item in _more(before, now):
            if not _remove(self.added[name], item):
                removed.append(item)

    def built(self) -> None:
        """A list that is another one now is the build's doing: who serves changes the one there."""
        for name, noting in self._noting.items():
            now = _get(name)
            if now is not noting:
                self.changed(name, noting.copy(), now)
                noting[:] = now
                setattr(*_PLACES[name], noting)
        self._noting = {}

    def undo(self) -> None:
        """Take what the build added out again, and put back what it took out."""
        for name, added in self.added.items():
            now = _get(name)
            for item in added:
                _remove(now, item)
            if name in self._removed:
                _put_back(now, *self._removed[name])
            added.clear()
        self._removed = {}

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Take it out, but leave a folder that would not be on the path any more.

        The current generation may have found it there and not added it again, so it goes on to
        that one; not if it lies in the code of this generation and not of that: it is part of a
        release that has ended.  The current one itself retires when the process ends.
        """
        newest = current()
        heir = newest[1] if newest is not None and newest[1] is not self.book() else None
        for name, added in self.added.items():
            now = _get(name)
            for item in added:
                if not isinstance(item, str) or now.count(item) != 1 or self._only_mine(item):
                    _remove(now, item)
                elif heir is not None:
                    heir.of(Lists).added[name].append(item)
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


def _get(name: str) -> list[Any]:
    found: list[Any] = getattr(*_PLACES[name])
    return found


def _note(name: str) -> Noting:
    """Have the list ``name`` note what is done to it, unless it does, and return it."""
    found = _get(name)
    if isinstance(found, Noting):
        return found
    noting = Noting(name, found)
    setattr(*_PLACES[name], noting)
    return noting


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


def _remove(items: list[Any], item: Any) -> bool:
    """Take ``item`` out; say whether it was there."""
    # Not by remove(), which compares: a hook may be equal to anything.
    for index, other in enumerate(items):
        if other is item:
            del items[index]
            return True
    return False


def _put_back(items: list[Any], removed: list[Any], before: list[int]) -> None:
    """Insert what was ``removed`` and is not there, each after what it came after ``before``."""
    missing = {id(item): item for item in _more(removed, items)}
    after = 0
    for one in before:
        if one in missing:
            items.insert(after, missing[one])
            after += 1
        else:
            places = [index for index, other in enumerate(items) if id(other) == one]
            after = places[0] + 1 if places else after


def install() -> None:
    """Put lists in their places that note what is done to them."""
    for name in _PLACES:
        _note(name)


def uninstall() -> None:
    """Put the lists that were there back, with what is in them by now."""
    for name, place in _PLACES.items():
        now = _get(name)
        if isinstance(now, Noting):
            setattr(*place, now.plain)

"""Places of the process that hold one object, which each generation may want to be another one.

Such a place is an entry of a registry (the adapter of :mod:`sqlite3` for a class) or an attribute
(``sys.excepthook``).  What a generation puts there is its *claim*; in the place itself stands a
:class:`Choice`, which calls the claim of the generation that asks, outside of any the current
one's, else what the process had there.  With its generation a claim is gone, and with the last of
them the choice.

Claims are made and dropped by single operations on dicts, so no lock is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, MutableMapping
from typing import Any, Protocol

from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import asking
from genwsgi.isolation.effects.base import Book, Record, current

MISSING: Any = object()


class Place(Protocol):
    """Where the process keeps the object."""

    def get(self) -> Any:
        """Return what is there, or :data:`MISSING`."""

    def set(self, value: Any) -> None:
        """Put ``value`` there; :data:`MISSING` empties the place."""


class Entry:
    """An entry of a dict.

    :param changed: called after each change, for who keeps a cache of the dict.
    """

    def __init__(
        self, table: MutableMapping[Any, Any], key: Any, changed: Callable[[], None] | None = None
    ) -> None:
        self._table = table
        self._key = key
        self._changed = changed

    def get(self) -> Any:
        """Return what is there, or :data:`MISSING`."""
        return self._table.get(self._key, MISSING)

    def set(self, value: Any) -> None:
        """Put ``value`` there; :data:`MISSING` removes the entry."""
        if value is MISSING:
            self._table.pop(self._key, None)
        else:
            self._table[self._key] = value
        if self._changed is not None:
            self._changed()


class Attribute:
    """An attribute of a module."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name

    def get(self) -> Any:
        """Return what is there."""
        return getattr(self.owner, self.name)

    def set(self, value: Any) -> None:
        """Put ``value`` there."""
        setattr(self.owner, self.name, value)


class Choice:
    """Stands in a place of the process for what each generation wants there.

    :param absent: what is used where neither the generation nor the process has anything.
    """

    def __init__(self, place: Place, base: Any, absent: Any = None) -> None:
        self.place = place
        self.base = base
        self.absent = absent
        self.claims: dict[Book, Any] = {}

    def __repr__(self) -> str:
        return f"<genwsgi's choice among {[book.name for book in list(self.claims)]}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what the asking generation means."""
        return self.chosen(asking())(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chosen(asking()), name)

    def chosen(self, generation: Generation | None) -> Any:
        """Return what ``generation`` means; ``None``: what the current one does."""
        book: Book | None = None if generation is None else generation.effects
        if book is None:
            newest = current()
            book = None if newest is None else newest[1]
        value = MISSING if book is None else self.claims.get(book, MISSING)
        if value is MISSING:
            value = self.absent if self.base is MISSING or self.base is None else self.base
        return value

    def drop(self, book: Book) -> None:
        """Forget a generation's claim; with the last one the place is as it was."""
        self.claims.pop(book, None)
        if not self.claims and self.place.get() is self:
            self.place.set(self.base)


#: What several generations may want to be there at once: who does, and how it is taken away.
_shared: dict[Hashable, tuple[dict[Book, None], Callable[[], object]]] = {}


class Claims(Record):
    """The claims of one generation, and its part in what is there once for several of them."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._made: dict[Choice, str] = {}
        self._parts: dict[Hashable, str] = {}

    def claim(
        self,
        place: Place,
        value: Any,
        what: str,
        absent: Any = None,
        kind: type[Choice] = Choice,
    ) -> None:
        """Put ``value`` into ``place`` for this generation.

        :param what: what such a thing is called, in the singular.
        """
        book = self.book()
        if book is None or book.closed:
            return
        choice = place.get()
        if not isinstance(choice, kind):
            choice = kind(place, choice, absent)
        choice.claims[book] = value
        self._made[choice] = what
        # Also when it is there already: who caches the place has to look again.
        place.set(choice)

    def drop(self, place: Place) -> bool:
        """Take the generation's claim on ``place`` back; say whether there was one."""
        choice = place.get()
        book = self.book()
        if not isinstance(choice, Choice) or book is None or book not in choice.claims:
            return False
        self._made.pop(choice, None)
        choice.drop(book)
        return True

    def share(
        self, key: Hashable, what: str, add: Callable[[], bool], remove: Callable[[], object]
    ) -> None:
        """See to it that something is there for as long as this or another generation wants it.

        :param key: what it is.
        :param what: what such a thing is called, in the singular.
        :param add: puts it there; says false if the process had it already.
        :param remove: takes it away; the first one's is called, with the last that wanted it.
        """
        book = self.book()
        if book is None or book.closed:
            return
        if key not in _shared:
            if not add():
                return
            _shared[key] = {}, remove
        _shared[key][0][book] = None
        self._parts[key] = what

    def unshare(self, key: Hashable) -> bool:
        """Want it no longer; say whether this generation did."""
        book = self.book()
        if self._parts.pop(key, None) is None or book is None or key not in _shared:
            return False
        holders, remove = _shared[key]
        holders.pop(book, None)
        if not holders:
            del _shared[key]
            remove()
        return True

    def undo(self) -> None:
        """Drop all claims, the last first."""
        book = self.book()
        while self._made and book is not None:
            self._made.popitem()[0].drop(book)
        for key in reversed(self._parts.copy()):
            self.unshare(key)

    def report(self) -> list[str]:
        """How many of each kind there are."""
        return counted(Counter([*self._made.copy().values(), *self._parts.copy().values()]))


def counted(counts: dict[str, int]) -> list[str]:
    """Return phrases like "2 log handlers", from what is counted in the singular."""
    return [f"{n} {what if n == 1 else _plural(what)}" for what, n in counts.items() if n]


def _plural(what: str) -> str:
    return f"{what[:-1]}ies" if what.endswith("ry") else f"{what}s"

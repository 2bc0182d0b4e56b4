"""``gettext``: the catalogues that a generation has read, and its domains, are its own.

The module keeps each catalogue for good under the path of its file: code that is deployed in place
would see the translations of the code before, and code that comes in a new folder each time would
leave them behind.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from genwsgi.isolation.asking import asking
from genwsgi.isolation.effects.base import Book, Patches, Record, current

_patches = Patches()

#: Those that translate in the domain that was set last, and those that are given the domain.
_IN_DOMAIN = {
    "gettext": "dgettext",
    "ngettext": "dngettext",
    "pgettext": "dpgettext",
    "npgettext": "dnpgettext",
}


class Catalogues(Record):
    """What one generation has of ``gettext``.

    :ivar tables: what it has put into the module's tables, by their names.
    :ivar domain: the one that it has set, or ``None``: that of the process.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.tables: dict[str, dict[Any, Any]] = {}
        self.domain: str | None = None

    def undo(self) -> None:
        """Forget them."""
        self.tables.clear()
        self.domain = None


def _meant() -> Catalogues | None:
    """Return the record of the generation that asks, ``None``: the process's is meant."""
    generation = asking()
    book: Book | None = None if generation is None else generation.effects
    if book is None:
        newest = current()
        book = None if newest is None else newest[1]
    return None if book is None else book.of(Catalogues)


class _Table(MutableMapping[Any, Any]):
    """One of the module's tables: that of the process, with the asking generation's before it.

    :param shared: whether a generation finds what the process has.  Not so with catalogues: their
        files may have changed since they were read.
    """

    def __init__(self, name: str, known: dict[Any, Any], *, shared: bool) -> None:
        self._name = name
        self._known = known
        self._shared = shared

    def _meant(self) -> MutableMapping[Any, Any]:
        meant = _meant()
        if meant is None:
            return self._known
        own = meant.tables.setdefault(self._name, {})
        return ChainMap(own, self._known) if self._shared else own

    def __getitem__(self, key: Any) -> Any:
        return self._meant()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._meant()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._meant()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._meant())

    def __len__(self) -> int:
        return len(self._meant())


def _wrap(module: Any) -> None:
    textdomain = module.textdomain

    def textdomain_for_generation(domain: str | None = None) -> Any:
        meant = _meant()
        if meant is None or (domain is None and meant.domain is None):
            return textdomain(domain)
        if domain is not None:
            meant.domain = domain
        return meant.domain

    def in_domain(name: str) -> Callable[..., Any]:
        translate = getattr(module, name)

        def for_generation(*messages: Any) -> Any:
            return translate(textdomain_for_generation(), *messages)

        return for_generation

    stand_ins = {name: in_domain(given) for name, given in _IN_DOMAIN.items()}
    _patches.put(module, "textdomain", textdomain_for_generation)
    for name, stand_in in stand_ins.items():
        _patches.put(module, name, stand_in)
    for name, shared in (("_translations", False), ("_localedirs", True)):
        _patches.put(module, name, _Table(name, getattr(module, name), shared=shared))


def install() -> None:
    """Wrap the module, once it is there."""
    _patches.when_loaded("gettext", _wrap)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

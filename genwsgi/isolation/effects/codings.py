"""``codecs``: search functions and error handlers are the generation's own.

The interpreter asks search functions in the order they were registered and keeps what they find for
good; and an error handler can't be taken away.  So the process has one search function, and one
handler for each name, that ask the generation in whose name something is encoded.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import asking
from genwsgi.isolation.effects.base import Book, Patches, Record, acting, current, living
from genwsgi.isolation.effects.claims import Choice, Claims, counted

Search = Callable[[str], "codecs.CodecInfo | None"]

_register = codecs.register
_unregister = codecs.unregister
_register_error = codecs.register_error
_patches = Patches()
#: The handlers that stand for what generations registered, by their names.
_handlers: dict[str, Choice] = {}


class Codecs(Record):
    """The search functions of one generation.

    :ivar found: what they have found, by name.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.searches: list[Search] = []
        self.found: dict[str, codecs.CodecInfo] = {}

    def lookup(self, name: str) -> codecs.CodecInfo | None:
        """Return the generation's codec of that name."""
        found = self.found.get(name)
        for search in () if found is not None else list(self.searches):
            found = search(name)
            if found is not None:
                self.found[name] = found
                break
        return found

    def undo(self) -> None:
        """Forget them, and what the interpreter remembers of them."""
        if self.searches:
            self.searches.clear()
            self.found.clear()
            _unregister(_search)
            if any(book.of(Codecs).searches for _, book in living()):
                _register(_search)

    def report(self) -> list[str]:
        """How many there are."""
        return counted({"codec search function": len(self.searches)})


def _search(name: str) -> codecs.CodecInfo | None:
    """The search function of the process."""
    for book in _asked(asking()):
        found = book.of(Codecs).lookup(name)
        if found is not None:
            return _dispatching(name, found)
    return None


def _asked(generation: Generation | None) -> list[Book]:
    book = None if generation is None else generation.effects
    newest = current() if book is None else None
    return [book] if book is not None else [newest[1]] if newest is not None else []


def _dispatching(name: str, model: codecs.CodecInfo) -> codecs.CodecInfo:
    """Return a codec that is the asking generation's at each use: the interpreter keeps it."""

    def part(attribute: str) -> Any:
        def use(*args: Any, **kwargs: Any) -> Any:
            for book in _asked(asking()):
                found = book.of(Codecs).lookup(name)
                if found is not None:
                    return getattr(found, attribute)(*args, **kwargs)
            raise LookupError(f"unknown encoding: {name}")

        return use if getattr(model, attribute) is not None else None

    return codecs.CodecInfo(
        encode=part("encode"),
        decode=part("decode"),
        streamreader=part("streamreader"),
        streamwriter=part("streamwriter"),
        incrementalencoder=part("incrementalencoder"),
        incrementaldecoder=part("incrementaldecoder"),
        name=model.name,
        _is_text_encoding=model._is_text_encoding,
    )


def _register_for_generation(search_function: Any, /) -> None:
    record = acting(Codecs)
    if record is None or not callable(search_function):
        _register(search_function)
        return
    book = record.book()
    if book is None or book.closed:
        return
    record.searches.append(search_function)
    # Once, and anew: a search that found nothing before is made again.
    _unregister(_search)
    _register(_search)


def _unregister_for_generation(search_function: Any, /) -> None:
    record = acting(Codecs)
    if record is None or search_function not in record.searches:
        _unregister(search_function)
        return
    record.searches.remove(search_function)
    record.found.clear()
    _unregister(_search)
    _register(_search)


class _Handler:
    """The place of an error handler, which can be replaced but not emptied."""

    def __init__(self, name: str) -> None:
        self._name = name

    def get(self) -> Any:
        """Return the choice that stands there, or the process's own."""
        choice = _handlers.get(self._name)
        if choice is not None:
            return choice
        try:
            return codecs.lookup_error(self._name)
        except LookupError:
            return self._unknown

    def set(self, value: Any) -> None:
        """Put ``value`` there."""
        if isinstance(value, Choice):
            _handlers[self._name] = value
        else:
            _handlers.pop(self._name, None)
        _register_error(self._name, value)

    def _unknown(self, _error: UnicodeError) -> Any:
        raise LookupError(f"unknown error handler name '{self._name}'")


def _register_error_for_generation(errors: str, handler: Any, /) -> None:
    claims = acting(Claims)
    if claims is None or not callable(handler) or not isinstance(errors, str):
        _register_error(errors, handler)
    else:
        claims.claim(_Handler(errors), handler, "codec error handler")


def install() -> None:
    """Wrap what registers."""
    _patches.put(codecs, "register", _register_for_generation)
    _patches.put(codecs, "unregister", _unregister_for_generation)
    _patches.put(codecs, "register_error", _register_error_for_generation)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()
    _unregister(_search)

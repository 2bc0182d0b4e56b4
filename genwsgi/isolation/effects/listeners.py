"""Listeners of SQLAlchemy, as ``listens_for(Engine, "connect")``.

SQLAlchemy is compiled, so all generations share it, and keeps a listener for a class of its own for
as long as the process lives: without this each deploy would add one, all of them would be called
for everybody's connections, and none of their generations would ever be let go.  Such a listener
hears what happens in the name of its own generation, outside of any only the current one's do, and
goes with it.  So do those that a build has added for the generation's own (a model, a factory of
sessions): SQLAlchemy keeps them by weak references to what they themselves lead to.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from genwsgi.isolation.asking import asking
from genwsgi.isolation.effects.base import Book, Patches, Record, acting, current
from genwsgi.isolation.effects.claims import counted

_patches = Patches()


class Listeners(Record):
    """The listeners of one generation, as the keys that SQLAlchemy made of them."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.keys: list[Any] = []

    def undo(self) -> None:
        """Remove them, the last first."""
        while self.keys:
            key = self.keys.pop()
            if key.contains():
                key.remove()

    def report(self) -> list[str]:
        """How many there are."""
        return counted({"SQLAlchemy listener": len(self.keys)})


def _is_shared(target: Any, book: Book) -> bool:
    """Whether ``target`` is a class that is there for all generations."""
    generation = book.generation()
    table = None if generation is None else generation.modules
    return isinstance(target, type) and not (table is not None and table.owns(target.__module__))


def _only_for(book: Book, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, which hears nothing of other generations."""
    mine = weakref.ref(book)

    @functools.wraps(function)
    def hear(*args: Any, **kwargs: Any) -> Any:
        generation = asking()
        meant = None if generation is None else generation.effects
        if generation is None:
            newest = current()
            meant = None if newest is None else newest[1]
        # During the first build there is no current one.
        return function(*args, **kwargs) if meant is None or meant is mine() else None

    # Its signature has been looked at already, and this takes anything.
    del hear.__wrapped__
    return hear


def _wrap_registry(module: Any) -> None:
    key_class = module._EventKey
    listen = key_class.listen

    def listen_for_generation(self: Any, *args: Any, **kw: Any) -> None:
        listeners = acting(Listeners)
        book = None if listeners is None else listeners.book()
        shared = book is not None and _is_shared(self.target, book)
        if listeners is None or book is None or not (shared or book.building):
            listen(self, *args, **kw)
            return
        key = self
        # What a listener with ``retval`` returns is used, so it has to be called.
        if shared and not kw.get("retval") and self._listen_fn is self.fn:
            named = kw.pop("named", False)
            events = getattr(self.dispatch_target.dispatch, self.identifier)
            key = self.with_wrapper(_only_for(book, events._adjust_fn_spec(self.fn, named)))
        listen(key, *args, **kw)
        listeners.keys.append(self)

    _patches.put(key_class, "listen", listen_for_generation)


def install() -> None:
    """Wrap what adds a listener, once SQLAlchemy is there."""
    _patches.when_loaded("sqlalchemy.event.registry", _wrap_registry)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

"""What a generation wants to happen around a fork, where nothing can be taken back.

For ``os.register_at_fork`` the process registers once, and asks the generations that are there when
it forks.  ``multiprocessing.util.register_after_fork`` keeps a callback for as long as the object
that it is called with lives; as the callback's module mostly holds that object, it would be for
ever.  There a stand-in is registered, which finds the callback while its generation is there.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from genwsgi.isolation.effects.base import Book, Patches, Record, acting, living
from genwsgi.isolation.effects.claims import counted

log = logging.getLogger("genwsgi")

_register = os.register_at_fork
_patches = Patches()
_WHEN = ("before", "after_in_parent", "after_in_child")
_registered = False


class Forks(Record):
    """What one generation wants to be called around a fork."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.callbacks: dict[str, list[Callable[[], object]]] = {when: [] for when in _WHEN}
        self.of_objects: dict[AfterFork, Callable[[Any], object]] = {}

    def undo(self) -> None:
        """Forget it."""
        for callbacks in self.callbacks.values():
            callbacks.clear()
        self.of_objects.clear()

    def report(self) -> list[str]:
        """How much there is."""
        own = sum(len(one) for one in self.callbacks.values())
        return counted({"fork callback": own + len(self.of_objects)})


class AfterFork:
    """Stands in for a callback of ``forks`` in multiprocessing's own table."""

    def __init__(self, forks: Forks) -> None:
        self._forks = weakref.ref(forks)

    def __call__(self, obj: Any) -> None:
        """Call it in its generation, in the forked process; what it raises is multiprocessing's."""
        forks = self._forks()
        book = None if forks is None else forks.book()
        generation = None if book is None else book.generation()
        if forks is not None and generation is not None and self in forks.of_objects:
            generation.run(forks.of_objects[self], obj)


def _call(when: str) -> None:
    those = living()
    if when != "before":
        those.reverse()
    for generation, book in those:
        callbacks = list(book.of(Forks).callbacks[when])
        if when == "before":
            callbacks.reverse()
        for callback in callbacks:
            try:
                generation.run(callback)
            except Exception:  # as the interpreter does, the fork goes on
                log.exception("%s: its fork callback %r raised", generation.name, callback)


def _register_for_generation(**callbacks: Any) -> None:
    global _registered
    forks = acting(Forks)
    if (
        forks is None
        or not callbacks
        or not all(when in _WHEN and callable(callback) for when, callback in callbacks.items())
    ):
        _register(**callbacks)  # it says what is wrong
        return
    book = forks.book()
    if book is None or book.closed:
        return
    if not _registered:
        _registered = True
        _register(
            before=lambda: _call("before"),
            after_in_parent=lambda: _call("after_in_parent"),
            after_in_child=lambda: _call("after_in_child"),
        )
    for when, callback in callbacks.items():
        forks.callbacks[when].append(callback)


def _wrap_multiprocessing(util: ModuleType) -> None:
    register = util.register_after_fork

    def register_after_fork(obj: Any, func: Callable[[Any], object]) -> None:
        forks = acting(Forks)
        if forks is None:
            register(obj, func)
            return
        stand_in = AfterFork(forks)
        forks.of_objects[stand_in] = func
        register(obj, stand_in)

    _patches.put(util, "register_after_fork", register_after_fork)


def install() -> None:
    """Wrap both."""
    _patches.put(os, "register_at_fork", _register_for_generation)
    _patches.when_loaded("multiprocessing.util", _wrap_multiprocessing)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

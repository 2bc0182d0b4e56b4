"""``os.register_at_fork``: nothing can be taken back, but what a generation wants goes with it.

The process registers once, and asks the generations that are there when it forks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
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

    def undo(self) -> None:
        """Forget it."""
        for callbacks in self.callbacks.values():
            callbacks.clear()

    def report(self) -> list[str]:
        """How much there is."""
        return counted({"fork callback": sum(len(one) for one in self.callbacks.values())})


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


def install() -> None:
    """Wrap ``os.register_at_fork``."""
    _patches.put(os, "register_at_fork", _register_for_generation)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

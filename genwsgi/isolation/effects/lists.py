"""Lists of the process that code appends to when it is imported: ``sys.path``, import hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from genwsgi.isolation.effects.base import Book, Record, Run

_LISTS: dict[str, Callable[[], list[Any]]] = {
    "sys.path": lambda: sys.path,
    "sys.meta_path": lambda: sys.meta_path,
    "sys.path_hooks": lambda: sys.path_hooks,
}


class Lists(Record):
    """What one build added to them."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._before = {name: list(get()) for name, get in _LISTS.items()}
        self._added: dict[str, list[Any]] = {}

    def built(self) -> None:
        """What the lists have now and had not before is the build's."""
        for name, before in self._before.items():
            known = {id(item) for item in before}
            self._added[name] = [item for item in _LISTS[name]() if id(item) not in known]
        self._before.clear()

    def undo(self) -> None:
        """Take what the build added out again."""
        self._restore(keep_last=False)

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Take it out, but leave a folder that would not be on the path any more.

        Another generation may have found it there and not added it again.
        """
        self._restore(keep_last=True)

    def _restore(self, *, keep_last: bool) -> None:
        for name, added in self._added.items():
            now = _LISTS[name]()
            for item in added:
                for index, other in enumerate(now):
                    if other is item:
                        if not (keep_last and isinstance(item, str) and now.count(item) == 1):
                            del now[index]
                        break
        self._added.clear()


def install() -> None:
    """Nothing to wrap."""


def uninstall() -> None:
    """Nothing to put back."""

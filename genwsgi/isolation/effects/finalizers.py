"""``weakref.finalize``: its table holds the callback until the object that it waits for is gone.

Where the callback is a generation's own, that is never: it holds the generation, and the generation
the object.  Django's signals (before 6.0) make such a finalizer for each receiver.  So what is left
of them when a generation ends is done as at the end of the process.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from functools import partial
from types import MethodType
from typing import Any

from genwsgi.isolation.effects.base import Record, Run
from genwsgi.isolation.holders import belongs

log = logging.getLogger("genwsgi")

#: Finalizer -> what it is to do: weakref, func, args, kwargs, atexit, index.
_registry: dict[Any, Any] = vars(weakref.finalize)["_registry"]


class Finalizers(Record):
    """Those whose callback, or what it is called with, is of one generation."""

    def undo(self) -> None:
        """Forget them: they were made for a process that served."""
        for finalizer, _ in self._found():
            finalizer.detach()

    def retire(self, run: Run) -> None:
        """Do what is to be done at the end of the process, last made first; forget the others."""
        for finalizer, info in sorted(self._found(), key=lambda item: -item[1].index):
            if not info.atexit:
                finalizer.detach()
                continue
            try:
                run(finalizer)
            except Exception:  # as at the end of the process, the others have their turn
                log.exception("%s: its finalizer %r raised", self.name, info.func)

    def _found(self) -> list[tuple[Any, Any]]:
        book = self.book()
        generation = None if book is None else book.generation()
        builtins = getattr(generation and generation.modules, "builtins", None)
        if builtins is None:
            return []
        return [item for item in _registry.copy().items() if _leads_to(item[1], builtins)]


def _leads_to(info: Any, builtins: Mapping[str, Any]) -> bool:
    """Whether a finalizer's callback or one of its arguments is the generation's own."""
    parts = [info.func, *info.args, *(info.kwargs or {}).values()]
    while parts:
        part = parts.pop()
        if type(part) is partial:
            parts += [part.func, *part.args, *part.keywords.values()]
        elif type(part) is MethodType:
            parts += [part.__func__, part.__self__]
        elif belongs(part, builtins) or belongs(type(part), builtins):
            return True
    return False


def install() -> None:
    """Nothing to wrap: the table is looked through when a generation ends."""


def uninstall() -> None:
    """Nothing to put back."""

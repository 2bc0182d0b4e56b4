"""Hooks: functions that the process calls, which code replaces by an assignment.

``sys.excepthook`` and its like, and the factory of log records.  A build's own are found by
comparing; then a dispatcher stands in their place.  It calls the hook of the generation whose code
raised, outside of any the current one's, else the process's.  Code that calls the hook it found
there gets the process's in this way, and never an older generation's.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import asking, generation_of
from genwsgi.isolation.effects.base import Book, Record
from genwsgi.isolation.effects.claims import MISSING, Attribute, Choice, Claims


class Hook(Choice):
    """Stands for a hook.  Called by the hook that it has called, it goes on to the process's."""

    def __init__(self, place: Attribute, base: Any, absent: Any = None) -> None:
        super().__init__(place, base, absent)
        self._inside = threading.local()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the hook of the generation that this is about."""
        depth: int = getattr(self._inside, "depth", 0)
        chain = [self.chosen(self.whose(args)), *([] if self.base is None else [self.base])]
        if depth >= len(chain):
            return None
        self._inside.depth = depth + 1
        try:
            return chain[depth](*args, **kwargs)
        finally:
            self._inside.depth = depth

    def whose(self, args: tuple[Any, ...]) -> Generation | None:  # noqa: ARG002
        """Return the generation that a call with these arguments is about."""
        return asking()


class _ExceptHook(Hook):
    def whose(self, args: tuple[Any, ...]) -> Generation | None:
        return _raised_by(args[2])


class _StructHook(Hook):
    def whose(self, args: tuple[Any, ...]) -> Generation | None:
        return _raised_by(args[0].exc_traceback)


def _raised_by(traceback: TracebackType | None) -> Generation | None:
    """Return the generation whose code is the innermost of a traceback."""
    found: Generation | None = None
    while traceback is not None:
        found = generation_of(traceback.tb_frame) or found
        traceback = traceback.tb_next
    return asking() if found is None else found


def _trace_nothing(*_: Any) -> None:
    """Trace a thread for which nobody wants that."""


_PLACES: dict[str, tuple[Attribute, type[Choice], Any]] = {
    "sys.excepthook": (Attribute(sys, "excepthook"), _ExceptHook, None),
    "sys.unraisablehook": (Attribute(sys, "unraisablehook"), _StructHook, None),
    "sys.displayhook": (Attribute(sys, "displayhook"), Hook, None),
    "sys.breakpointhook": (Attribute(sys, "breakpointhook"), Hook, None),
    "threading.excepthook": (Attribute(threading, "excepthook"), _StructHook, None),
    "threading.settrace": (Attribute(threading, "_trace_hook"), Choice, _trace_nothing),
    "threading.setprofile": (Attribute(threading, "_profile_hook"), Choice, _trace_nothing),
    "log record factory": (Attribute(logging, "_logRecordFactory"), Hook, None),
}


class Hooks(Record):
    """The hooks that one build has set, found by comparing."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._before = look()

    def not_mine(self, seen: dict[str, Any]) -> None:
        """What has changed since ``seen`` is the process's: a shared module did it."""
        for name, (place, _, _) in _PLACES.items():
            now = place.get()
            if now is not seen[name] and name in self._before:
                self._before[name] = now

    def built(self) -> None:
        """Claim what the build has set."""
        book = self.book()
        for name, before in self._before.items():
            place, kind, absent = _PLACES[name]
            now = place.get()
            if isinstance(before, Choice) and not before.claims:
                before = before.base  # the generations that had claims have ended meanwhile
            if now is before or book is None:
                continue
            # It may have been replaced in a place where a choice stands: that comes first.
            place.set(before)
            if callable(now):
                book.of(Claims).claim(place, now, name, absent, kind)
        self._before = {}


def look() -> dict[str, Any]:
    """Return what is in the places now."""
    return {name: place.get() for name, (place, _, _) in _PLACES.items()}


def install() -> None:
    """Nothing to wrap: a dispatcher comes with the first claim."""


def uninstall() -> None:
    """Take dispatchers away that are left, because a generation could not be torn down."""
    for place, _, _ in _PLACES.values():
        choice = place.get()
        if isinstance(choice, Choice):
            place.set(None if choice.base is MISSING else choice.base)

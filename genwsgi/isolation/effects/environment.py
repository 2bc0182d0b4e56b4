"""``os.environ``: what a build changes is told by name, never by value: there are secrets in it.

Only what code of the build writes is the build's: the code that serves may renew a token meanwhile.
"""

from __future__ import annotations

import os
import time
from typing import Any

from genwsgi.isolation.effects.base import Book, Patches, Record, Run, building

_patches = Patches()
_Environ: Any = type(os.environ)


class Environment(Record):
    """The variables that one build has set, changed or removed: what was there, and what it put."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._changed: dict[str, tuple[str | None, str | None]] = {}

    def changing(self, name: str, mine: str | None) -> None:
        """Write down, before it is done, that the build sets or (``None``) removes a variable."""
        now = os.environ.get(name)
        before, last = self._changed.pop(name, (now, now))
        if last != now:  # somebody else has set it since
            before = now
        if before != mine:
            self._changed[name] = before, mine

    def undo(self) -> None:
        """Set it back, where nobody has set it anew."""
        for name, (before, mine) in self._changed.items():
            if os.environ.get(name) != mine:
                continue
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
        if "TZ" in self._changed:
            time.tzset()
        self._changed = {}

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Leave it: a successor may rely on what it found."""
        self._changed = {}

    def report(self) -> list[str]:
        """Which they are."""
        changed = self._changed.copy()
        return [f"environment {', '.join(sorted(changed))}"] if changed else []


def _note(name: object, value: object) -> None:
    """Note what is about to be written, to ``os.environ`` or, in bytes, to ``os.environb``."""
    environment = building(Environment)
    kinds = (str, bytes)
    if environment is not None and isinstance(name, kinds):
        mine = os.fsdecode(value) if isinstance(value, kinds) else None
        environment.changing(os.fsdecode(name), mine)


def install() -> None:
    """Wrap what all methods of ``os.environ`` write through."""
    set_, delete = _Environ.__setitem__, _Environ.__delitem__

    def __setitem__(self: Any, key: Any, value: Any) -> None:  # noqa: N807
        _note(key, value)
        set_(self, key, value)

    def __delitem__(self: Any, key: Any) -> None:  # noqa: N807
        _note(key, None)
        delete(self, key)

    _patches.put(_Environ, "__setitem__", __setitem__)
    _patches.put(_Environ, "__delitem__", __delitem__)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

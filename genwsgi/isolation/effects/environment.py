"""``os.environ``: what a build changes is told by name, never by value: there are secrets in it."""

from __future__ import annotations

import os
import time

from genwsgi.isolation.effects.base import Book, Record, Run


class Environment(Record):
    """The variables that one build has set, changed or removed."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._before: dict[str, str] | None = dict(os.environ)
        self._changed: dict[str, tuple[str | None, str | None]] = {}

    def built(self) -> None:
        """See what has changed."""
        before, now = self._before, dict(os.environ)
        self._before = None
        if before is None or before == now:
            return
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                self._changed[name] = before.get(name), now.get(name)

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
        return [f"environment {', '.join(self._changed)}"] if self._changed else []


def install() -> None:
    """Nothing to wrap."""


def uninstall() -> None:
    """Nothing to put back."""

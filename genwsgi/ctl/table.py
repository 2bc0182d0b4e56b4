"""A table whose rows change: drawn anew on a terminal; in a pipe, a line for each news of a row."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from genwsgi.ctl.render import Line, Screen, Table


class LiveTable:
    """Rows by what they are about; to be used within :meth:`Screen.drawing`."""

    def __init__(self, screen: Screen, head: tuple[str, ...]) -> None:
        self._screen = screen
        self._head = head
        self._rows: dict[Hashable, tuple[str, ...]] = {}

    def show(self, rows: Mapping[Any, tuple[str, ...]]) -> None:
        """Show how these rows stand now; others stay as they were."""
        news = [row for name, row in rows.items() if self._rows.get(name) != row]
        if not news:
            return
        self._rows |= rows
        if self._screen.terminal:
            self._screen.draw(Table(self._head, tuple(self._rows.values())))
        else:
            self._screen.show(*(Line("  ".join(filter(None, row))) for row in news))

"""Shows how the hosts of a fleet stand: a table that is drawn anew, or lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from genwsgi.ctl.conductor import Host

_HEAD = ("HOST", "SERVER", "STATE", "RELEASE", "GENERATION", "TOOK", "")

#: Back to the beginning of a line some lines up, and everything after it cleared (ECMA-48).
_UP = "\x1b[{}F\x1b[J"


class Table:
    """Shows hosts on ``stream``: on a terminal live, else one line for each news of a host."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._lines = 0
        self._shown: dict[tuple[str, str], tuple[str, ...]] = {}

    def say(self, text: str) -> None:
        """Write one line that stays."""
        self._clear()
        self._stream.write(f"{text}\n")
        self._draw()

    def show(self, hosts: Iterable[Host]) -> None:
        """Show how ``hosts`` stand now."""
        rows = {(host.host, host.server): _row(host) for host in hosts}
        news = {name: row for name, row in rows.items() if self._shown.get(name) != row}
        if not news:
            return
        self._shown = rows
        if self._live:
            self._clear()
            self._draw()
        else:
            for row in news.values():
                self._stream.write("  ".join(part for part in row if part) + "\n")
            self._stream.flush()

    def _clear(self) -> None:
        if self._live and self._lines:
            self._stream.write(_UP.format(self._lines))
        self._lines = 0

    def _draw(self) -> None:
        if not self._live or not self._shown:
            return
        rows = [_HEAD, *self._shown.values()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self._stream.write("  ".join([*cells, row[-1]]).rstrip() + "\n")
        self._lines = len(rows)
        self._stream.flush()


def _row(host: Host) -> tuple[str, ...]:
    row = (
        host.host,
        host.server,
        host.state,
        "" if host.release is None else f"release {host.release}",
        "" if host.generation is None else f"generation {host.generation}",
        f"{host.took:.3f} s" if host.took else "",
        host.error,
    )
    # All of it comes from elsewhere, and must neither break the table nor steer the terminal.
    return tuple("".join(char if char.isprintable() else " " for char in part) for part in row)

"""How genwsgictl shows things: colours on a terminal, plain text in a pipe, JSON for programs.

What is shown is described as blocks, which know nothing of where they go: subcommands make them of
what a server says, and :class:`Screen` is the one place that writes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.syntax import Syntax
from rich.table import Table as RichTable
from rich.text import Text

from genwsgi.deploy.framing import clean

#: The style of a cell or a line that begins with one of these words.
_STYLES: Final = {
    "committed": "green",
    "ready": "green",
    "current": "green",
    "connected": "green",
    "running": "green",
    "done": "green",
    "failed": "bold red",
    "refused": "bold red",
    "problem": "bold red",
    "superseded": "yellow",
    "draining": "yellow",
    "retired": "yellow",
    "discarded": "yellow",
    "paused": "yellow",
    "parked": "cyan",
    "unchanged": "dim",
}


@dataclass(frozen=True)
class Line:
    """A line of text; its first word decides how it looks."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a head, in columns; an empty column is left out.

    :ivar title: a line above it.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Code:
    """Text in which every character counts.

    :ivar language: "pytb" for a traceback, "diff" for a difference.
    """

    text: str
    language: str


Block = Line | Table | Code


class Screen:
    """Where blocks are shown.  One thread at a time.

    :param stream: the command's standard output.
    :param as_json: only objects are shown, one in a line.
    :param to_the_end: go on unseen when whoever reads has seen enough, as head(1) may: there is an
        outcome to wait for.  Else that is a BrokenPipeError.
    :ivar terminal: whether a person looks at it, so that what was shown can be drawn anew.
    """

    def __init__(self, stream: TextIO, *, as_json: bool = False, to_the_end: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json
        self._to_the_end = to_the_end
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        console = self._console
        # A dumb terminal can't go back over what it has shown, and is a pipe to us.
        self.terminal = console.is_terminal and not console.is_dumb_terminal and not as_json
        self._drawing: contextlib.ExitStack | None = None
        self._live: Live | None = None

    def show(self, *blocks: Block) -> None:
        """Show blocks, which stay; nothing if objects are asked for."""
        if self._as_json:
            return
        if self.terminal:
            for block in blocks:
                # The terminal breaks long lines: what is copied from it is as it was.
                soft = not isinstance(block, Table)
                self._console.print(_renderable(block), soft_wrap=soft)
        else:
            self._write(plain(blocks))

    def tell(self, value: Any) -> None:
        """Give programs an object, if they have asked: one line of JSON."""
        if self._as_json:
            self._write(json.dumps(value) + "\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            if not self._to_the_end:
                raise
            # What the stream has kept, and all that comes, goes nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """In the block :meth:`draw` draws over what it has drawn before; the last of it stays."""
        with contextlib.ExitStack() as self._drawing:
            yield
        self._drawing = self._live = None

    def draw(self, *blocks: Block) -> None:
        """Show blocks in the place of those that were drawn before, where that is possible."""
        if self._drawing is None or not self.terminal:
            self.show(*blocks)
        elif self._live is None:
            live = Live(_rich(blocks), console=self._console, auto_refresh=False)
            self._live = self._drawing.enter_context(live)
        else:
            self._live.update(_rich(blocks), refresh=True)


def plain(blocks: Iterable[Block]) -> str:
    """Return blocks as text without any control characters but line feeds."""
    return "".join(line + "\n" for block in blocks for line in _lines(block))


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Line):
        yield clean(block.text)
    elif isinstance(block, Code):
        yield from (clean(line.expandtabs(4)) for line in block.text.rstrip("\n").split("\n"))
    else:
        if block.title:
            yield clean(block.title)
        head, rows = _columns(block)
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(cells).rstrip()


def _rich(blocks: Iterable[Block]) -> RenderableType:
    return Group(*(_renderable(block) for block in blocks))


def _renderable(block: Block) -> RenderableType:
    if isinstance(block, Line):
        return Text(clean(block.text), _style(block.text))
    if isinstance(block, Code):
        text = Syntax("", block.language, theme="ansi_dark").highlight("\n".join(_lines(block)))
        text.rstrip()
        return text
    head, rows = _columns(block)
    table = RichTable(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        title=clean(block.title) or None,
        title_justify="left",
        title_style="bold",
        header_style="dim",
    )
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, _style(cell)) for cell in row))
    return table


def _columns(table: Table) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the rows of ``table``, without columns in which nothing is."""
    rows = [tuple(map(clean, row)) for row in table.rows]
    kept = [n for n in range(len(table.head)) if not rows or any(row[n] for row in rows)]
    return (
        tuple(clean(table.head[n]) for n in kept),
        [tuple(row[n] for n in kept) for row in rows],
    )


def _style(text: str) -> str:
    return _STYLES.get(text.partition(" ")[0].rstrip(":"), "")

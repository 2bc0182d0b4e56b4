"""What a generation asks of itself before it serves."""

from __future__ import annotations

from collections.abc import Callable

from genwsgi.isolation.effects.base import Book, Record


class Checks(Record):
    """The application's own checks.

    :ivar own: called, one after the other, when all else of the build is done.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.own: list[Callable[[], object]] = []

    def undo(self) -> None:
        """Forget them."""
        self.own.clear()


def install() -> None:
    """Nothing: only genwsgi's own functions write into this record."""


def uninstall() -> None:
    """Undo :func:`install`."""

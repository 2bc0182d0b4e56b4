"""The hand-over: what a generation puts forward for the next one, and what it takes itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from genwsgi.isolation.effects.base import Book, Record


class Offers(Record):
    """What one generation has to do with its neighbours.

    :ivar given: callables by name, whose results the next generation is offered.
    :ivar takers: called with what the generation before this one offers.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.given: dict[str, Callable[[], object]] = {}
        self.takers: list[Callable[[Mapping[str, object]], object]] = []

    def undo(self) -> None:
        """Forget them."""
        self.given.clear()
        self.takers.clear()


def install() -> None:
    """Nothing: only genwsgi's own functions write into this record."""


def uninstall() -> None:
    """Undo :func:`install`."""

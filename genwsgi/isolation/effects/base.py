"""What the families of effects share: who acts, what is written down, how things are wrapped."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any, TypeVar

from genwsgi.generations.generation import Generation, active
from genwsgi.generations.lifecycle import State
from genwsgi.isolation import late
from genwsgi.isolation.asking import adopted, author

log = logging.getLogger("genwsgi")

#: Whether a shared module is being imported here; what it does is not the generation's.
importing_shared: ContextVar[bool] = ContextVar("genwsgi.importing_shared", default=False)

#: Runs a callable in a generation's context.
Run = Callable[..., object]


class Record:
    """What one generation did of one kind.  Each method may raise: the others go on."""

    def __init__(self, book: Book) -> None:
        self.book = weakref.ref(book)
        self.name = book.name

    def built(self) -> None:
        """The build has ended, well or not: see what it did that goes through no function."""

    def undo(self) -> None:
        """Undo all of it: the build failed, or its generation was discarded."""

    def retire(self, run: Run) -> None:  # noqa: ARG002 -- some records call the application
        """Take away what goes with the generation, which owes no response any more.

        :param run: runs a callable in the generation's context.
        """
        self.undo()

    def report(self) -> list[str]:
        """What is in force now, a phrase each, such as "2 log handlers"."""
        return []


R = TypeVar("R", bound=Record)


class Book:
    """The records of one generation, one of each family.

    :ivar first: whether no other generation was there when this one began.
    :ivar building: whether its build is under way.
    :ivar closed: whether it has been undone or retired.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = weakref.ref(generation)
        self.first = not _known
        self.building = True
        self.closed = False
        self.name = generation.name
        self.records: dict[type[Record], Record] = {}

    def of(self, kind: type[R]) -> R:
        """Return the record of that kind."""
        return self.records[kind]  # type: ignore[return-value]

    def retire(self, run: Run) -> None:
        """Retire every record, last first."""
        raise NotImplementedError


#: All generations that have a book and still exist, oldest first.
_known: list[weakref.ref[Generation]] = []


def open_book(generation: Generation, book: Book) -> None:
    """Begin to write down what ``generation`` does."""
    generation.effects = book
    _known.append(weakref.ref(generation, _known.remove))


def book_of(generation: Generation) -> Book | None:
    """Return the book of ``generation``, if it has one."""
    book: Book | None = generation.effects
    return book


def acting(kind: type[R]) -> R | None:
    """Return the record of the generation whose doing it is, see :func:`author`; else None."""
    if importing_shared.get():
        return None
    generation = author()
    book = None if generation is None else generation.effects
    return None if book is None else book.records[kind]


#: Those whose build is under way.
under_way: list[Book] = []


def building(kind: type[R]) -> R | None:
    """Return the record of the build whose doing it is; ``None``: no build does it."""
    if not under_way:
        return None
    record = acting(kind)
    book = None if record is None else record.book()
    return record if book is not None and book.building else None


def entered(kind: type[R]) -> R | None:
    """Return the record of the generation in whose context this is: quicker than :func:`acting`."""
    generation = active.get()
    if generation is None or importing_shared.get():
        return None
    book = generation.effects
    return None if book is None else book.records[kind]


def living() -> list[tuple[Generation, Book]]:
    """Return the generations that have a book, newest first."""
    found = []
    for known in reversed(_known.copy()):
        generation = known()
        if generation is not None:
            found.append((generation, generation.effects))
    return found


def current() -> tuple[Generation, Book] | None:
    """Return the newest generation that is current, if there is one."""
    for known in reversed(_known.copy()):
        generation = known()
        if generation is not None and generation.state is State.CURRENT:
            return generation, generation.effects
    return None


def alone(book: Book) -> bool:
    """Whether no other code of an application or a program was there when the build began."""
    return book.first and not adopted


_MISSING: Any = object()


class Patches:
    """Attributes that are replaced while effects are written down."""

    def __init__(self) -> None:
        self._put: list[tuple[Any, str, Any, Any]] = []
        self._awaited: list[tuple[str, Callable[[ModuleType], None]]] = []

    def when_loaded(self, name: str, wrap: Callable[[ModuleType], None]) -> None:
        """Call ``wrap`` with the shared module ``name`` when it is there, which may be now."""
        self._awaited.append((name, wrap))
        late.when_loaded(name, wrap)

    def put(self, owner: Any, name: str, stand_in: object) -> None:
        """Replace an attribute of a module or a class."""
        self._put.append((owner, name, vars(owner).get(name, _MISSING), stand_in))
        setattr(owner, name, stand_in)

    def take_back(self) -> None:
        """Put back what was there, last first; what somebody else replaced since stays theirs."""
        while self._awaited:
            late.never_mind(*self._awaited.pop())
        while self._put:
            owner, name, before, stand_in = self._put.pop()
            if vars(owner).get(name) is not stand_in:
                continue
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

"""Objects that are made once per process and outlive the generations: pools, loaded models.

``_lock`` guards the table of what is kept; it is held for a few operations, never while anything is
made.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar, cast

from genwsgi.errors import KeepError
from genwsgi.generations.generation import Generation
from genwsgi.isolation import lookup
from genwsgi.isolation.asking import author
from genwsgi.isolation.effects import effects_of, importing_shared
from genwsgi.isolation.effects.exits import Exits
from genwsgi.isolation.holders import belongs, find
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.naming import describe

T = TypeVar("T")

#: How long a caller waits for another that makes the object, in seconds.
PATIENCE = 120.0

_lock = threading.Lock()
_kept: dict[str, _Kept] = {}


class _Kept:
    """One name, from the moment in which somebody begins to make its object."""

    def __init__(self, maker: Generation | None) -> None:
        self.thread = threading.current_thread()
        self.ended = threading.Event()
        self.made = False
        self.value: Any = None
        self.maker = maker and weakref.ref(maker)
        #: Who was given it; whoever belongs to no generation counts as the process.
        self.users: weakref.WeakSet[Generation] = weakref.WeakSet()
        self.of_process = False

    def give(self, to: Generation | None) -> Any:
        if to is None:
            self.of_process = True
        else:
            self.users.add(to)
        return self.value


def keep(name: str, make: Callable[[], T]) -> T:
    """Return the object of this process that is kept under ``name``, made once by ``make()``.

    Every generation gets the same object, and so does every thread: those that ask while it is
    being made wait for it.  When ``make`` raises, the exception comes through, nothing is kept, and
    the next one that asks makes it.  What ``make`` does to the process (a thread it starts, an
    ``atexit`` callback) is the process's and stays; an object that a build made, which then failed,
    is dropped again unless somebody else has it.

    The object must not lead to anything of a generation, or that would never be let go: not be an
    instance of one of its classes, not hold one of its functions.  It is looked through once it is
    made, and refused with the path if it does.  If it comes to do so later, the log and the status
    name it when that generation has retired.

    Without genwsgi it is an object that is made once per process.  Any thread may call this.

    :raises KeepError: the object would keep a generation alive; or whoever makes it does not come
        to an end, or asks for it itself.
    """
    generation = None if importing_shared.get() else author()
    deadline = time.monotonic() + PATIENCE
    while True:
        with _lock:
            kept = _kept.get(name)
            mine = kept is None
            if kept is None:
                kept = _kept[name] = _Kept(generation)
            elif kept.made:
                return cast("T", kept.give(generation))
        if mine:
            return cast("T", _make(name, kept, make, generation))
        if kept.thread is threading.current_thread():
            raise KeepError(name, "it is asked for by the function that makes it: pass it on there")
        if not kept.ended.wait(max(0.0, deadline - time.monotonic())):
            where = f"thread {kept.thread.name!r} has been making it for {PATIENCE:.0f} s or more"
            raise KeepError(name, f"{where}: see what its make() waits for")


def kept() -> list[tuple[str, object]]:
    """Return what is kept, each with what to call it.  Any thread may ask."""
    with _lock:
        return [(f"genwsgi.keep({name!r})", one.value) for name, one in _kept.items() if one.made]


def _make(
    name: str, kept: _Kept, make: Callable[[], object], generation: Generation | None
) -> object:
    try:
        # In a context of no generation: what is done there is the process's.
        value = Context().run(_make_for_process, make)
        path = _path_to_generation(value)
        if path is not None:
            raise KeepError(
                name,
                f"what was made would keep {path}: make it from code that all generations share "
                "(--share NAME makes a package such)",
            )
        with _lock:
            kept.value = value
            kept.made = True
            kept.give(generation)
    except BaseException:
        with _lock:
            del _kept[name]
        raise
    finally:
        kept.ended.set()
    effects = None if generation is None else effects_of(generation)
    if effects is not None:
        effects.of(Exits).at_undo.append(lambda: _drop(name, kept))
    return value


def _make_for_process(make: Callable[[], object]) -> object:
    importing_shared.set(True)
    return make()


def _drop(name: str, kept: _Kept) -> None:
    """The build that made it has failed."""
    with _lock:
        maker = kept.maker and kept.maker()
        if not kept.of_process and set(kept.users) <= {maker} and _kept.get(name) is kept:
            del _kept[name]


def _path_to_generation(value: object) -> str | None:
    """Say which living generation ``value`` leads to, and how; ``None``: to none."""
    tables = list(lookup.living)
    seen: list[ModuleTable] = []

    def wanted(obj: object) -> bool:
        for table in tables:
            if belongs(obj, table.builtins, table.modules):
                seen.append(table)
                return True
        return False

    if not tables:
        return None
    found = find(
        [("it", value)],
        wanted,
        through_modules=False,
        skip=_is_everybodys,
        objects=500_000,
        seconds=10.0,
    )
    if found.path is None:
        return None
    return f"{seen[0].generation.name} alive ({describe(found.path)})"


def _is_everybodys(obj: object) -> bool:
    """Whether ``obj`` is the process's own: many refer to it, and it refers to everything."""
    kind = type(obj)
    return kind is Generation or kind is ModuleTable or issubclass(kind, logging.Logger)

"""In whose name code runs: the generation that a look-up by name is made for."""

from __future__ import annotations

import builtins
import sys
import weakref
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any

from genwsgi.generations.generation import Generation, active

if TYPE_CHECKING:
    from genwsgi.isolation.modules import ModuleTable

#: The name under which a generation's builtins have the module table that made them.  Code that
#: runs with a copy of them (``exec`` with builtins of its own making) is the generation's as well.
MARK = "__generation__"

#: The modules that ran before there was a generation, by the identity of their globals, and whose
#: version they are now; see :mod:`genwsgi.isolation.originals`.
adopted: dict[int, weakref.ref[Generation]] = {}

_process = vars(builtins)
_run = Generation.run.__code__


def table_of(names: dict[str, Any]) -> ModuleTable | None:
    """Return the table of the generation whose builtins ``names`` are; ``None``: no generation's.

    It is the table that the code was loaded by, also when its generation has ended.
    """
    return None if names is _process else dict.get(names, MARK)


class Pin:
    """A generation that one unit of work keeps to, whatever the code below it on the stack is of.

    :ivar generation: the generation; ``None`` when the unit of work has ended.
    """

    __slots__ = ("_below", "generation")

    def __init__(self, generation: Generation, frame: FrameType | None) -> None:
        """Begin; ``frame`` is the innermost one of the code that the pin is to go before."""
        self.generation: Generation | None = generation
        # Kept, not only their identities: another frame must not come by one of these.
        self._below: list[FrameType] = []
        while frame is not None:
            if generation_of(frame) is not None:
                self._below.append(frame)
            frame = frame.f_back

    def end(self) -> None:
        """End: contexts that were copied meanwhile are pinned no more."""
        self.generation = None
        self._below = []

    def overrides(self, frame: FrameType) -> bool:
        """Whether ``frame`` was on the stack already when the pin began."""
        return any(frame is other for other in self._below)


#: What this unit of work is pinned to.
pinned: ContextVar[Pin | None] = ContextVar("genwsgi.pinned", default=None)


def generation_of(frame: FrameType) -> Generation | None:
    """Return the generation that the code of ``frame`` is of; ``None``: of none."""
    return owner_of(frame.f_builtins, frame.f_globals)


def applications(frame: FrameType) -> bool:
    """Whether the code of ``frame`` is the application's: of any generation."""
    return generation_of(frame) is not None


def owner_of(builtins: dict[str, Any], names: dict[str, Any]) -> Generation | None:
    """Return the generation that code with these builtins and globals is of; ``None``: of none."""
    table = table_of(builtins)
    if table is not None:
        return table.generation
    known = adopted.get(id(names)) if adopted else None
    return None if known is None else known()


def asking() -> Generation | None:
    """Return the generation in whose name the calling code runs; ``None``: the current one.

    That is the generation whose code is nearest on the stack, or that was entered there by
    :meth:`Generation.run`, even one that has ended.  Where there is neither, it is the one in the
    context variable ``active``, unless that has been torn down.

    The stack comes first because a thread, or a greenlet, may be somebody else's: the threads of a
    pool that a shared library keeps have the context of the generation which happened to need them
    first, and a bare greenlet has none.

    A unit of work that is pinned means the generation it is pinned to, wherever it would else be
    decided by a frame below the pin, or by none.

    Any thread may call it; it takes no lock and costs some 0.1 µs for each frame that it looks at.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_builtins
        if names is not _process:
            table: ModuleTable | None = dict.get(names, MARK)
            if table is not None:
                return _unless_pinned(frame, table.generation)
        elif adopted:
            known = adopted.get(id(frame.f_globals))
            generation = None if known is None else known()
            if generation is not None:
                return _unless_pinned(frame, generation)
        # It has entered the context on purpose, even one that has ended; below are its callers.
        if frame.f_code is _run:
            return active.get()
        frame = frame.f_back
    pin = pinned.get()
    if pin is not None and pin.generation is not None:
        return pin.generation
    generation = active.get()
    if generation is not None and generation.modules is not None and generation.modules.closed:
        return None
    return generation


def author() -> Generation | None:
    """Return the generation whose doing this is: as :func:`asking`, but for pins.

    What a program does in a unit of work that is pinned (a thread it starts, a handler it adds) is
    its own doing and has to stay when the version goes.
    """
    if pinned.get() is None:
        return asking()
    token = pinned.set(None)
    try:
        return asking()
    finally:
        pinned.reset(token)


def _unless_pinned(frame: FrameType, generation: Generation) -> Generation:
    """Return what ``frame``, which is of ``generation``, means."""
    pin = pinned.get()
    if pin is None or pin.generation is None or not pin.overrides(frame):
        return generation
    return pin.generation

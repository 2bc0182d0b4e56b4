"""In whose name code runs: the generation that a look-up by name is made for."""

from __future__ import annotations

import builtins
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from genwsgi.generations.generation import Generation, active

if TYPE_CHECKING:
    from genwsgi.isolation.modules import ModuleTable

#: The name under which a generation's builtins have the module table that made them.  Code that
#: runs with a copy of them (``exec`` with builtins of its own making) is the generation's as well.
MARK = "__generation__"

_process = vars(builtins)
_run = Generation.run.__code__


def table_of(names: dict[str, Any]) -> ModuleTable | None:
    """Return the table of the generation whose builtins ``names`` are; ``None``: no generation's.

    It is the table that the code was loaded by, also when its generation has ended.
    """
    return None if names is _process else dict.get(names, MARK)


def asking() -> Generation | None:
    """Return the generation in whose name the calling code runs; ``None``: the current one.

    That is the generation whose code is nearest on the stack, or that was entered there by
    :meth:`Generation.run`, even one that has ended.  Where there is neither, it is the one in the
    context variable ``active``, unless that has been torn down.

    The stack comes first because a thread, or a greenlet, may be somebody else's: the threads of a
    pool that a shared library keeps have the context of the generation which happened to need them
    first, and a bare greenlet has none.

    Any thread may call it; it takes no lock and costs some 0.1 µs for each frame that it looks at.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_builtins
        if names is not _process:
            table: ModuleTable | None = dict.get(names, MARK)
            if table is not None:
                return table.generation
        # It has entered the context on purpose, even one that has ended; below are its callers.
        if frame.f_code is _run:
            return active.get()
        frame = frame.f_back
    generation = active.get()
    if generation is not None and generation.modules is not None and generation.modules.closed:
        return None
    return generation

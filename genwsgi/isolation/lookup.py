"""Which table answers for a module name, here and now.

``lock`` guards what all of this process's imports share: who provides a current generation
(:func:`provide`), the set of living tables, and the proxies in the interpreter's own table of
modules.  It is never held while modules are loaded.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import applications, asking
from genwsgi.isolation.modules import EndedTable, ModuleTable
from genwsgi.isolation.originals import OriginalTable

#: What answers for the names of a generation: its modules, or what says that they are gone.
Table = ModuleTable | OriginalTable | EndedTable

#: Gives the generation that code outside of any generation means: the current one.
Provider = Callable[[], Generation | None]

# Reentrant: a signal handler or a finalizer may import while this thread registers a proxy.
lock = threading.RLock()
#: Who provides a current generation; the last one is asked first.
providers: list[Provider] = []
#: The tables of the generations that have begun and not ended.
living: weakref.WeakSet[ModuleTable] = weakref.WeakSet()
#: Every top-level name that was in the scope of some generation: for others nobody need be asked.
_scoped: set[str] = set()
#: The modules that the host program was loading as it made an application: it goes on with them.
#: And what they import then.
_makers: set[str] = set()
#: The packages that these are in.
_around: set[str] = set()


def table_for(fullname: object) -> Table | None:
    """Return the table that answers for a module name here and now; ``None``: it is shared."""
    if not isinstance(fullname, str):
        return None
    if fullname.partition(".")[0] not in _scoped:
        return None
    for table in tables():
        if table.owns(fullname):
            return None if _is_hosts(fullname, table) else table
    return None


def _is_hosts(fullname: str, table: Table) -> bool:
    """Whether a module is the host program's own here, as it was loading it when it began."""
    # A package of such modules has to be there for it, and the generation may not have it.
    begun = fullname in _makers or (fullname in _around and fullname not in table.modules)
    return begun and not table.handles and asking() is None


def tables() -> list[Table]:
    """Return the tables that answer here and now; of two that have a name the first one does."""
    generation = asking()
    mine: Table | None = None if generation is None else generation.modules
    found = [] if mine is None else [mine]
    for table in _current():
        # What another generation of the same application has and this one has not, is not there
        # for this one.
        if mine is None or mine.names.isdisjoint(table.names):
            found.append(table)
    return found


def table_of_folder(folder: str) -> ModuleTable | None:
    """Return the table whose snapshot says what is in ``folder``; ``None``: the disk does."""
    folder = os.path.abspath(folder)
    generation = asking()
    if generation is not None and generation.modules is not None:
        mine: Table = generation.modules
        if isinstance(mine, OriginalTable):
            return None
        if isinstance(mine, ModuleTable) and mine.covers(folder):
            return mine
    for table in _current():
        if isinstance(table, ModuleTable) and table.covers(folder):
            return table
    return None


def begin(table: ModuleTable | OriginalTable) -> None:
    """A generation begins, or has more names now."""
    with lock:
        _scoped.update(name.partition(".")[0] for name in table.names)
        if isinstance(table, ModuleTable):
            living.add(table)


def made() -> None:
    """The calling thread makes an application: modules it is loading stay the host program's."""
    for name in _loading():
        with lock:
            _makers.add(name)
            while name := name.rpartition(".")[0]:
                _around.add(name)


def loads_for_host(fullname: str, table: Table) -> bool:
    """Whether a module is now loaded that becomes the host program's own.

    That is one that a module of the program imports while it is loaded itself, and that the current
    generation has nothing of.  It would be kept, and of the code that is current now, for ever.
    """
    if table.handles or fullname.partition(".")[0] in table.modules or asking() is not None:
        return False
    if _makers.isdisjoint(_loading()):
        return False
    with lock:
        _makers.add(fullname)
    return True


def _loading() -> Iterator[str]:
    """Yield the modules of the host program that this thread is loading."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        spec: Any = frame.f_globals.get("__spec__")
        if frame.f_globals.get("__name__") == "__main__":
            if frame.f_code.co_name == "<module>":
                yield "__main__"  # which no spec tells this of
        elif getattr(spec, "_initializing", False) is True and not applications(frame):
            yield spec.name
        frame = frame.f_back


def forget() -> None:
    """Nobody is served any more: no name is in any scope."""
    with lock:
        for names in (_scoped, _makers, _around):
            names.clear()


def _current() -> list[ModuleTable | OriginalTable]:
    found: list[ModuleTable | OriginalTable] = []
    for provider in reversed(providers):
        generation = provider()
        table = None if generation is None else generation.modules
        if isinstance(table, (ModuleTable, OriginalTable)):
            found.append(table)
    return found

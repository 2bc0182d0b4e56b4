"""Which table answers for a module name, here and now.

``lock`` guards what all of this process's imports share: who provides a current generation
(:func:`provide`), the set of living tables, and the proxies in the interpreter's own table of
modules.  It is never held while modules are loaded.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import asking
from genwsgi.isolation.modules import EndedTable, ModuleTable

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


def table_for(fullname: object) -> ModuleTable | EndedTable | None:
    """Return the table that answers for a module name here and now; ``None``: it is shared."""
    if not isinstance(fullname, str):
        return None
    top = fullname.partition(".")[0]
    if top not in _scoped:
        return None
    for table in tables():
        if top in table.names:
            return table
    return None


def tables() -> list[ModuleTable | EndedTable]:
    """Return the tables that answer here and now; of two that have a name the first one does."""
    generation = asking()
    mine: ModuleTable | EndedTable | None = None if generation is None else generation.modules
    found = [] if mine is None else [mine]
    for table in _current():
        # What another generation of the same application has and this one has not, is not there
        # for this one.
        if mine is None or mine.names.isdisjoint(table.names):
            found.append(table)
    return found


def table_of_folder(folder: str) -> ModuleTable | None:
    """Return the table whose snapshot says what is in ``folder``; ``None``: the disk does."""
    generation = asking()
    if generation is not None and generation.modules is not None:
        mine: ModuleTable | EndedTable = generation.modules
        if isinstance(mine, ModuleTable) and mine.covers(folder):
            return mine
    return next((table for table in _current() if table.covers(folder)), None)


def begin(table: ModuleTable) -> None:
    """A generation begins."""
    with lock:
        _scoped.update(table.names)
        living.add(table)


def forget() -> None:
    """Nobody is served any more: no name is in any scope."""
    with lock:
        _scoped.clear()


def _current() -> list[ModuleTable]:
    found: list[ModuleTable] = []
    for provider in reversed(providers):
        generation = provider()
        table = None if generation is None else generation.modules
        if isinstance(table, ModuleTable):
            found.append(table)
    return found

"""Processes that a generation starts afresh (``multiprocessing``: "spawn" and "forkserver").

Such a process knows nothing of its parent but what is pickled for it, and would import the
application from the disk, where newer code may be by now.  What it is prepared with gets one more
entry, which, when it is unpickled, before anything of the application is, makes the process import
from the snapshot of the generation that started it.  The snapshot is held as long as the process
lives: it inherits the descriptor that holds it.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from genwsgi import errors
from genwsgi.errors import GenwsgiError
from genwsgi.isolation import late, lookup
from genwsgi.isolation.modules import EndedTable, ModuleTable
from genwsgi.isolation.originals import OriginalTable

#: The name of the entry; the process itself does not look at it.
ENTRY = "genwsgi"

#: Run by the process, whose ``sys.path`` is not its parent's yet.
_BEGIN = """
import sys
if folder not in sys.path:
    sys.path.append(folder)
from genwsgi.isolation.spawned import begin
begin(heirlooms)
"""

#: Where genwsgi is imported from.
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(errors.__file__)))

_MODULE = "multiprocessing.spawn"
_prepared: Any = None


class _Inheritance:
    """Is pickled as a call of :func:`genwsgi.isolation.spawned.begin`.

    :param tables: of the generations that answer where the process is started.
    """

    def __init__(self, tables: list[ModuleTable]) -> None:
        self._tables = tables

    def __reduce__(self) -> Any:
        from multiprocessing.reduction import DupFd

        heirlooms = [
            (
                table.snapshot.store,
                table.snapshot.digest,
                table.generation.number,
                table.generation.release,
                DupFd(_held(table)),
            )
            for table in self._tables
        ]
        return exec, (_BEGIN, {"folder": _FOLDER, "heirlooms": heirlooms})


def _prepare_for_generation(name: str) -> dict[str, Any]:
    """``multiprocessing.spawn.get_preparation_data``, which is called in the parent."""
    data: dict[str, Any] = _prepared(name)
    tables = []
    for table in lookup.tables():
        if isinstance(table, OriginalTable):
            continue  # the program as it is on disk
        if isinstance(table, EndedTable):
            raise _refusal(table)
        if isinstance(table, ModuleTable):
            tables.append(table)
    if tables:
        data[ENTRY] = _Inheritance(tables)
    return data


def _held(table: ModuleTable) -> int:
    """Return the descriptor that holds a generation's snapshot, which may end just now."""
    try:
        return table.snapshot.fileno()
    except ValueError:  # it has let go of it
        raise _refusal(EndedTable(table)) from None


def _refusal(table: EndedTable) -> GenwsgiError:
    return GenwsgiError(f"{table.what}, its code starts no more processes")


def _patch(module: ModuleType) -> None:
    global _prepared
    _prepared = vars(module)["get_preparation_data"]
    vars(module)["get_preparation_data"] = _prepare_for_generation


def install() -> None:
    """Begin to give processes their generation.  The caller sees to it that this is done once."""
    late.when_loaded(_MODULE, _patch)


def uninstall() -> None:
    """Undo :func:`install`."""
    if not late.never_mind(_MODULE, _patch):
        from multiprocessing import spawn

        vars(spawn)["get_preparation_data"] = _prepared

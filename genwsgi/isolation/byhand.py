"""Modules that an application loads by hand, as plugins and configuration files are.

``importlib.util.spec_from_file_location`` and ``module_from_spec``, and ``runpy``, run code in
modules of which the import system knows nothing.  Started by a generation's code they are the
generation's: they have its builtins, so that their imports ask it, and a file that is in its
snapshot is read from there.
"""

from __future__ import annotations

import importlib.util
import os
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import Any

from genwsgi.isolation import late
from genwsgi.isolation.asking import asking
from genwsgi.isolation.loader import SnapshotLoader
from genwsgi.isolation.modules import ModuleTable

_module_from_spec = importlib.util.module_from_spec
_spec_from_file_location = importlib.util.spec_from_file_location
_run_code: Any = None


def adopt(names: Any, table: ModuleTable) -> None:
    """Give a module that has not run yet the builtins of a generation.

    :param names: the module's dict.
    """
    if isinstance(names, dict):
        names.setdefault("__builtins__", table.builtins)


def being_loaded(name: str, module: object) -> bool:
    """Whether ``module`` is at this moment being made from source, to be found as ``name``."""
    spec = getattr(module, "__spec__", None)
    return (
        isinstance(spec, ModuleSpec)
        and getattr(spec, "_initializing", False) is True
        and spec.name == name
        and not isinstance(spec.loader, ExtensionFileLoader)
    )


def _table() -> ModuleTable | None:
    generation = asking()
    table = None if generation is None else generation.modules
    return table if isinstance(table, ModuleTable) else None


def _module_from_spec_for_generation(spec: ModuleSpec) -> ModuleType:
    module = _module_from_spec(spec)
    table = _table()
    if table is not None and not _is_shared(spec, table):
        adopt(module.__dict__, table)
    return module


def _is_shared(spec: ModuleSpec, table: ModuleTable) -> bool:
    """Whether this is what an import would find as well, in a package that is shared.

    Libraries make modules of that kind by hand as well, to load them when they are first used.
    """
    if isinstance(spec.loader, ExtensionFileLoader):
        return True
    if table.owns(spec.name):
        return False
    try:
        found = importlib.util.find_spec(spec.name.partition(".")[0])
    except (ImportError, ValueError):
        return False
    if found is None or spec.origin is None:
        return found is not None
    places = found.submodule_search_locations or ()
    return spec.origin == found.origin or any(_below(spec.origin, place) for place in places)


def _below(path: str, folder: str) -> bool:
    folder = os.path.abspath(folder)
    return os.path.isabs(path) and os.path.commonpath([path, folder]) == folder


def _spec_from_file_location_for_generation(
    name: str, location: Any = None, *, loader: Any = None, **more: Any
) -> ModuleSpec | None:
    table = _table() if loader is None and isinstance(location, str | os.PathLike) else None
    if table is not None:
        path = os.path.abspath(os.fspath(location))
        if path in table.snapshot.files:
            loader = SnapshotLoader(name, path, table)
    return _spec_from_file_location(name, location, loader=loader, **more)


def _run_code_for_generation(
    code: Any, run_globals: dict[str, Any], *more: Any, **named: Any
) -> Any:
    table = _table()
    if table is not None:
        adopt(run_globals, table)
    return _run_code(code, run_globals, *more, **named)


def _patch_runpy(module: ModuleType) -> None:
    global _run_code
    _run_code = vars(module)["_run_code"]
    vars(module)["_run_code"] = _run_code_for_generation


def install() -> None:
    """Begin to tell whose such modules are.  The caller sees to it that this is done once."""
    importlib.util.module_from_spec = _module_from_spec_for_generation
    importlib.util.spec_from_file_location = _spec_from_file_location_for_generation
    late.when_loaded("runpy", _patch_runpy)


def uninstall() -> None:
    """Undo :func:`install`."""
    if not late.never_mind("runpy", _patch_runpy):
        import runpy

        vars(runpy)["_run_code"] = _run_code
    importlib.util.spec_from_file_location = _spec_from_file_location
    importlib.util.module_from_spec = _module_from_spec

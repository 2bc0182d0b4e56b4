"""What imports see in this process: one answer per generation.

Installed while at least one application is served; every place where Python looks a module up by
name is pointed at the generation in whose name the code runs (or, outside of any, the current one):

- ``sys.modules`` is replaced by :class:`~genwsgi.isolation.view.SysModules`, a dict that answers
  for names of the scope from the generation's table and for everything else from the real dict.
- The real dict, which C code reads (``pickle``, the interpreter's own import), has for each name in
  the scope a :class:`~genwsgi.isolation.view.ModuleProxy`.
- ``importlib`` and the interpreter load modules through one function, which is wrapped: names of
  the scope are loaded by the generation's table under the generation's own locks.
- A meta path finder and a path hook answer from the generation's snapshot.
- Source lines come from there as well (:mod:`~genwsgi.isolation.sources`), and so does the code of
  processes that a generation starts (:mod:`~genwsgi.isolation.spawn`).

Which generation that is, :mod:`~genwsgi.isolation.lookup` decides.
"""

from __future__ import annotations

import importlib._bootstrap
import importlib._bootstrap_external
import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import FileFinder, ModuleSpec
from types import ModuleType
from typing import Any

from genwsgi.isolation import byhand, late, lookup, sources, spawn, view
from genwsgi.isolation.effects import (
    importing_shared,
    shared_import_begins,
    shared_import_ended,
)
from genwsgi.isolation.loader import find_in_snapshot, list_in_snapshot
from genwsgi.isolation.lookup import Provider, lock, table_for, table_of_folder
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.view import SysModules, forget_proxies, handle_of, real

bootstrap: Any = importlib._bootstrap

_find_and_load = bootstrap._find_and_load


class Whole(threading.local):
    """Whether this thread may be interrupted in a shared import, half of which would stay.

    :ivar guard: makes what every shared import of the thread is done in.
    """

    guard: Callable[[], AbstractContextManager[None]] = nullcontext


#: Set by who interrupts the thread.
whole = Whole()


class ScopeFinder:
    """The meta path finder (PEP 451) for names of the scope; for others it finds nothing."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: object = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        table = table_for(fullname)
        return find_in_snapshot(table, fullname, path) if isinstance(table, ModuleTable) else None

    def invalidate_caches(self) -> None:
        """A snapshot never changes."""


class ScopeFolderFinder:
    """The path entry finder of a folder of the scope: what is in it is what the snapshot has.

    ``pkgutil.iter_modules`` asks it for names, and whoever walks a package so (``venusian``, for
    Pyramid's ``scan()``) then for the spec of each.  Imports ask :class:`ScopeFinder` before it:
    a top-level name that they still don't have means that the application has put a folder of its
    own on the path.  What is there is the disk's until that folder has joined the scope, the
    submodules of its packages included.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._on_disk = FileFinder(folder, *_loaders_of_files())

    def find_spec(
        self,
        fullname: str,
        target: object = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        table = table_of_folder(self._folder) if "." in fullname else None
        if table is None or not table.owns(fullname) or table_for(fullname) is None:
            return self._on_disk.find_spec(fullname)
        return find_in_snapshot(table, fullname, [self._folder])

    def invalidate_caches(self) -> None:
        self._on_disk.invalidate_caches()

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        table = table_of_folder(self._folder)
        if table is None:
            yield from pkgutil.iter_importer_modules(self._on_disk, prefix)  # type: ignore[attr-defined]
        else:
            for name, package in list_in_snapshot(table.snapshot, os.path.abspath(self._folder)):
                yield prefix + name, package


def _loaders_of_files() -> list[tuple[Any, list[str]]]:
    """The loaders of files, as the import system sets them up for every folder."""
    external: Any = importlib._bootstrap_external
    loaders: list[tuple[Any, list[str]]] = external._get_supported_file_loaders()
    return loaders


def _folder_hook(folder: str) -> ScopeFolderFinder:
    if table_of_folder(folder) is None:
        raise ImportError(f"{folder} is not a folder of the scope", path=folder)
    return ScopeFolderFinder(folder)


def _load(name: str, import_: Callable[..., ModuleType]) -> ModuleType:
    """What ``importlib`` and the interpreter call for every module that they don't have yet."""
    table = table_for(name)
    if table is not None and not lookup.loads_for_host(name, table):
        module: ModuleType = table.import_module(name)
        return handle_of(name, module) if table.handles else module
    with whole.guard():
        return _load_shared(name, import_)


def _load_shared(name: str, import_: Callable[..., ModuleType]) -> ModuleType:
    seen = None if importing_shared.get() else shared_import_begins()
    token = importing_shared.set(True)
    try:
        shared: ModuleType = _find_and_load(name, import_)
        late.loaded(name)
        return shared
    finally:
        importing_shared.reset(token)
        if seen is not None:
            shared_import_ended(seen)


_finder = ScopeFinder()
_view = SysModules()


def install(provider: Provider) -> None:
    """Make imports ask ``provider``'s generation.  Any thread; balanced by :func:`uninstall`."""
    with lock:
        if not lookup.providers:
            view.begin()
            sys.modules = _view
            sys.meta_path.insert(0, _finder)
            sys.path_hooks.insert(0, _folder_hook)
            bootstrap._find_and_load = _load
            sources.install()
            spawn.install()
            byhand.install()
        lookup.providers.append(provider)


def uninstall(provider: Provider) -> None:
    """Undo :func:`install`; with the last one everything is as it was before the first."""
    with lock:
        lookup.providers.remove(provider)
        if lookup.providers:
            return
        byhand.uninstall()
        spawn.uninstall()
        sources.uninstall()
        bootstrap._find_and_load = _find_and_load
        sys.path_hooks.remove(_folder_hook)
        sys.meta_path.remove(_finder)
        sys.modules = real
        for folder, finder in list(sys.path_importer_cache.items()):
            if isinstance(finder, ScopeFolderFinder):
                del sys.path_importer_cache[folder]
        forget_proxies([])
        lookup.forget()


def opened(table: ModuleTable) -> None:
    """A generation begins: folders of its snapshot are to be listed from the snapshot."""
    lookup.begin(table)
    for folder in table.snapshot.folders:
        if not isinstance(sys.path_importer_cache.get(folder), ScopeFolderFinder):
            sys.path_importer_cache.pop(folder, None)


def closed(table: ModuleTable) -> None:
    """A generation has ended: remove the proxies of modules that no other one has.

    And the finders of folders that are part of no other release.
    """
    with lock:
        lookup.living.discard(table)
        living = list(lookup.living)
        view.drop_disused(living)
        forget_proxies(living)
    for folder in list(sys.path_importer_cache):
        place = os.path.abspath(folder)
        if table.covers(place) and not any(other.covers(place) for other in living):
            sys.path_importer_cache.pop(folder, None)

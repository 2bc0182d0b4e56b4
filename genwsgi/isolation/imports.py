"""What imports see in this process: one answer per generation.

Installed while at least one application is served; every place where Python looks a module up by
name is pointed at the generation in whose name the code runs (or, outside of any, the current one):

- ``sys.modules`` is replaced by :class:`SysModules`, a dict that answers for names of the scope
  from the generation's table and for everything else from the real dict.
- The real dict, which C code reads (``pickle``, the interpreter's own import), has for each name in
  the scope a :class:`ModuleProxy`.
- ``importlib`` and the interpreter load modules through one function, which is wrapped: names of
  the scope are loaded by the generation's table under the generation's own locks.
- A meta path finder and a path hook answer from the generation's snapshot.

``_lock`` guards the list of providers, installing, and the proxies; it is never held while modules
are loaded.
"""

from __future__ import annotations

import importlib._bootstrap
import importlib._bootstrap_external
import pkgutil
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import FileFinder, ModuleSpec
from types import ModuleType
from typing import Any

from genwsgi.generations.generation import Generation, active
from genwsgi.isolation.effects import importing_shared
from genwsgi.isolation.loader import find_in_snapshot, list_in_snapshot
from genwsgi.isolation.modules import ModuleTable

#: Gives the generation that code outside of any generation means: the current one.
Provider = Callable[[], Generation | None]

bootstrap: Any = importlib._bootstrap

# Reentrant: a signal handler or a finalizer may import while this thread registers a proxy.
_lock = threading.RLock()
_providers: list[Provider] = []
_tables: weakref.WeakSet[ModuleTable] = weakref.WeakSet()
_real: dict[str, ModuleType] = sys.modules
#: Shared modules under names that are in the scope of some living generation, but not of all: a
#: proxy has their place in the real dict, and they are put back when it goes.
_displaced: dict[str, ModuleType] = {}
_find_and_load = bootstrap._find_and_load


def table_for(fullname: object) -> ModuleTable | None:
    """Return the table that answers for a module name here and now; ``None``: it is shared."""
    if not isinstance(fullname, str):
        return None
    generation = active.get()
    mine: ModuleTable | None = None if generation is None else generation.modules
    if mine is not None and mine.owns(fullname):
        return mine
    for provider in reversed(_providers):
        generation = provider()
        if generation is not None and generation.modules is not None:
            table: ModuleTable = generation.modules
            # What another generation of the same application has and this one has not, is not
            # there for this one.
            if table.owns(fullname) and (mine is None or mine.names.isdisjoint(table.names)):
                return table
    return None


class ModuleProxy(ModuleType):
    """Stands in the interpreter's own table for whichever module the asking generation means."""

    def __getattribute__(self, name: str) -> Any:
        return getattr(_meant_by(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(_meant_by(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_meant_by(self), name)

    def __dir__(self) -> list[str]:
        return dir(_meant_by(self))

    def __repr__(self) -> str:
        return repr(_meant_by(self))


def _meant_by(proxy: ModuleProxy) -> ModuleType:
    name: str = ModuleType.__getattribute__(proxy, "__name__")
    table = table_for(name)
    if table is not None:
        return table.import_module(name)
    shared = _displaced.get(name)
    if shared is None:
        raise AttributeError(f"module {name!r} belongs to a generation that does not run here")
    return shared


def _shared(name: object, default: Any) -> Any:
    """Return the shared module of that name, which a proxy may hide."""
    module = _real.get(name, default)  # type: ignore[call-overload]
    return _displaced.get(name, default) if type(module) is ModuleProxy else module  # type: ignore[call-overload]


_MISSING: Any = object()


class SysModules(dict[str, ModuleType]):
    """``sys.modules``: the real one, with the modules of the asking generation in it."""

    def __getitem__(self, name: str) -> ModuleType:
        module = self.get(name, _MISSING)
        if module is _MISSING:
            raise KeyError(name)
        return module  # type: ignore[no-any-return]

    def get(self, name: str, default: Any = None) -> Any:
        table = table_for(name)
        return _shared(name, default) if table is None else table.modules.get(name, default)

    def __contains__(self, name: object) -> bool:
        table = table_for(name)
        if table is None:
            return _shared(name, _MISSING) is not _MISSING
        return name in table.modules

    def __setitem__(self, name: str, module: ModuleType) -> None:
        table = table_for(name)
        with _lock:
            before = _real.get(name, _MISSING)
            hidden = type(before) is ModuleProxy
            if table is None:
                (_displaced if hidden else _real)[name] = module
                return
            table.modules[name] = module
            if not hidden:
                if before is not _MISSING:
                    _displaced[name] = before
                _real[name] = ModuleProxy(name)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def pop(self, name: str, *default: Any) -> Any:
        table = table_for(name)
        if table is not None:
            return table.modules.pop(name, *default)
        with _lock:
            hidden = type(_real.get(name)) is ModuleProxy
            return (_displaced if hidden else _real).pop(name, *default)

    def popitem(self) -> tuple[str, ModuleType]:
        name = list(self.copy())[-1]
        return name, self.pop(name)

    def clear(self) -> None:
        for name in self.copy():
            self.pop(name, None)

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, *args: Any, **kwargs: ModuleType) -> None:
        for name, module in dict(*args, **kwargs).items():
            self[name] = module

    def copy(self) -> dict[str, ModuleType]:
        # Snapshots of dicts in one C call each: imports go on on other threads.
        merged: dict[str, Any] = {}
        for name, module in _real.copy().items():
            if type(module) is not ModuleProxy:
                merged[name] = module
        for name, module in _displaced.copy().items():
            if table_for(name) is None:
                merged[name] = module
        seen = [provider() for provider in list(_providers)]
        for generation in (*seen, active.get()):
            if generation is not None and generation.modules is not None:
                for name, module in generation.modules.modules.copy().items():
                    if table_for(name) is generation.modules:
                        merged[name] = module
        return merged

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def __bool__(self) -> bool:
        return True

    def keys(self) -> Any:
        return self.copy().keys()

    def values(self) -> Any:
        return self.copy().values()

    def items(self) -> Any:
        return self.copy().items()

    def __eq__(self, other: object) -> bool:
        return self is other or self.copy() == other

    __hash__ = None

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)


class ScopeFinder:
    """The meta path finder (PEP 451) for names of the scope; for others it finds nothing."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: object = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        table = table_for(fullname)
        return None if table is None else find_in_snapshot(table, fullname, path)

    def invalidate_caches(self) -> None:
        """A snapshot never changes."""


class ScopeFolderFinder:
    """The path entry finder of a folder of the scope: what is in it is what the snapshot has.

    ``pkgutil.iter_modules`` asks it.  Modules are found by :class:`ScopeFinder`, so what anybody
    finds here came to the disk after the snapshot was taken: it belongs to a later release.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._on_disk = FileFinder(folder, *_loaders_of_files())

    def find_spec(
        self,
        fullname: str,
        target: object = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        return self._on_disk.find_spec(fullname) if _table_of_folder(self._folder) is None else None

    def invalidate_caches(self) -> None:
        self._on_disk.invalidate_caches()

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        table = _table_of_folder(self._folder)
        if table is None:
            yield from pkgutil.iter_importer_modules(self._on_disk, prefix)  # type: ignore[attr-defined]
        else:
            for name, package in list_in_snapshot(table.snapshot, self._folder):
                yield prefix + name, package


def _loaders_of_files() -> list[tuple[Any, list[str]]]:
    """The loaders of files, as the import system sets them up for every folder."""
    external: Any = importlib._bootstrap_external
    loaders: list[tuple[Any, list[str]]] = external._get_supported_file_loaders()
    return loaders


def _table_of_folder(folder: str) -> ModuleTable | None:
    generations = [active.get(), *(provider() for provider in list(_providers))]
    for generation in generations:
        if generation is not None and generation.modules is not None:
            table: ModuleTable = generation.modules
            if table.snapshot.covers(folder):
                return table
    return None


def _folder_hook(folder: str) -> ScopeFolderFinder:
    if _table_of_folder(folder) is None:
        raise ImportError(f"{folder} is not a folder of the scope", path=folder)
    return ScopeFolderFinder(folder)


def _load(name: str, import_: Callable[..., ModuleType]) -> ModuleType:
    """What ``importlib`` and the interpreter call for every module that they don't have yet."""
    table = table_for(name)
    if table is not None:
        return table.import_module(name)
    token = importing_shared.set(True)
    try:
        module: ModuleType = _find_and_load(name, import_)
        return module
    finally:
        importing_shared.reset(token)


_finder = ScopeFinder()
_view = SysModules()


def install(provider: Provider) -> None:
    """Make imports ask ``provider``'s generation.  Any thread; balanced by :func:`uninstall`."""
    with _lock:
        if not _providers:
            sys.modules = _view
            sys.meta_path.insert(0, _finder)
            sys.path_hooks.insert(0, _folder_hook)
            bootstrap._find_and_load = _load
        _providers.append(provider)


def uninstall(provider: Provider) -> None:
    """Undo :func:`install`; with the last one everything is as it was before the first."""
    with _lock:
        _providers.remove(provider)
        if _providers:
            return
        bootstrap._find_and_load = _find_and_load
        sys.path_hooks.remove(_folder_hook)
        sys.meta_path.remove(_finder)
        sys.modules = _real
        for folder, finder in list(sys.path_importer_cache.items()):
            if isinstance(finder, ScopeFolderFinder):
                del sys.path_importer_cache[folder]
        _forget_proxies([])


def opened(table: ModuleTable) -> None:
    """A generation begins: folders of its snapshot are to be listed from the snapshot."""
    with _lock:
        _tables.add(table)
    for folder in table.snapshot.folders:
        if not isinstance(sys.path_importer_cache.get(folder), ScopeFolderFinder):
            sys.path_importer_cache.pop(folder, None)


def closed(table: ModuleTable) -> None:
    """A generation has ended: remove the proxies of modules that no other one has."""
    with _lock:
        _tables.discard(table)
        _forget_proxies(list(_tables))


def _forget_proxies(tables: Sequence[ModuleTable]) -> None:
    for name, module in _real.copy().items():
        if type(module) is ModuleProxy and not any(name in table.modules for table in tables):
            if name in _displaced:
                _real[name] = _displaced.pop(name)
            else:
                del _real[name]

"""Loaders: how a module of the scope gets its code, from the snapshot and never from the disk."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from genwsgi.isolation.effects import forget_types
from genwsgi.isolation.snapshot import Snapshot

if TYPE_CHECKING:
    from importlib.readers import FileReader

    from genwsgi.isolation.modules import ModuleTable

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)

#: Compiled modules inside packages of the scope, by name and content, loaded once per process: most
#: can't be twice, and none is ever unloaded.  Each release may have them in a folder of its own.
_extensions: dict[tuple[str, str], ModuleType] = {}


class SnapshotLoader(SourceFileLoader):
    """Loads one source module of a generation.  ``path`` is the real path, as ``__file__`` is."""

    def __init__(self, fullname: str, path: str, table: ModuleTable) -> None:
        super().__init__(fullname, path)
        self._table = table

    def get_data(self, path: str) -> bytes:
        """Return the content of a file: source from the snapshot, data files from the disk."""
        snapshot = self._table.snapshot
        if path in snapshot.files:
            return snapshot.source(path)
        return super().get_data(path)

    def get_resource_reader(self, name: str | None = None) -> FileReader:  # noqa: ARG002 -- importlib passes it
        """Return what reads the files of a package for :mod:`importlib.resources`."""
        from genwsgi.isolation.resources import SnapshotReader

        return SnapshotReader(self)

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 -- importlib passes it
        """Return the snapshot's bytecode of the module."""
        return self._table.snapshot.code(self.path)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code with the builtins of its generation (PEP 451)."""
        code = self.get_code(self.name)
        # ``List["Model"]`` is one object wherever it is written, and keeps the Model it found.
        forget_types()
        module.__dict__["__builtins__"] = self._table.builtins
        parent_name, _, child = self.name.rpartition(".")
        # What a package put in its own place in sys.modules may be anything.
        names = getattr(self._table.modules.get(parent_name), "__dict__", None)
        if not isinstance(names, dict):
            exec(code, module.__dict__)
            return
        # In a circular ``from package import submodule`` the interpreter falls back, in C, to a
        # table that knows nothing of generations.  Binding the submodule on its package before it
        # runs, instead of after, makes that fallback unnecessary.
        missing = object()
        before: Any = names.get(child, missing)
        names[child] = module
        try:
            exec(code, module.__dict__)
        except BaseException:
            if before is missing:
                names.pop(child, None)
            else:
                names[child] = before
            raise


class SharedExtensionLoader(ExtensionFileLoader):
    """Loads a compiled module for the first generation and hands it to all later ones."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, the same object for all generations."""
        # One that has changed where it is can't be renewed: its process has to end.
        for (name, _), module in _extensions.copy().items():
            if name == self.name and module.__file__ == self.path:
                return module
        found = _extensions.get((self.name, _content(self.path)))
        return found if found is not None else super().create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Initialise the module, unless an earlier generation did."""
        if not any(module is one for one in _extensions.copy().values()):
            super().exec_module(module)
            _extensions[self.name, _content(self.path)] = module


def _content(path: str) -> str:
    """Return a hash of the file's content; nothing if it can't be read, which loading it says."""
    try:
        found = os.stat(path)
        return _hash(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError:
        return ""


@lru_cache
def _hash(path: str, *_stat: int) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def find_in_snapshot(
    table: ModuleTable, fullname: str, path: Sequence[str] | None
) -> ModuleSpec | None:
    """Return the spec of a module as the snapshot has it, or ``None``.

    What a package's ``__path__`` has of folders that no snapshot is of, is looked for on the disk.

    :param path: the parent package's ``__path__``; ``None`` for a top-level name.
    """
    snapshot = table.snapshot
    places = snapshot.tops.get(fullname)
    if places is not None:
        if places[0] in snapshot.files:
            return _source_spec(table, fullname, places[0], None)
        return _folder_spec(table, fullname, [place for place in places if place])
    if path is None:
        return None
    tail = fullname.rpartition(".")[2]
    namespace: list[str] = []
    for entry in path:
        # Packages add to their ``__path__`` what is beside their parent, with "..".
        folder = os.path.abspath(entry)
        if not snapshot.covers(folder):
            found = PathFinder.find_spec(fullname, [entry])
            if found is not None and found.loader is not None:
                return _shared_if_compiled(found)
            namespace.extend((found and found.submodule_search_locations) or ())
            continue
        base = os.path.join(folder, tail)
        if base in snapshot.folders:
            spec = _folder_spec(table, fullname, [base])
            if spec.loader is not None:
                return spec
        if base + ".py" in snapshot.files:
            return _source_spec(table, fullname, base + ".py", None)
        for suffix in _EXTENSIONS:
            if base + suffix in snapshot.extensions:
                return importlib.util.spec_from_file_location(
                    fullname, base + suffix, loader=SharedExtensionLoader(fullname, base + suffix)
                )
        if base in snapshot.folders:
            namespace.append(base)
    return _namespace_spec(fullname, namespace) if namespace else None


def list_in_snapshot(snapshot: Snapshot, folder: str) -> list[tuple[str, bool]]:
    """Return the modules directly in ``folder`` in the snapshot, as (name, is a package)."""
    found: dict[str, bool] = {}
    for path in (*snapshot.files, *snapshot.extensions):
        parent, name = os.path.split(path)
        if parent == folder and name != "__init__.py":
            found.setdefault(name.partition(".")[0], False)
        elif name == "__init__.py" and os.path.dirname(parent) == folder:
            found[os.path.basename(parent)] = True
    return sorted(found.items())


def _shared_if_compiled(spec: ModuleSpec) -> ModuleSpec:
    if isinstance(spec.loader, ExtensionFileLoader):
        spec.loader = SharedExtensionLoader(spec.name, spec.loader.path)
    return spec


def _folder_spec(table: ModuleTable, fullname: str, folders: list[str]) -> ModuleSpec:
    for folder in folders:
        initial = os.path.join(folder, "__init__.py")
        if initial in table.snapshot.files:
            return _source_spec(table, fullname, initial, [folder])
    return _namespace_spec(fullname, folders)


def _source_spec(
    table: ModuleTable, fullname: str, path: str, search: list[str] | None
) -> ModuleSpec:
    loader = SnapshotLoader(fullname, path, table)
    spec = importlib.util.spec_from_file_location(
        fullname, path, loader=loader, submodule_search_locations=search
    )
    if spec is None:  # pragma: no cover -- only without a loader, by its documentation
        raise ImportError(f"no spec for {fullname!r}", name=fullname)
    return spec


def _namespace_spec(fullname: str, folders: list[str]) -> ModuleSpec:
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = folders
    return spec

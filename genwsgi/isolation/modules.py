"""The module table of one generation, and the ``import`` its code runs.

Every module of a generation has the generation's own copy of ``builtins``, whose ``__import__`` is
:meth:`ModuleTable.import_`: so an import statement asks the generation that the *code* belongs to,
whenever and on whatever thread it runs.
"""

from __future__ import annotations

import builtins
import importlib._bootstrap
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from genwsgi.generations.generation import Generation, active
from genwsgi.isolation.loader import find_in_snapshot
from genwsgi.isolation.snapshot import Snapshot

if TYPE_CHECKING:
    from importlib.abc import MetaPathFinder

#: The import system itself.  Its building blocks are private but have kept their names and meaning
#: from 3.10 to 3.13; tests hold them to that.
bootstrap: Any = importlib._bootstrap

_shared_import = builtins.__import__


class ModuleTable:
    """The modules of one generation.  Any thread may import through it.

    Each module is loaded under a lock of its own, which no other generation shares: a build that
    takes minutes in some module never holds up a request that imports the older version of it.

    :ivar names: the top-level names of the scope.
    :ivar modules: the generation's part of ``sys.modules``.
    :ivar on_loaded: called after each module that was loaded, with the number so far.
    """

    def __init__(self, generation: Generation, snapshot: Snapshot) -> None:
        self.generation = generation
        self.snapshot = snapshot
        self.names = frozenset(snapshot.tops)
        self.modules: dict[str, ModuleType] = {}
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self.import_}
        self.on_loaded: Callable[[int], None] | None = None

    def __repr__(self) -> str:
        return f"<ModuleTable of {self.generation.name}, {len(self.modules)} modules>"

    def owns(self, fullname: str) -> bool:
        """Whether a module of that name is the generation's own."""
        return fullname.partition(".")[0] in self.names

    def import_(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import a module, as ``builtins.__import__`` is documented to, for this generation."""
        if level:
            package = bootstrap._calc___package__(globals or {})
            fullname = bootstrap._resolve_name(name, package, level)
        else:
            fullname = name
        if fullname.partition(".")[0] not in self.names:
            return self._import_shared(name, globals, locals, fromlist, level)
        module = self.import_module(fullname)
        if fromlist:
            # Nearly always everything is there already; what is left is the rare "*" or submodule.
            for wanted in fromlist:
                if wanted == "*" or not hasattr(module, wanted):
                    if hasattr(module, "__path__"):
                        return self._handle_fromlist(module, fromlist)
                    break
            return module
        if level == 0:
            return self.import_module(fullname.partition(".")[0])
        if not name:
            return module
        top = fullname[: len(fullname) - (len(name) - len(name.partition(".")[0]))]
        return self.modules[top]

    def import_module(self, fullname: str) -> ModuleType:
        """Return the generation's module ``fullname``, loading it first if need be.

        :raises ModuleNotFoundError: the snapshot has no such module.
        """
        module = self.modules.get(fullname, _MISSING)
        if module is _MISSING or _initializing(module):
            if active.get() is self.generation:
                module = self._load(fullname)
            else:
                # The code belongs to this generation but runs on a thread that doesn't, or that
                # belongs to another one.
                module = self.generation.run(self._load, fullname)
        if module is None:
            raise ModuleNotFoundError(
                f"import of {fullname} halted; None in sys.modules", name=fullname
            )
        return module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, others: Sequence[MetaPathFinder]
    ) -> ModuleSpec:
        """Find a module of the scope: in the snapshot, else with an import hook of somebody else.

        :raises ModuleNotFoundError: there is none.  A module that came to the disk after the
            snapshot was taken is none: it belongs to a later release.
        """
        spec = find_in_snapshot(self, fullname, path)
        if spec is not None:
            return spec
        for finder in others:
            spec = finder.find_spec(fullname, path)
            if spec is not None and not self._is_newer(spec):
                return spec
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

    def loaded(self) -> None:
        """A module has been loaded: tell whoever builds."""
        if self.on_loaded is not None:
            self.on_loaded(len(self.modules))

    def close(self) -> None:
        """Forget all modules and let go of the snapshot.

        The modules' own dictionaries stay as they are: whoever still holds a function of the
        generation can still call it.
        """
        self.modules.clear()
        self.on_loaded = None
        self.snapshot.release()

    def _load(self, fullname: str) -> Any:
        with bootstrap._ModuleLockManager(f"{fullname} ({self.generation.name} {id(self):x})"):
            module = self.modules.get(fullname, _MISSING)
            if module is _MISSING:
                return bootstrap._find_and_load_unlocked(fullname, self.import_module)
            return module

    def _import_shared(
        self,
        name: str,
        globals: Mapping[str, object] | None,
        locals: Mapping[str, object] | None,
        fromlist: Sequence[str] | None,
        level: int,
    ) -> ModuleType:
        if name in sys.modules or active.get() is not None:
            return _shared_import(name, globals, locals, fromlist or (), level)
        # A shared module that is imported for the first time may itself import from the scope.
        return self.generation.run(_shared_import, name, globals, locals, fromlist or (), level)

    def _handle_fromlist(self, module: ModuleType, fromlist: Sequence[str]) -> ModuleType:
        found: ModuleType = self.generation.run(
            bootstrap._handle_fromlist, module, fromlist, self.import_module
        )
        return found

    def _is_newer(self, spec: ModuleSpec) -> bool:
        """Whether a file or folder found on disk lies where only the snapshot counts."""
        places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
        return any(self.covers(place) for place in places)

    def covers(self, place: str) -> bool:
        """Whether ``place`` lies in a folder that the snapshot is a copy of."""
        while place not in self.snapshot.folders:
            above = place.rpartition("/")[0]
            if not above or above == place:
                return False
            place = above
        return True


_MISSING: Any = object()


def _initializing(module: Any) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True

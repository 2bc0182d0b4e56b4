"""The module table of one generation, and the ``import`` its code runs.

Every module of a generation has the generation's own copy of ``builtins``, whose ``__import__`` is
:meth:`ModuleTable.import_`: so an import statement asks the generation that the *code* belongs to,
whenever and on whatever thread it runs.
"""

from __future__ import annotations

import builtins
import importlib._bootstrap
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from genwsgi.generations.generation import Generation, active
from genwsgi.isolation.asking import MARK
from genwsgi.isolation.effects import importing_shared
from genwsgi.isolation.originals import within
from genwsgi.isolation.snapshot import Snapshot

#: The import system itself.  Its building blocks are private but have kept their names and meaning
#: from 3.10 to 3.13; tests hold them to that.
bootstrap: Any = importlib._bootstrap

_shared_import = builtins.__import__
_MISSING: Any = object()


class ModuleTable:
    """The modules of one generation.  Any thread may import through it.

    Each module is loaded under a lock of its own, which no other generation shares: a build that
    takes minutes in some module never holds up a request that imports the older version of it.

    :ivar names: the names of the scope: of top-level packages, or of modules in shared packages;
        with each comes what lies below it.
    :ivar modules: the generation's part of ``sys.modules``.
    :ivar handles: give code outside of any generation a handle that always means the current one.
    :ivar on_loaded: called after each module that was loaded, with the number so far.
    :ivar on_import: called for each import statement for a shared module, with the name of the
        importing module and what it imports.
    """

    def __init__(self, generation: Generation, snapshot: Snapshot) -> None:
        self.generation = generation
        self.snapshot = snapshot
        self.names = frozenset(snapshot.tops)
        self.modules: dict[str, ModuleType] = {}
        # What code puts into ``builtins`` (``gettext.install`` does) has to be found there again.
        self._builtins = ModuleType("builtins")
        self.builtins = vars(self._builtins)
        self.builtins.update(vars(builtins), __import__=self.import_, **{MARK: self})
        self.on_loaded: Callable[[int], None] | None = None
        self.on_import: Callable[[object, str], None] | None = None
        self.closed = False
        self.handles = False

    def __repr__(self) -> str:
        return f"<ModuleTable of {self.generation.name}, {len(self.modules)} modules>"

    def owns(self, fullname: str) -> bool:
        """Whether a module of that name is the generation's own."""
        return within(fullname, self.names)

    def covers(self, folder: str) -> bool:
        """Whether the modules in ``folder`` are the generation's own."""
        return self.snapshot.covers(folder)

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
        if not self.owns(fullname):
            if fullname == "builtins":
                return self._builtins
            if self.on_import is not None and globals is not None:
                self.on_import(globals.get("__name__"), fullname)
            return self._import_shared(name, globals, locals, fromlist, level)
        module = self.import_module(fullname)
        if fromlist:
            # Nearly always everything is there already; what is left is the rare "*" or submodule.
            for wanted in fromlist:
                if wanted == "*" or not hasattr(module, wanted):
                    if hasattr(module, "__path__"):
                        return self._handle_fromlist(module, fromlist)
                    break
                # A submodule is bound to its package before it has run: another thread waits.
                if _initializing(self.modules.get(f"{fullname}.{wanted}")):
                    self.import_module(f"{fullname}.{wanted}")
            return module
        # ``import a.b`` means ``a``, which need not be ours.
        below = len(name) - len(name.partition(".")[0])
        return self._import_any(fullname[: len(fullname) - below]) if below else module

    def import_module(self, fullname: str) -> ModuleType:
        """Return the generation's module ``fullname``, loading it first if need be.

        :raises ModuleNotFoundError: the snapshot has no such module.
        :raises ImportError: the generation has been torn down.
        """
        module = self.modules.get(fullname, _MISSING)
        if module is not _MISSING and _initializing(module):
            # Waits for the thread that loads it.  In a circle of modules that two threads load
            # from both ends, it is the unfinished module that one of them gets: Python's own rule.
            bootstrap._lock_unlock_module(self._lock_name(fullname))
            module = self.modules.get(fullname, _MISSING)
        if module is _MISSING:
            # The code belongs to this generation, but may run on a thread that doesn't.
            module = self.generation.run(self._load, fullname)
        if module is None:
            raise ModuleNotFoundError(
                f"import of {fullname} halted; None in sys.modules", name=fullname
            )
        return module  # type: ignore[no-any-return]

    def loaded(self) -> None:
        """A module has been loaded: take over new builtins, and tell whoever builds."""
        for name in vars(builtins).keys() - self.builtins.keys():
            self.builtins[name] = vars(builtins)[name]
        if self.on_loaded is not None:
            self.on_loaded(len(self.modules))

    def close(self) -> None:
        """Forget all modules and let go of the snapshot.

        The modules' own dictionaries stay as they are: whoever still holds a function of the
        generation can still call it, but not import any more.
        """
        self.closed = True
        self.modules.clear()
        self.on_loaded = self.on_import = None
        self.snapshot.release()

    def _load(self, fullname: str) -> Any:
        if self.closed:
            raise _refusal(f"{self.generation.name} is {self.generation.state.value}", fullname)
        token = importing_shared.set(False)
        try:
            with bootstrap._ModuleLockManager(self._lock_name(fullname)):
                module = self.modules.get(fullname, _MISSING)
                if module is _MISSING:
                    module = bootstrap._find_and_load_unlocked(fullname, self._import_any)
                    self.loaded()
                return module
        finally:
            importing_shared.reset(token)

    def _import_any(self, fullname: str) -> ModuleType:
        """Return the module of that name, which may be a shared package with modules of ours."""
        if self.owns(fullname):
            return self.import_module(fullname)
        self._import_shared(fullname, None, None, (), 0)
        return sys.modules[fullname]

    def _lock_name(self, fullname: str) -> str:
        return f"{fullname} ({self.generation.name} {id(self):x})"

    def _import_shared(
        self,
        name: str,
        globals: Mapping[str, object] | None,
        locals: Mapping[str, object] | None,
        fromlist: Sequence[str] | None,
        level: int,
    ) -> ModuleType:
        if active.get() is not self.generation:
            # A shared module that is imported for the first time may import from the scope.
            return self.generation.run(self._import_shared, name, globals, locals, fromlist, level)
        if name in sys.modules:
            return _shared_import(name, globals, locals, fromlist or (), level)
        # The interpreter's own import might take another generation's module for it.
        module: ModuleType = bootstrap.__import__(name, globals, locals, fromlist or (), level)
        return module

    def _handle_fromlist(self, module: ModuleType, fromlist: Sequence[str]) -> ModuleType:
        found: ModuleType = self.generation.run(
            bootstrap._handle_fromlist, module, fromlist, self.import_module
        )
        return found


class EndedTable:
    """Stands in for the table of a generation that has been torn down.

    Old threads and kept contexts may still name that generation: of all that it was, they keep only
    this alive, which knows whose the names were and refuses them.

    :ivar names: the names of the scope that the generation had.
    :ivar what: which generation it was and how it ended, for errors.
    :ivar ended: the table itself, as long as something holds it.
    """

    closed = True
    handles = False

    def __init__(self, table: ModuleTable) -> None:
        self.names = table.names
        self.what = f"{table.generation.name} is {table.generation.state.value}"
        self.ended = weakref.ref(table)

    def __repr__(self) -> str:
        return f"<EndedTable: {self.what}>"

    @property
    def modules(self) -> dict[str, ModuleType]:
        """No modules, whatever anybody puts there."""
        return {}

    def owns(self, fullname: str) -> bool:
        """Whether a module of that name was the generation's own."""
        return within(fullname, self.names)

    def covers(self, folder: str) -> bool:  # noqa: ARG002 -- as ModuleTable's
        """Whether the modules in ``folder`` are the generation's: it has none any more."""
        return False

    def import_module(self, fullname: str) -> ModuleType:
        """Refuse.

        :raises ImportError: always.
        """
        raise _refusal(self.what, fullname)


def _refusal(what: str, fullname: str) -> ImportError:
    return ImportError(
        f"{what}, its code imports nothing more: {fullname!r} was asked for", name=fullname
    )


def _initializing(module: Any) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True

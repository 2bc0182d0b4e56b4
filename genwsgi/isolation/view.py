"""``sys.modules`` and the interpreter's own table of modules, as each generation sees them.

``real`` is the interpreter's own dict, which C code reads (``pickle``, the import system).  For
each name in the scope of some living generation it has a :class:`ModuleProxy`; what it had there
before is in ``_displaced``.  :class:`SysModules` is what Python code finds as ``sys.modules``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterator, Sequence
from types import ModuleType
from typing import Any

from genwsgi.isolation.asking import asking
from genwsgi.isolation.byhand import adopt, being_loaded
from genwsgi.isolation.effects.claims import MISSING
from genwsgi.isolation.effects.entries import changing
from genwsgi.isolation.lookup import Table, lock, table_for, tables
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.originals import Live

#: The interpreter's own table of modules.
real: dict[str, ModuleType] = sys.modules
#: Shared modules under names that are in the scope of some living generation, but not of all: a
#: proxy has their place in the real dict, and they are put back when it goes.
_displaced: dict[str, ModuleType] = {}
#: Top-level packages that the host program had loaded before anything was served: it has them.
_hosts: set[str] = set()


class ModuleProxy(ModuleType):
    """Stands in the interpreter's own table for whichever module the asking generation means."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__spec__":
            _load_if_lost(self)
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
    shared: ModuleType | None = _shared(name, None)
    if shared is None:
        raise AttributeError(f"module {name!r} belongs to a generation that does not run here")
    return shared


def _load_if_lost(proxy: ModuleProxy) -> None:
    """Load the shared module that a proxy stands for here, if :func:`drop_shared` has dropped it.

    An import statement of shared code finds the proxy in the real dict, takes it for the module,
    and asks nothing of it but whether it is still being loaded, by its ``__spec__``.
    """
    name: str = ModuleType.__getattribute__(proxy, "__name__")
    if table_for(name) is None and _shared(name, None) is None:
        importlib.import_module(name)


def _shared(name: object, default: Any) -> Any:
    """Return the shared module of that name, which a proxy may hide."""
    module = real.get(name, default)  # type: ignore[call-overload]
    return _displaced.get(name, default) if type(module) is ModuleProxy else module  # type: ignore[call-overload]


def shared_modules() -> dict[str, ModuleType]:
    """Return the modules that belong to no generation, by their names."""
    with lock:
        found = {n: m for n, m in real.copy().items() if type(m) is not ModuleProxy}
        return {**found, **_displaced}


def handle_of(name: str, module: ModuleType) -> ModuleType:
    """Return what code outside of any generation is to hold: not ``module``, which will be old."""
    return real.get(name, module) if asking() is None else module


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
        if table is None:
            return _shared(name, default)
        module = table.modules.get(name, default)
        return handle_of(name, module) if table.handles and module is not default else module

    def __contains__(self, name: object) -> bool:
        table = table_for(name)
        if table is None:
            return _shared(name, _MISSING) is not _MISSING
        return name in table.modules

    def __setitem__(self, name: str, module: ModuleType) -> None:
        table = table_for(name)
        with lock:
            before = real.get(name, _MISSING)
            hidden = type(before) is ModuleProxy
            if table is None:
                shared = _displaced if hidden else real
                changing(shared, name, module)
                shared[name] = module
                return
            # Whoever loads it, and from wherever: the code is to ask this generation.
            if isinstance(table, ModuleTable) and being_loaded(name, module):
                adopt(module.__dict__, table)
            table.modules[name] = module
            if not hidden and not issubclass(type(before), Live) and not table.closed:
                if before is not _MISSING:
                    _displaced[name] = before
                real[name] = ModuleProxy(name)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def pop(self, name: str, *default: Any) -> Any:
        table = table_for(name)
        if table is not None:
            return table.modules.pop(name, *default)
        with lock:
            shared = _displaced if type(real.get(name)) is ModuleProxy else real
            if name in shared:
                changing(shared, name, MISSING)
            return shared.pop(name, *default)

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
        answering = tables()
        for name, module in real.copy().items():
            if type(module) is not ModuleProxy:
                merged[name] = module
        for name, module in _displaced.copy().items():
            if _first(answering, name) is None:
                merged[name] = module
        for table in answering:
            for name, module in table.modules.copy().items():
                if _first(answering, name) is table:
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


def _first(answering: Sequence[Table], name: object) -> Table | None:
    for table in answering:
        if isinstance(name, str) and table.owns(name):
            return table
    return None


def drop_shared(tops: Collection[str]) -> None:
    """Forget the shared modules of these top-level packages.

    For whoever still means the shared ones, the next import loads them anew; references that code
    holds stay good.  Any thread, but not while a generation that shares them is to be kept whole.

    :param tops: top-level names, like ``"swapper"``.
    """
    with lock:
        for modules in (real, _displaced):
            for name, module in modules.copy().items():
                if type(module) is not ModuleProxy and name.partition(".")[0] in tops:
                    del modules[name]


def begin() -> None:
    """Something is about to be served: what is loaded now is the host program's."""
    with lock:
        _hosts.clear()
        _hosts.update(name.partition(".")[0] for name in real.copy())


def drop_disused(living: Collection[Table]) -> None:
    """Forget the shared copies that no generation uses any more.

    A package that has moved into the scope would otherwise be kept for ever, and with it whatever
    older generations had left in it.
    """
    with lock:
        tops = {name.partition(".")[0] for name in _displaced} - _hosts
        if living and tops:
            drop_shared({top for top in tops if all(top in table.names for table in living)})


def forget_proxies(living: Collection[Table]) -> None:
    """Remove the proxies of modules that no living generation has; put back what they hid."""
    with lock:
        for name, module in real.copy().items():
            if type(module) is ModuleProxy and not any(name in t.modules for t in living):
                if name in _displaced:
                    real[name] = _displaced.pop(name)
                else:
                    del real[name]

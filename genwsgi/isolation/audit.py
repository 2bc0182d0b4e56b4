"""Which shared packages hold something that a living generation defines.

A registry in a shared package (a signal's receivers, adapters by class) hands one generation's
objects to all of them, so the package belongs in the scope.  Looked at is what the globals of the
package's modules, and the attributes of its classes, refer to.  No foreign code runs: see
:mod:`genwsgi.isolation.holders`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextvars import Context, ContextVar, Token
from types import FunctionType, MethodType, ModuleType
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.holders import belongs, find, names_of
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.view import ModuleProxy, real

#: References from a module's globals to what it holds: attributes, a container or two, a partial.
DEPTH = 8

#: What one package may cost.
OBJECTS = 100_000
SECONDS = 2.0

#: What leads to whatever runs at the moment, and is nobody's registry.
_PASSING = frozenset({Context, ContextVar, Token, Generation, ModuleTable, ModuleProxy})


def audit(
    packages: Mapping[str, Collection[str]], tables: Collection[ModuleTable]
) -> dict[str, str]:
    """Return the packages that hold something of the generations, and what.

    Takes its time: it lets other threads run in between.

    :param packages: shared packages, each with the names of its loaded modules.
    :param tables: of the living generations.
    """
    living = [(table.builtins, table.modules) for table in tables]
    builtins = {id(names) for names, _ in living}

    def wanted(obj: Any) -> bool:
        if type(obj) is FunctionType:
            return id(obj.__builtins__) in builtins  # type: ignore[attr-defined]
        return any(belongs(obj, names, modules) for names, modules in living)

    found = {}
    for name, modules in sorted(packages.items()):
        search = find(
            _roots(name, modules),
            wanted,
            through_modules=False,
            weak=True,
            skip=lambda obj: type(obj) in _PASSING,
            depth=DEPTH,
            objects=OBJECTS,
            seconds=SECONDS,
        )
        if search.path is not None:
            found[name] = f"holds {called(search.path.objects[-1])} ({search.path.root})"
    return found


def called(obj: Any) -> str:
    """Return what a function, class or module is called, without running code of its."""
    names = names_of(obj)
    if names is not None and issubclass(type(obj), ModuleType):
        return str(names.get("__name__"))
    if type(obj) is FunctionType:
        return f"{obj.__module__}.{obj.__qualname__}"
    if names is not None:
        qualname = vars(type)["__qualname__"].__get__(obj)
        return f"{names.get('__module__')}.{qualname}"
    if type(obj) is MethodType:
        return called(obj.__func__)
    return f"something of type {type(obj).__name__}"


def _roots(package: str, modules: Collection[str]) -> Iterator[tuple[str, object]]:
    """Yield what the package's modules have in their globals, and what its classes have."""
    for module in modules:
        for name, value in dict(names_of(real.get(module)) or {}).items():
            kind = type(value)
            if name.startswith("__"):
                continue
            yield f"{module}.{name}", value
            attributes = names_of(value) if issubclass(kind, type) else None
            if attributes is not None and _top(attributes.get("__module__")) == package:
                for attribute, inner in list(attributes.items()):
                    yield f"{module}.{name}.{attribute}", inner


def _top(name: object) -> str:
    return name.partition(".")[0] if type(name) is str else ""

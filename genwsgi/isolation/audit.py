"""Which shared packages hold something that a living generation defines.

A registry in a shared package (a signal's receivers, adapters by class) hands one generation's
objects to all of them, so the package belongs in the scope.  Looked at is what the globals of the
package's modules, and the attributes of its classes, refer to.  Weakly held functions count (they
would be called for other generations' requests), weakly held classes and instances don't (caches).

No foreign code runs, as in :mod:`genwsgi.isolation.holders`.  Its search is for one object on the
whole heap; this one looks at some ten thousand objects in each build, nearly all of which are
functions that lead nowhere.
"""

from __future__ import annotations

import builtins
import gc
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import Context, ContextVar, Token
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.holders import belongs, names_of
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.view import ModuleProxy, real

#: References from a module's globals to what it holds: attributes, a container or two, a partial.
DEPTH = 8

#: What one package may cost.
OBJECTS = 100_000

#: After so many objects others get the processor, for :data:`PAUSE` seconds.
SLICE = 1000
PAUSE = 0.0005

#: What leads nowhere, or to whatever runs at the moment and is nobody's registry.
_LEAVES = frozenset(
    {
        *(bool, bytes, complex, float, int, range, str, type(None), type(Ellipsis), ModuleProxy),
        *(BuiltinFunctionType, CodeType, FrameType, GeneratorType),
        *(GetSetDescriptorType, MemberDescriptorType),
        *(Context, ContextVar, Token, Generation, ModuleTable),
    }
)
#: What a root is called, part by part, and its object.
_Root = tuple[tuple[str, ...], Any]

#: Attributes of classes that are for type checkers, or made by the interpreter.
_TYPING = frozenset(
    {
        *("__annotations__", "__annotations_cache__", "__annotate__", "__annotate_func__"),
        *("__parameters__", "__orig_bases__", "__type_params__", "__abstractmethods__"),
        *("__match_args__", "__static_attributes__", "__dataclass_fields__", "_abc_impl"),
    }
)
_process = vars(builtins)
_name_of_class: Callable[[type], str] = vars(type)["__name__"].__get__
_target: Callable[[Any], object] = weakref.ref.__call__


def audit(
    packages: Mapping[str, Collection[str]], tables: Collection[ModuleTable]
) -> dict[str, str]:
    """Return the packages that hold something of the generations, and what.

    Any thread; others run in between.

    :param packages: shared packages, each with the names of its loaded modules.
    :param tables: of the living generations.
    """
    look = _Look(tables)
    found = {}
    for name, modules in sorted(packages.items()):
        held = look.into(_roots(modules))
        if held is not None:
            found[name] = f"holds {called(held[1])} ({'.'.join(held[0])})"
    return found


def called(obj: Any) -> str:
    """Return what a function, class or module is called, without running code of its."""
    if type(obj) is MethodType:
        obj = obj.__func__
    if type(obj) is FunctionType:
        return f"{obj.__module__}.{obj.__qualname__}"
    names = names_of(obj)
    if names is None:
        return f"something of type {type(obj).__name__}"
    if issubclass(type(obj), ModuleType):
        return str(names.get("__name__"))
    return f"{names.get('__module__')}.{vars(type)['__qualname__'].__get__(obj)}"


def _roots(modules: Iterable[str]) -> Iterator[_Root]:
    """Yield what the modules have in their globals, and what their classes have."""
    for module in modules:
        for name, value in dict(names_of(real.get(module)) or {}).items():
            kind = type(value)
            if kind in _LEAVES or (kind is FunctionType and _is_plain(value)) or name[:2] == "__":
                continue
            yield (module, name), value
            attributes = names_of(value) if issubclass(kind, type) else None
            if attributes is not None and attributes.get("__module__") == module:
                for attribute, inner in dict(attributes).items():
                    kind = type(inner)
                    if kind in _LEAVES or (kind is FunctionType and _is_plain(inner)):
                        continue
                    if attribute not in _TYPING:
                        yield (module, name, attribute), inner


class _Look:
    """Looks for what belongs to the generations with these tables."""

    def __init__(self, tables: Collection[ModuleTable]) -> None:
        self._living = [(table.builtins, table.modules) for table in tables]
        self._builtins = {id(builtins) for builtins, _ in self._living}
        self._classes: dict[type, bool] = {}

    def into(self, roots: Iterable[_Root]) -> _Root | None:
        """Return what the roots lead to that belongs to a generation, and from which root."""
        seen: set[int] = set()
        level = list(roots)
        count = 0
        for _ in range(DEPTH):
            following: list[_Root] = []
            for root, obj in level:
                kind = type(obj)
                if kind in _LEAVES or id(obj) in seen:
                    continue
                seen.add(id(obj))
                count += 1
                if count % SLICE == 0:
                    time.sleep(PAUSE)
                if self._belongs(obj, kind):
                    return root, obj
                following += [(root, inner) for inner in _inside(obj, kind)]
            if not following or count > OBJECTS:
                break
            level = following
        return None

    def _belongs(self, obj: Any, kind: type) -> bool:
        if kind is FunctionType:
            return id(obj.__builtins__) in self._builtins
        if kind is dict:
            return id(obj.get("__builtins__")) in self._builtins
        if issubclass(kind, type):
            known = self._classes.get(obj)
            if known is None:
                known = self._classes[obj] = not _is_global(obj) and self._any(obj)
            return known
        return issubclass(kind, ModuleType | MethodType) and self._any(obj)

    def _any(self, obj: Any) -> bool:
        return any(belongs(obj, builtins, modules) for builtins, modules in self._living)


def _is_global(cls: Any) -> bool:
    """Whether a class is found in a shared module under its name: what it has is looked at there.

    Most are, and asking all their methods whose they are would take longest of all.
    """
    names: Any = names_of(cls)
    module = names.get("__module__")
    inside = names_of(real.get(module)) if type(module) is str else None
    return inside is not None and inside.get(_name_of_class(cls)) is cls


def _is_plain(function: Any) -> bool:
    """Whether a function is of shared code and holds nothing, as nearly all are."""
    return (
        function.__builtins__ is _process
        and function.__closure__ is None
        and function.__defaults__ is None
        and function.__kwdefaults__ is None
    )


def _inside(obj: Any, kind: type) -> Collection[Any]:
    """Return what ``obj`` holds by itself: nothing that it has from its class or module."""
    if kind is FunctionType:
        held = [*(obj.__defaults__ or ()), *(obj.__kwdefaults__ or {}).values()]
        if obj.__closure__:
            # A wrapper; others are not asked for their attributes, because that would make a dict
            # for each of them.
            held += [*obj.__closure__, *obj.__dict__.values()]
        return held
    if issubclass(kind, (type, ModuleType)) or (kind is dict and "__builtins__" in obj):
        return ()
    found = gc.get_referents(obj)
    # The collector knows nothing of instances that have but slots, or nothing at all.
    found.append(kind)
    if issubclass(kind, weakref.ref):
        target = _target(obj)
        if type(target) is FunctionType:
            found.append(target)
    return found

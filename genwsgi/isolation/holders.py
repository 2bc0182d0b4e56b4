"""Whether an object belongs to a generation, and what path of references leads to one that does.

A generation's code is known by its builtins: every function, frame and module of it has the very
dict that its module table made.  So nothing is asked of the objects themselves: an attribute or a
comparison may be foreign code (a proxy), and is never used here.  References are followed forward
with :func:`gc.get_referents`, which runs in C, in slices between which other threads run: see
:func:`direct`.

Any thread may search.  What has been visited is kept alive until the search has ended.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import (
    CodeType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

#: Objects visited before others get the processor, for :data:`PAUSE` seconds.
SLICE = 1000
PAUSE = 0.001

#: What leads nowhere.
_LEAVES = frozenset(
    {
        *(bool, bytearray, bytes, complex, float, int, range, str, type(None), type(Ellipsis)),
        *(CodeType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType),
        WrapperDescriptorType,
    }
)
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE

_dict_of_module: Callable[[ModuleType], dict[str, Any]] = vars(ModuleType)["__dict__"].__get__
_dict_of_class: Callable[[type], Mapping[str, Any]] = vars(type)["__dict__"].__get__
_bases_of_class: Callable[[type], tuple[type, ...]] = vars(type)["__bases__"].__get__
_flags_of_class: Callable[[type], int] = vars(type)["__flags__"].__get__
_qualname_of_class: Callable[[type], str] = vars(type)["__qualname__"].__get__
_dereference: Callable[[Any], object] = weakref.ref.__call__


def names_of(obj: Any) -> Mapping[str, Any] | None:
    """Return the names in a module or a class, without running code of its; for others None."""
    kind = type(obj)
    if issubclass(kind, ModuleType):
        return _dict_of_module(obj)
    return _dict_of_class(obj) if issubclass(kind, type) else None


def belongs(
    obj: Any, builtins: Mapping[str, Any], modules: Mapping[str, ModuleType] | None = None
) -> bool:
    """Whether ``obj`` itself belongs to the generation with these ``builtins``.

    True of its functions and methods, modules and their dicts, frames, and of classes that have
    a method of its.  What only refers to such an object (an instance, a list, a partial) does not
    belong: the path to it is what :func:`find` finds.

    :param builtins: ``ModuleTable.builtins``.
    :param modules: ``ModuleTable.modules``: tells classes without methods too, by their names.
    """
    kind = type(obj)
    if kind is FunctionType:
        return obj.__builtins__ is builtins
    if kind is MethodType:
        return belongs(obj.__func__, builtins)
    if kind is dict:
        return obj is builtins or obj.get("__builtins__") is builtins
    if kind is FrameType:
        return obj.f_builtins is builtins
    if issubclass(kind, ModuleType):
        return _dict_of_module(obj).get("__builtins__") is builtins
    if issubclass(kind, type):
        return _class_belongs(obj, builtins, modules)
    return False


def _class_belongs(
    cls: type, builtins: Mapping[str, Any], modules: Mapping[str, ModuleType] | None
) -> bool:
    if not _flags_of_class(cls) & _HEAP_TYPE:
        return False
    names = _dict_of_class(cls)
    for value in names.copy().values():  # type: ignore[attr-defined]
        kind = type(value)
        if kind is staticmethod or kind is classmethod:
            value = value.__func__
        elif kind is property:
            value = value.fget
        if type(value) is FunctionType and value.__builtins__ is builtins:  # type: ignore[attr-defined,unused-ignore]
            return True
    module = names.get("__module__")
    if modules is None or type(module) is not str or module not in modules:
        return False
    found: Any = modules[module]
    for part in _qualname_of_class(cls).split("."):
        if part == "<locals>":
            return True  # made by a function: there is but its module's name to go by
        inside = names_of(found)
        found = None if inside is None else inside.get(part)
    return found is cls


@dataclass(frozen=True)
class Path:
    """References from a root to an object that was searched for.

    :ivar root: what the first object is called, in words.
    :ivar objects: from the root's object to the one found, each referring to the next.
    """

    root: str
    objects: tuple[object, ...]


@dataclass(frozen=True)
class Search:
    """How a search ended.

    :ivar path: a shortest path, or ``None``.
    :ivar complete: whether everything was visited; without, the budget was spent.
    :ivar visited: how many objects were.
    """

    path: Path | None
    complete: bool
    visited: int


def find(
    roots: Iterable[tuple[str, object]],
    wanted: Callable[[object], bool],
    *,
    through_modules: bool = True,
    weak: bool = False,
    skip: Callable[[object], bool] | None = None,
    depth: int = 1000,
    objects: int = 2_000_000,
    seconds: float = 60.0,
) -> Search:
    """Search forward from ``roots``, breadth first, for the first object that is ``wanted``.

    :param roots: objects to begin with, each with what to call it.
    :param wanted: mostly :func:`belongs`; as it, must run no foreign code.
    :param through_modules: follow what is everybody's: modules, the attributes of classes, and
        the globals of functions and frames.  Without it the search is for what the roots
        themselves hold.
    :param weak: follow weak references to functions and methods (signal receivers) as well.
    :param skip: objects not to look at, nor into.
    :param depth: the most references on a path.
    :param objects, seconds: the budget.
    """
    names: list[str] = []
    order: list[object] = []
    parents: list[int] = []  # of a root: minus its number, minus one
    seen: set[int] = set()
    for name, obj in roots:
        if id(obj) not in seen and not (skip is not None and skip(obj)):
            seen.add(id(obj))
            order.append(obj)
            names.append(name)
            parents.append(-len(names))
            if wanted(obj):
                return Search(_path(len(order) - 1, order, parents, names), True, len(order))
    ends = time.monotonic() + seconds
    level, next_level = 0, len(order)
    at = 0
    while at < len(order):
        if at == next_level:
            level, next_level = level + 1, len(order)
        if level >= depth:
            break
        if at % SLICE == SLICE - 1:
            time.sleep(PAUSE)
            if time.monotonic() > ends or len(order) > objects:
                return Search(None, False, len(order))
        for child in referents(order[at], through_modules=through_modules, weak=weak):
            if id(child) in seen or type(child) in _LEAVES:
                continue
            if skip is not None and skip(child):
                continue
            seen.add(id(child))
            order.append(child)
            parents.append(at)
            if wanted(child):
                return Search(_path(len(order) - 1, order, parents, names), True, len(order))
        at += 1
    return Search(None, True, len(order))


def referents(obj: Any, *, through_modules: bool = True, weak: bool = False) -> list[Any]:
    """Return what ``obj`` refers to; the arguments are those of :func:`find`."""
    kind = type(obj)
    if not through_modules:
        if issubclass(kind, ModuleType):
            return []
        if issubclass(kind, type):
            return [*_bases_of_class(obj), kind]
    found = direct(obj)
    if kind is FunctionType and not through_modules:
        found = [one for one in found if one is not obj.__globals__ and one is not obj.__builtins__]
    elif kind is FrameType and not through_modules:
        others = (obj.f_globals, obj.f_builtins, obj.f_back)
        found = [one for one in found if not any(one is other for other in others)]
    elif issubclass(kind, weakref.ref) and weak:
        target = _dereference(obj)
        if type(target) is FunctionType or type(target) is MethodType:
            found.append(target)
    return found


def direct(obj: Any) -> list[Any]:
    """Return what ``obj`` refers to, as :func:`gc.get_referents` does where that does no harm.

    CPython 3.12 shows the collector the iterators of futures that it has freed and keeps for later.
    One that was taken from there is freed a second time when it is let go: their list becomes a
    circle, in which the next collection goes round for ever.
    """
    if type(obj) is ModuleType and obj.__dict__.get("__name__") == "_asyncio":
        return [obj.__dict__]
    return gc.get_referents(obj)


def _path(at: int, order: list[object], parents: list[int], names: list[str]) -> Path:
    objects = []
    while at >= 0:
        objects.append(order[at])
        at = parents[at]
    return Path(names[-at - 1], tuple(reversed(objects)))

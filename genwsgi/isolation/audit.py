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
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
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

#: So many objects of a kind are looked at in one go.  After :data:`WORK` seconds others get the
#: processor, for :data:`PAUSE` seconds: as little as lets a thread that waits for it have it, which
#: no pause at all would not.  Not more often: each pause lasts as long as requests like, and what
#: the search has in its hands can't be collected meanwhile.
SLICE = 1000
WORK = 0.002
PAUSE = 0.00001

#: How long a search waits for the end of another, or of a collection, and between two looks
#: whether it has come, in seconds.
PATIENCE, LOOK = 10.0, 0.002

#: What leads nowhere, or to whatever runs at the moment and is nobody's registry.
_LEAVES = frozenset(
    {
        *(bool, bytes, complex, float, int, range, str, type(None), type(Ellipsis), ModuleProxy),
        *(BuiltinFunctionType, CodeType, FrameType, GeneratorType),
        *(GetSetDescriptorType, MemberDescriptorType),
        *(Context, ContextVar, Token, Generation, ModuleTable),
    }
)
#: A module or a class in it, part by part, and what it has.
_Place = tuple[tuple[str, ...], dict[str, Any]]

#: What the interpreter puts into modules.
_OF_MODULES = ("__builtins__", "__loader__", "__spec__", "__path__", "__doc__", "__file__")
#: Attributes of classes that are for type checkers, or made by the interpreter.
_OF_CLASSES = (
    *("__annotations__", "__annotations_cache__", "__annotate__", "__annotate_func__"),
    *("__parameters__", "__orig_bases__", "__type_params__", "__abstractmethods__"),
    *("__match_args__", "__static_attributes__", "__dataclass_fields__", "_abc_impl"),
)
_process = vars(builtins)
_name_of_class: Callable[[type], str] = vars(type)["__name__"].__get__
_target: Callable[[Any], object] = weakref.ref.__call__


#: Held by whoever searches, and by whoever collects: what a search has in its hands looks as if it
#: were held by somebody.  It is taken by itself, and no code of the application's runs under it.
_searching = threading.Lock()


@contextmanager
def no_search(timeout: float) -> Iterator[None]:
    """Wait at most ``timeout`` seconds until nobody searches, and let nobody begin meanwhile."""
    deadline = time.monotonic() + timeout
    # Not by waiting for the lock: under gevent, which has not replaced it, that would stop whoever
    # holds it as well.
    while not (alone := _searching.acquire(blocking=False)) and time.monotonic() < deadline:
        time.sleep(LOOK)
    try:
        yield
    finally:
        if alone:
            _searching.release()


def audit(
    packages: Mapping[str, Collection[str]], tables: Collection[ModuleTable]
) -> dict[str, str]:
    """Return the packages that hold something of the generations, and what.

    Any thread; others run in between, but no other search and no collection.

    :param packages: shared packages, each with the names of its loaded modules.
    :param tables: of the living generations.
    """
    with no_search(PATIENCE):
        return _holding(packages, tables)


def _holding(
    packages: Mapping[str, Collection[str]], tables: Collection[ModuleTable]
) -> dict[str, str]:
    look = _Look(tables)
    places = {name: list(_places(modules)) for name, modules in sorted(packages.items())}
    together = [obj for found in places.values() for _, names in found for obj in names.values()]
    # Nearly always nothing of them holds anything, and one search is enough to know that.
    if look.search(together, OBJECTS * len(places)) is None:
        return {}
    found = {}
    for name, there in places.items():
        held = look.nearest(there)
        if held is not None:
            found[name] = held
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


def _places(modules: Iterable[str]) -> Iterator[_Place]:
    """Yield what the modules have in their globals, and what their classes have."""
    for module in modules:
        names = _without(names_of(real.get(module)), _OF_MODULES)
        yield (module,), names
        classes = {kind for kind in map(type, names.values()) if issubclass(kind, type)}
        for name, value in names.items():
            if type(value) in classes:
                own = names_of(value)
                if own is not None and own.get("__module__") == module:
                    yield (module, name), _without(own, _OF_CLASSES)


def _without(names: Any, left_out: Iterable[str]) -> dict[str, Any]:
    """Return a copy of the names in a module or class, made in one step."""
    found: dict[str, Any] = {} if names is None else names.copy()
    for name in left_out:
        found.pop(name, None)
    return found


class _Look:
    """Looks for what belongs to the generations with these tables."""

    def __init__(self, tables: Collection[ModuleTable]) -> None:
        self._living = [(table.builtins, table.modules) for table in tables]
        self._builtins = {id(builtins) for builtins, _ in self._living}
        self._classes: dict[type, bool] = {}
        self._pause_at = time.monotonic() + WORK

    def nearest(self, places: list[_Place]) -> str | None:
        """Return in words what of a generation the places lead to in the fewest steps, if any."""
        every = [obj for _, names in places for obj in names.values()]
        for depth in range(1, DEPTH + 1):
            if self.search(every, OBJECTS, depth) is None:
                continue
            for path, names in places:
                for name, obj in names.items():
                    held = self.search([obj], OBJECTS, depth)
                    if held is not None:
                        return f"holds {called(held)} ({'.'.join((*path, name))})"
        return None

    def search(self, objects: list[Any], most: int, depth: int = DEPTH) -> Any:
        """Return something that belongs to a generation and that the objects lead to, or ``None``.

        Level by level, and of each level kind by kind: there are many objects and few kinds.

        :param most: how many objects to look at, about.
        :param depth: how many levels to look at.
        """
        seen: set[int] = set()
        # Nothing may take the place of what has been seen.
        kept: list[Any] = []
        level: dict[int, Any] = {}
        _add(level, objects)
        for _ in range(depth):
            for known in level.keys() & seen:
                del level[known]
            if not level or len(seen) > most:
                break
            seen |= level.keys()
            kept += level.values()
            kinds: defaultdict[type, list[Any]] = defaultdict(list)
            for obj in level.values():
                kinds[type(obj)].append(obj)
            level = {}
            for kind in kinds:
                for start in range(0, len(kinds[kind]), SLICE):
                    self._breathe()
                    found = self._through(kind, kinds[kind][start : start + SLICE], level)
                    if found is not None:
                        return found
        return None

    def _breathe(self) -> None:
        if time.monotonic() >= self._pause_at:
            time.sleep(PAUSE)
            self._pause_at = time.monotonic() + WORK

    def _through(self, kind: type, objects: list[Any], level: dict[int, Any]) -> Any:
        """Return one of the objects, which are of one kind, that belongs to a generation.

        Add to ``level`` what they hold by themselves: nothing that they have from class or module.
        """
        if kind is FunctionType:
            for function in objects:
                if id(function.__builtins__) in self._builtins:
                    return function
                if not _is_plain(function):
                    _add(level, _held_by(function))
            return None
        if issubclass(kind, type):
            return next(filter(self._is_theirs, objects), None)
        if issubclass(kind, ModuleType | MethodType):
            found = next(filter(self._any, objects), None)
            if found is not None or issubclass(kind, ModuleType):
                return found
        if kind is dict:
            for names in objects:
                if id(names.get("__builtins__")) in self._builtins:
                    return names
            objects = [names for names in objects if "__builtins__" not in names]
        # The collector knows nothing of instances that have but slots, or nothing at all.
        _add(level, [kind])
        _add(level, gc.get_referents(*objects))
        if issubclass(kind, weakref.ref):
            _add(level, [held for held in map(_target, objects) if type(held) is FunctionType])
        return None

    def _is_theirs(self, cls: type) -> bool:
        known = self._classes.get(cls)
        if known is None:
            known = self._classes[cls] = not _is_global(cls) and self._any(cls)
        return known

    def _any(self, obj: Any) -> bool:
        return any(belongs(obj, builtins, modules) for builtins, modules in self._living)


def _add(level: dict[int, Any], objects: Iterable[Any]) -> None:
    """Add those of the objects that may lead somewhere, each once: most are named again and again.

    What is left out here takes no memory until the end of the search.
    """
    level.update({id(obj): obj for obj in objects if type(obj) not in _LEAVES})


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


def _held_by(function: Any) -> list[Any]:
    """Return what a function holds."""
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    if function.__closure__:
        # A wrapper; others are not asked for their attributes, because that would make a dict for
        # each of them.
        held += [*function.__closure__, *function.__dict__.values()]
    return held

"""What the standard library keeps of the values that generations give it.

``urlsplit`` keeps its latest 128 arguments, ``fnmatch`` 32,768: and of one that is a ``SafeString``
the class, and with it the generation that made this class.  A cache that has something of a
generation when that ends is emptied; any other stays as it is, for requests have warmed it.  From a
registry the generation's entries are taken away.

As in :mod:`genwsgi.isolation.holders`, nothing is asked of the objects themselves.
"""

from __future__ import annotations

import functools
import gc
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from types import FunctionType, MethodType, ModuleType
from typing import Any

from genwsgi.isolation.holders import belongs, names_of

_CachedFunction = type(functools.lru_cache(int))
#: What a cache's keys are made of, besides the arguments: looked into, so many levels deep.
_CONTAINERS = frozenset({tuple, frozenset, dict, re.Pattern})
_FUNCTIONS = frozenset({FunctionType, MethodType})
DEPTH = 4

#: Caches that are plain dicts: where they are, as a module and names in it.
CACHES = (("re", "_cache"), ("re", "_cache2"), ("_strptime", "_regex_cache"))
#: Dicts of which others need what they have put there: two ``POINTER(c_int)`` have to be the same.
REGISTRIES = (
    *(("ctypes", "_pointer_type_cache"), ("ctypes", "_c_functype_cache")),
    ("multiprocessing.reduction", "ForkingPickler._extra_reducers"),
    *(("shutil", "_ARCHIVE_FORMATS"), ("shutil", "_UNPACK_FORMATS")),
)

#: Modules that have been looked through, by name, and the cached functions that they have.
_known: dict[str, tuple[ModuleType, list[Any]]] = {}


def forget_cached(builtins: Mapping[str, Any], modules: Mapping[str, ModuleType]) -> None:
    """Make the standard library forget what belongs to a generation.  Any thread.

    :param builtins, modules: of its table, which is still open.
    """
    is_theirs = _Theirs(builtins, modules)
    for function in _cached_functions():
        if is_theirs.among(_entries(function)):
            function.cache_clear()
    for cache in _dicts(CACHES):
        if is_theirs.among([cache.copy()]):
            cache.clear()
    for registry in _dicts(REGISTRIES):
        for key, value in registry.copy().items():
            if is_theirs.among([key, value]):
                registry.pop(key, None)


class _Theirs:
    """Tells what belongs to one generation; each class is looked at once."""

    def __init__(self, builtins: Mapping[str, Any], modules: Mapping[str, ModuleType]) -> None:
        self._builtins, self._modules = builtins, modules
        self._classes: dict[type, bool] = {}

    def among(self, objects: list[Any]) -> bool:
        """Whether one of them, or of what is in tuples and the like, is or is made by its code."""
        for _ in range(DEPTH):
            # Sets and lists that are made in C: there may be some ten thousand, and few kinds.
            kinds = set(map(type, objects))
            if any(map(self._class, kinds)):
                return True
            if any(belongs(obj, self._builtins) for obj in _of(kinds & _FUNCTIONS, objects)):
                return True
            classes = {kind for kind in kinds if issubclass(kind, type)}
            if any(map(self._class, set(_of(classes, objects)))):
                return True
            objects = gc.get_referents(*_of(kinds & _CONTAINERS, objects))
        return False

    def _class(self, cls: type) -> bool:
        known = self._classes.get(cls)
        if known is None:
            known = self._classes[cls] = belongs(cls, self._builtins, self._modules)
        return known


def _entries(function: Any) -> list[Any]:
    """Return the keys and results that a cached function keeps."""
    found = gc.get_referents(function)
    if function.cache_parameters()["maxsize"] is None:
        return found
    # They are in a list; the dict that leads to them has each key once more.
    return [one for one in found if type(one) is not dict]


def _of(kinds: Set[type], objects: list[Any]) -> list[Any]:
    return [obj for obj in objects if type(obj) in kinds] if kinds else []


def _cached_functions() -> Iterator[Any]:
    """Yield the functions of the loaded standard library that have an ``lru_cache``."""
    for name, module in sys.modules.copy().items():
        if name.partition(".")[0] not in sys.stdlib_module_names:
            continue
        known, functions = _known.get(name, (None, []))
        if known is not module:
            functions = list(_cached_in(module))
            if getattr(getattr(module, "__spec__", None), "_initializing", False) is not True:
                _known[name] = module, functions
        yield from functions


def _cached_in(module: Any) -> Iterator[Any]:
    for value in dict(names_of(module) or {}).values():
        if type(value) is _CachedFunction:
            yield value
        elif issubclass(type(value), type):
            for method in dict(names_of(value) or {}).values():
                if type(method) is property:
                    method = method.fget
                elif type(method) is staticmethod or type(method) is classmethod:
                    method = method.__func__
                if type(method) is _CachedFunction:
                    yield method


def _dicts(places: Iterable[tuple[str, str]]) -> Iterator[dict[Any, Any]]:
    """Yield the dicts at ``places``, of modules that are loaded and have them in this version."""
    for name, path in places:
        found: Any = sys.modules.get(name)
        for part in path.split("."):
            found = (names_of(found) or {}).get(part)
        if isinstance(found, dict):
            yield found

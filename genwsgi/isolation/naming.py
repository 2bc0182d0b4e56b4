"""A path of references in the words of the person who reads the log.

As :mod:`genwsgi.isolation.holders`, nothing here runs code of the objects that it names.
"""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from functools import _lru_cache_wrapper
from types import (
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from genwsgi.isolation.holders import Path, names_of

#: The longest expression, in characters; of a longer one the middle is left out.
LONGEST = 160

_mro: Any = vars(type)["__mro__"].__get__


def describe(path: Path) -> str:
    """Say in words who holds whom: "`lib.registry['page']`, through `shop.models.Page`".

    :param path: from a root as :mod:`genwsgi.isolation.roots` names them (a module's is its dotted
        name, with `` of generation 7`` after it if it is one's) or as its caller does, in words.
    """
    words, expression = path.root, ""
    if issubclass(type(path.objects[0]), ModuleType):
        expression, _, words = path.root.partition(" of ")
    holder = _Holder(words, expression)
    for before, parent, child in zip(
        (None, *path.objects), path.objects, path.objects[1:], strict=False
    ):
        holder.step(before, parent, child)
    last = path.objects[-1]
    if len(path.objects) == 1:
        return holder.text()
    instance = type(path.objects[-2]) is last
    return f"{holder.text()}, through {'an instance of ' * instance}{name_of(last)}"


def name_of(obj: Any) -> str:
    """Return what ``obj`` is called, with its module."""
    kind = type(obj)
    if kind is MethodType:
        return name_of(obj.__func__)
    if kind is FunctionType:
        return f"`{obj.__module__}.{obj.__qualname__}`"
    if kind is FrameType:
        return place_of(obj)
    names: Mapping[str, Any] | None = obj if kind is dict else names_of(obj)
    if issubclass(kind, type):
        return f"`{(names or {}).get('__module__')}.{vars(type)['__qualname__'].__get__(obj)}`"
    if names is not None and type(names.get("__name__")) is str:
        return f"module `{names['__name__']}`"
    return f"a {_type_name(obj)}"


def place_of(frame: FrameType) -> str:
    """Return where ``frame`` is, as "shop/jobs.py:12": from the top-level package on."""
    name = frame.f_globals.get("__name__")
    parts = frame.f_code.co_filename.split("/")
    if type(name) is str and name != "__main__":
        count = name.count(".") + 1 + (parts[-1] == "__init__.py")
        parts = parts[-count:]
    return f"{'/'.join(parts)}:{frame.f_lineno}"


class _Holder:
    """What holds: an expression, and what it is the expression of in words."""

    def __init__(self, words: str, expression: str) -> None:
        self._words = words
        self._expression = expression
        self._variables: tuple[str, ...] = ()
        self._local: object = None

    def text(self) -> str:
        expression = self._expression.lstrip(".")
        if len(expression) > LONGEST:
            half = LONGEST // 2
            expression = f"{expression[:half]}...{expression[-half:]}"
        if not expression:
            return self._words
        return f"`{expression}` of {self._words}" if self._words else f"`{expression}`"

    def step(self, before: Any, parent: Any, child: Any) -> None:
        """Go on from ``parent``, which ``before`` refers to, to ``child``."""
        kind = type(parent)
        if kind is dict and issubclass(type(before), threading.local):
            self._local = child  # of one of the threads
        elif kind is dict:
            self._into_dict(before, parent, child)
        elif kind is list or kind is tuple or kind is deque:
            # In the cache of a function, it is where among the arguments, which nobody asks.
            if type(before) is not _lru_cache_wrapper:
                self._into_list(parent, child)
        elif kind is set or kind is frozenset:
            self._begin(f"an item of {self.text()}")
        elif kind is _lru_cache_wrapper:
            self._begin(f"`functools.lru_cache` of {_wrapped(parent) or self.text()}")
        elif kind is FunctionType and child is parent.__closure__:
            self._variables = parent.__code__.co_freevars
            self._begin(name_of(parent) if not self._expression else self.text())
        elif kind is GeneratorType or kind is CoroutineType:
            self._begin(f"{kind.__name__} {parent.__qualname__!r} of {self.text()}")
        elif issubclass(kind, threading.local):
            self._begin(f"the thread-local {self.text()}")
        elif issubclass(kind, logging.Logger):
            names = _dict_of(parent) or {}
            self._begin(f"logger {names.get('name')!r}")
            self._attribute(parent, child)
        elif not (kind is MethodType or kind is CellType or issubclass(kind, weakref.ref)):
            self._attribute(parent, child)

    def _begin(self, words: str) -> None:
        self._words, self._expression = words, ""

    def _into_dict(self, before: Any, parent: Any, child: Any) -> None:
        names = parent is self._local or parent is _dict_of(before)
        names = names or names_of(before) is not None
        for key, value in list(parent.copy().items()):
            if value is child:
                if names and type(key) is str:
                    self._expression += f".{key}"
                elif type(key) in (str, int, bool, bytes):
                    self._expression += f"[{key!r}]"
                else:
                    self._expression += f"[<{_type_name(key)}>]"
                return
        self._begin(f"a key of {self.text()}")

    def _into_list(self, parent: Any, child: Any) -> None:
        for index, item in enumerate(list(parent)):
            if item is child:
                if self._variables and type(item) is CellType:
                    self._begin(f"the variable `{self._variables[index]}` of {self.text()}")
                    self._variables = ()
                else:
                    self._expression += f"[{index}]"
                return

    def _attribute(self, parent: Any, child: Any) -> None:
        names = names_of(parent) or _dict_of(parent)
        if child is names or child is type(parent):
            return
        for name, value in dict(names or {}).items():
            if value is child:
                self._expression += f".{name}"
                return
        for base in _mro(type(parent)):
            for name, member in list((names_of(base) or {}).items()):
                if type(member) is MemberDescriptorType and _member(member, parent) is child:
                    self._expression += f".{name}"
                    return


def _wrapped(cached: Any) -> str | None:
    names = [one for one in gc.get_referents(cached) if type(one) is dict and "__wrapped__" in one]
    return name_of(names[0]["__wrapped__"]) if names else None


def _dict_of(obj: Any) -> dict[str, Any] | None:
    """Return an instance's attributes, whatever its class says ``__dict__`` is."""
    for base in _mro(type(obj)):
        found = (names_of(base) or {}).get("__dict__")
        if type(found) is GetSetDescriptorType:
            names = found.__get__(obj)
            return names if type(names) is dict else None
    return None


def _member(member: MemberDescriptorType, obj: Any) -> object:
    try:
        return member.__get__(obj)
    except AttributeError:  # a slot that is empty
        return None


def _type_name(obj: object) -> str:
    kind = type(obj)
    module = (names_of(kind) or {}).get("__module__")
    name: str = vars(type)["__qualname__"].__get__(kind)
    return f"{module}.{name}" if type(module) is str and module != "builtins" else name

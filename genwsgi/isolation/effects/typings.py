"""What :mod:`typing`, and the interpreter itself, keep of the types that generations write."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from types import ModuleType
from typing import Any

_qualname_of_class = type.__dict__["__qualname__"]


def forget_types() -> None:
    """Make :mod:`typing` forget each ``Optional[Model]`` it has made, and with it the model."""
    for clear in typing._cleanups:  # type: ignore[attr-defined]
        clear()


def forget_overloads(builtins: dict[str, Any]) -> None:
    """Make :mod:`typing` forget the overloaded functions of a generation, known by its builtins."""
    overloads: dict[str, dict[str, dict[int, Any]]] = getattr(typing, "_overload_registry", {})
    for by_name in list(overloads.values()):
        for by_line in list(by_name.values()):
            for line, function in list(by_line.items()):
                if getattr(function, "__builtins__", None) is builtins:
                    del by_line[line]


def plain_names(modules: Iterable[ModuleType]) -> None:
    """Give the classes in ``modules`` plain strings for their qualified names.

    The garbage collector does not look into a class's ``__qualname__``, as if it could only be a
    string.  ``celery.local`` has one that is more, leads back to its class, and would stay for
    ever with everything that its module refers to.
    """
    for module in modules:
        if not issubclass(type(module), ModuleType):
            continue  # whatever somebody has put into sys.modules
        for value in list(ModuleType.__getattribute__(module, "__dict__").values()):
            if issubclass(type(value), type):
                name = _qualname_of_class.__get__(value)
                if type(name) is not str:
                    _qualname_of_class.__set__(value, str.__str__(name))

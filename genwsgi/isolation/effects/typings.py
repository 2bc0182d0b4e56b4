"""What :mod:`typing` keeps of the types and functions that generations write."""

from __future__ import annotations

import typing
from typing import Any


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

"""What the standard library knows of a generation though nobody has told it, and has to forget."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from genwsgi.isolation.effects.caches import forget_cached
from genwsgi.isolation.effects.typings import forget_overloads, forget_types, plain_names


def forget(builtins: dict[str, Any], modules: Mapping[str, ModuleType]) -> None:
    """Have the standard library hold nothing that would keep an ended generation.  Any thread.

    Code of it that is still called goes on: what was cached is made again.

    :param builtins, modules: of its table, which is still open.
    """
    plain_names(list(modules.values()))
    forget_cached(builtins, modules)
    forget_overloads(builtins)
    forget_types()

"""``warnings``: a filter goes with the last generation that has added it.

The interpreter has one list of filters for all code, so while two generations live, what one adds
is in force for both.  The list has no filter twice: a generation that adds one which is there
already would lose it with the generation that had added it first.
"""

from __future__ import annotations

import warnings
from typing import Any

from genwsgi.isolation.effects.base import Patches, acting
from genwsgi.isolation.effects.claims import Claims

_filters: Any = warnings
_add_filter = _filters._add_filter
_patches = Patches()


def _add_for_generation(*item: Any, append: bool) -> None:
    claims = acting(Claims)
    known = item in warnings.filters
    _add_filter(*item, append=append)
    if claims is not None:
        claims.share(("warnings", item), "warning filter", lambda: not known, lambda: _remove(item))


def _remove(item: tuple[Any, ...]) -> None:
    filters: Any = warnings.filters
    if item in filters:
        filters.remove(item)
        _filters._filters_mutated()


def install() -> None:
    """Wrap what ``filterwarnings`` and ``simplefilter`` call."""
    _patches.put(warnings, "_add_filter", _add_for_generation)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

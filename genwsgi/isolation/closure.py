"""Which shared packages belong in the scope as well: a least fixed point.  Pure: no I/O.

A package that imports something in the scope holds one generation's version of it; so it has to be
imported afresh along with it, and so have those that import this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from genwsgi.isolation.recording import Edges


@dataclass(frozen=True)
class Closure:
    """What follows from a scope.

    :ivar joins: packages that join the scope, and why.
    :ivar stays: packages that would have to join but can't, and why they would.
    """

    joins: dict[str, str] = field(default_factory=dict)
    stays: dict[str, str] = field(default_factory=dict)


def close(
    scope: Iterable[str],
    edges: Edges,
    reasons: Mapping[str, str],
    may_join: Callable[[str], bool],
) -> Closure:
    """Return what joins ``scope``: the packages with a reason of their own, and all importers.

    :param edges: who imports whom, and how that was seen.
    :param reasons: packages that join whatever they import (those that keep registries ...).
    :param may_join: whether a package can be imported more than once; what can't stays shared, and
        whoever imports that does not join because of it.
    """
    inside = set(scope)
    importers: dict[str, list[tuple[str, str]]] = {}
    for (importer, imported), example in sorted(edges.items()):
        importers.setdefault(imported, []).append((importer, example))
    found = Closure()
    waiting = [(name, why) for name, why in sorted(reasons.items()) if name not in inside]
    for name in sorted(inside):
        waiting += _because_of(name, importers)
    # In this order each package gets the shortest chain of reasons.
    for name, why in waiting:
        if name in inside or name in found.stays:
            continue
        if not may_join(name):
            found.stays[name] = why
            continue
        inside.add(name)
        found.joins[name] = why
        waiting += _because_of(name, importers)
    return found


def reachable(start: Iterable[str], edges: Edges) -> set[str]:
    """Return every package that one of ``start`` imports, directly or through others."""
    imports: dict[str, list[str]] = {}
    for importer, imported in edges:
        imports.setdefault(importer, []).append(imported)
    found = set(start)
    waiting = list(found)
    while waiting:
        for name in imports.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _because_of(name: str, importers: Mapping[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [
        (importer, f"imports {name} ({example})") for importer, example in importers.get(name, ())
    ]

"""What a loaded top-level package is made of, and so whether it can be imported twice."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from dataclasses import dataclass
from enum import Enum
from importlib.machinery import ModuleSpec

from genwsgi.isolation.holders import names_of
from genwsgi.isolation.scope import ALWAYS_SHARED, NOT_SOURCE
from genwsgi.isolation.view import ModuleProxy, real

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)


class Kind(Enum):
    """What a package is made of."""

    STANDARD = "standard library"
    SERVER = "what genwsgi runs on"
    COMPILED = "compiled"
    PURE = "pure Python"
    OTHER = "no source file"


@dataclass(frozen=True)
class Nature:
    """What a package is made of.

    :ivar detail: for a compiled one, a file of its that shows it.
    """

    kind: Kind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value


#: Third-party packages don't change what they are while the process lives.
_natures: dict[tuple[str, tuple[str, ...]], Nature] = {}


def nature(name: str) -> Nature:
    """Tell what the loaded top-level package ``name`` is made of.

    The first time that means a look into each of its folders.  Any thread may ask.
    """
    if name in sys.stdlib_module_names or name == "__main__":
        return Nature(Kind.STANDARD)
    if name in ALWAYS_SHARED:
        return Nature(Kind.SERVER)
    found = places(name)
    known = _natures.get((name, found))
    if known is None:
        known = _natures[name, found] = _look(found)
    return known


def third_party(name: str) -> bool:
    """Whether the loaded top-level package is neither Python's nor what the server runs on."""
    return name not in sys.stdlib_module_names and name not in ALWAYS_SHARED and name != "__main__"


def shared_modules() -> dict[str, list[str]]:
    """Return the names of the third-party modules that all generations share, by package."""
    found: dict[str, list[str]] = {}
    for name, module in real.copy().items():
        top = name.partition(".")[0]
        if type(module) is not ModuleProxy and third_party(top):
            found.setdefault(top, []).append(name)
    return found


def places(name: str) -> tuple[str, ...]:
    """Return the folders of the loaded top-level package ``name``, or a single module's file."""
    names = names_of(real.get(name)) or {}
    spec = names.get("__spec__")
    if type(spec) is ModuleSpec:
        if spec.submodule_search_locations is not None:
            return tuple(str(place) for place in spec.submodule_search_locations)
        return (spec.origin,) if spec.origin else ()
    file = names.get("__file__")
    return (file,) if type(file) is str else ()


def _look(found: tuple[str, ...]) -> Nature:
    sources = False
    for place in found:
        if place.endswith(_EXTENSIONS):
            return Nature(Kind.COMPILED, os.path.basename(place))
        sources = sources or place.endswith(".py")
        for folder, folders, files in os.walk(place):
            for file in files:
                if file.endswith(_EXTENSIONS):
                    shown = os.path.relpath(os.path.join(folder, file), os.path.dirname(place))
                    return Nature(Kind.COMPILED, shown)
                sources = sources or file.endswith(".py")
            folders[:] = [name for name in folders if name not in NOT_SOURCE]
    return Nature(Kind.PURE if sources else Kind.OTHER)

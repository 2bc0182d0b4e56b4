"""Which of the loaded modules are the program's own, and where their source is found.

Own are modules written in Python that lie neither in the standard library nor where packages are
installed.  ``__main__`` is the program itself and never one of them.  Any thread may ask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

from genwsgi.isolation.scope import ALWAYS_SHARED, Package, is_installed
from genwsgi.isolation.view import real

_own: Any = ModuleType.__getattribute__
_NEVER = frozenset({*ALWAYS_SHARED, *sys.stdlib_module_names, "__main__", "__mp_main__"})


@dataclass(frozen=True)
class Module:
    """One module in source.

    :ivar file: its source file.
    :ivar package: whether it is a package, with modules below it.
    """

    name: str
    file: str
    package: bool

    @property
    def home(self) -> str:
        """The folder that it is imported from: for ``/srv/app/crawler/rules.py``, ``/srv/app``."""
        place = os.path.dirname(self.file) if self.package else self.file
        for _ in self.name.split("."):
            place = os.path.dirname(place)
        return place

    @property
    def parent(self) -> str:
        """The package that relative imports in it start from."""
        return self.name if self.package else self.name.rpartition(".")[0]

    def as_package(self, reason: str) -> Package:
        """Return it as a part of a scope."""
        if self.package:
            return Package(self.name, None, (os.path.dirname(self.file),), reason)
        return Package(self.name, self.file, (), reason)


def loaded() -> dict[str, Module]:
    """Return the program's own modules that it has loaded, by name."""
    found = {}
    for name, module in real.copy().items():
        if name.partition(".")[0] not in _NEVER and issubclass(type(module), ModuleType):
            # Not through the module itself: it may stand for a newer version from elsewhere.
            names = _own(module, "__dict__")
            file = names.get("__file__")
            if isinstance(file, str) and file.endswith(".py") and name == names.get("__name__"):
                own = Module(name, os.path.abspath(file), "__path__" in names)
                if not _installed(own.home):
                    found[name] = own
    return found


def homes() -> set[str]:
    """Return the folders that the program's own modules, and ``__main__``, are imported from."""
    found = {module.home for module in loaded().values()}
    main = real.get("__main__")
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if isinstance(file, str):
        name = "__main__" if spec is None else spec.name
        home = Module(name, os.path.abspath(file), False).home
        if not _installed(home):
            found.add(home)
    return found


@lru_cache(maxsize=1000)
def _installed(folder: str) -> bool:
    return is_installed(folder)


@dataclass
class Search:
    """Where modules of the program are looked for.

    :ivar first: folders that go before all others, the latest first.
    """

    first: list[str] = field(default_factory=list)

    def put_first(self, folder: str) -> Search:
        """Return a search that begins in ``folder``."""
        return Search([folder, *(other for other in self.first if other != folder)])

    def only(self, modules: Iterable[Module]) -> Search:
        """Return a search in the first folder, and in those of the others that have a module."""
        used = {module.home for module in modules}
        return Search([f for n, f in enumerate(self.first) if n == 0 or f in used])

    def find(self, name: str) -> Module | None:
        """Return the module as an import would find it now; ``None``: there is none of ours."""
        if name.partition(".")[0] in _NEVER:
            return None
        for folder in self.first:
            found = _in(os.path.join(folder, *name.split(".")), name)
            if found is not None:
                return found
        for base in _bases(name):
            found = _in(base, name)
            if found is not None and not _installed(found.home):
                return found
        return None


def _bases(name: str) -> Sequence[str]:
    """Where a module may be, as paths without ``.py``."""
    parent, _, last = name.rpartition(".")
    if not parent:
        return [os.path.join(os.path.abspath(entry), name) for entry in sys.path]
    package = real.get(parent)
    names = {} if package is None else _own(package, "__dict__")
    if "__path__" in names:
        return [os.path.join(os.path.abspath(entry), last) for entry in names["__path__"]]
    return [os.path.join(base, last) for base in _bases(parent)]


def _in(base: str, name: str) -> Module | None:
    # Resolved here, once: a symlink to the release may be another one in a moment.
    folder = os.path.realpath(base)
    if os.path.isfile(os.path.join(folder, "__init__.py")):
        return Module(name, os.path.join(folder, "__init__.py"), True)
    file = os.path.join(os.path.realpath(os.path.dirname(base)), os.path.basename(base) + ".py")
    return Module(name, file, False) if os.path.isfile(file) else None

"""Modules that were there before any generation: the first version of a program that takes updates.

They were loaded by the interpreter and run with its builtins, so no module table made them.  Their
code is known by its globals instead (:data:`genwsgi.isolation.asking.adopted`), and this table
answers for them where a generation's own would.
"""

from __future__ import annotations

import importlib._bootstrap
import weakref
from collections.abc import Collection
from types import ModuleType
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import adopted

bootstrap: Any = importlib._bootstrap

#: What the interpreter loads modules by.
_find_and_load = bootstrap._find_and_load


def within(fullname: str, names: Collection[str]) -> bool:
    """Whether ``fullname``, or a package that it lies in, is one of ``names``."""
    while fullname not in names:
        fullname = fullname.rpartition(".")[0]
        if not fullname:
            return False
    return True


class OriginalTable:
    """The part of a program that later generations replace, as the program itself loaded it.

    It is never closed and its modules are never collected: they are the very objects that the
    program holds.  Any thread may ask; one thread at a time adds to it.

    :ivar names: as :attr:`genwsgi.isolation.modules.ModuleTable.names`; grows.
    :ivar modules: the modules of these names that the program has loaded.
    """

    closed = False
    handles = True

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.names: set[str] = set()
        self.modules: dict[str, ModuleType] = {}

    def __repr__(self) -> str:
        return f"<OriginalTable of {self.generation.name}, {len(self.modules)} modules>"

    def owns(self, fullname: str) -> bool:
        """Whether a module of that name is one of these."""
        return within(fullname, self.names)

    def covers(self, folder: str) -> bool:  # noqa: ARG002 -- as ModuleTable's
        """Whether a snapshot says what is in ``folder``: there is none, the disk does."""
        return False

    def import_module(self, fullname: str) -> ModuleType:
        """Return the module, loading it from the disk if the program has not loaded it yet.

        :raises ModuleNotFoundError: there is no such module.
        """
        module = self.modules.get(fullname)
        if module is None:
            module = self.generation.run(_find_and_load, fullname, self.import_module)
            names = ModuleType.__getattribute__(module, "__dict__")
            adopted.setdefault(id(names), weakref.ref(self.generation))
        return module


class Live(ModuleType):
    """Base of what a module that was there before becomes: the handle to all of its versions."""

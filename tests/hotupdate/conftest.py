"""A program of a few modules, which the process forgets after the test."""

from __future__ import annotations

import compileall
import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from genwsgi import hotupdate
from genwsgi.hotupdate import Update
from genwsgi.hotupdate.own import loaded
from genwsgi.hotupdate.updater import Updater
from genwsgi.hotupdate.versions import Versions
from tests.isolation.fixtures import process, site
from tests.isolation.sources import write

__all__ = ["program", "site"]

#: What watchdog changes when it is imported, and pytest after each test.
PROCESS = frozenset({"filters"})

_numbers = itertools.count(1)


def reset() -> None:
    """Begin anew with hotupdate, of which there is one in a process.

    However slow the machine is, what was before has ended then.
    """
    hotupdate.close()
    hotupdate._updater.close(60.0)
    hotupdate._updater = Updater(Versions())


def compile_tests() -> None:
    """Bring the bytecode of the tests' modules, which are part of the program, up to date.

    Where none may be written, that of an older source stays, and is taken for a sign of a change.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("tests.") and module.__file__:
            compileall.compile_file(module.__file__, quiet=2)


class Program:
    """A package with modules of the test's own, under a name that no other test has.

    :ivar name: the package's name; ``NAME`` in sources and file names becomes it.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"crawler{next(_numbers)}"
        self.root = folder / "src"
        self.root.mkdir()

    def write(self, files: dict[str, str], root: Path | None = None) -> None:
        """Write source files below the root of the program, or another one."""
        named = {name.replace("NAME", self.name): text for name, text in files.items()}
        write(
            root or self.root,
            {name: text.replace("NAME", self.name) for name, text in named.items()},
        )

    def load(self, name: str) -> ModuleType:
        """Import one of the program's modules, and have hotupdate know it."""
        module = importlib.import_module(name.replace("NAME", self.name))
        if hotupdate.status().last is None:
            hotupdate._updater._running.begin(loaded())
        return module

    def update(self, *names: str, path: Path | None = None) -> Update:
        """Update modules by hand."""
        wanted = [name.replace("NAME", self.name) for name in names]
        return hotupdate.update(wanted, path=None if path is None else str(path), timeout=30)

    def forget(self) -> None:
        """Unload everything."""
        for name in list(sys.modules):
            if name.partition(".")[0] == self.name or name == f"{self.name}_top":
                del sys.modules[name]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """A program with a package of two modules that agree, one of which takes out of the other."""
    before = {name: value for name, value in process().items() if name not in PROCESS}
    compile_tests()
    made = Program(tmp_path)
    monkeypatch.syspath_prepend(str(made.root))
    made.write(
        {
            "NAME/__init__.py": "",
            "NAME/fields.py": "VERSION = 1\n",
            "NAME/rules.py": """
                from NAME.fields import VERSION
                import NAME.fields
                def parse():
                    return VERSION, NAME.fields.VERSION
                """,
        }
    )
    try:
        yield made
    finally:
        reset()
        made.forget()
    monkeypatch.undo()
    assert {name: value for name, value in process().items() if name in before} == before

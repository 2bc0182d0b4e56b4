from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from genwsgi.isolation.packages import Kind, nature
from tests.isolation.sources import write

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; what is loaded from it is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("thing"):
            del sys.modules[name]


def test_what_can_t_be_third_party() -> None:
    """The standard library is told by its names, and so is what the server runs on."""
    assert nature("json").kind is Kind.STANDARD
    assert nature("__main__").kind is Kind.STANDARD
    assert nature("gunicorn").kind is Kind.SERVER


def test_pure_and_compiled(folder: Path) -> None:
    """A package is compiled if a compiled module is anywhere in it, loaded or not."""
    write(
        folder,
        {
            "thing_one.py": "",
            "thing_pure/__init__.py": "",
            "thing_fast/__init__.py": "",
            f"thing_fast/very/deep/_speed{SUFFIX}": "",
            "thing_space/part/mod.py": "",
        },
    )
    for name in ("thing_one", "thing_pure", "thing_fast", "thing_space"):
        importlib.import_module(name)
    assert nature("thing_one").kind is Kind.PURE
    assert nature("thing_pure").kind is Kind.PURE
    assert nature("thing_space").kind is Kind.PURE
    assert str(nature("thing_fast")) == f"compiled: thing_fast/very/deep/_speed{SUFFIX}"


def test_a_namespace_counts_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace package of which one part is compiled is compiled."""
    write(folder, {"a/thing_wide/pure.py": "", f"b/thing_wide/fast{SUFFIX}": ""})
    for part in ("a", "b"):
        monkeypatch.syspath_prepend(str(folder / part))
    importlib.import_module("thing_wide")
    assert nature("thing_wide").kind is Kind.COMPILED


def test_without_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that was made by hand can't be imported afresh."""
    monkeypatch.setitem(sys.modules, "thing_made", ModuleType("thing_made"))
    assert nature("thing_made").kind is Kind.OTHER
    assert str(nature("thing_made")) == "no source file"

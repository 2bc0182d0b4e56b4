from __future__ import annotations

import builtins
import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.isolation import recording
from tests.isolation.sources import write


class Owner:
    """A build, for the recorder."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; what is loaded from it and recorded is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before, edges = set(sys.modules), dict(recording._edges)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    recording._edges.clear()
    recording._edges.update(edges)


def recorded(*tops: str) -> dict[tuple[str, str], str]:
    return {edge: example for edge, example in recording.edges().items() if edge[0] in tops}


def test_statements_count(folder: Path) -> None:
    """Import statements of every form are recorded, with the first as the example."""
    write(
        folder,
        {
            "first/__init__.py": "from . import inner\nimport json\n",
            "first/inner.py": "import second.deep\nfrom second import deep\nimport third as t\n",
            "second/__init__.py": "",
            "second/deep.py": "from third import *\n",
            "third.py": "",
        },
    )
    owner = Owner()
    recording.begin(owner)
    importlib.import_module("first")
    recording.end(owner)
    assert recorded("first", "second", "third") == {
        ("first", "second"): "first.inner: import second.deep",
        ("first", "third"): "first.inner: import third",
        ("second", "third"): "second.deep: import third",
    }


def test_what_is_done_for_somebody_else_does_not(folder: Path) -> None:
    """``import_module``, ``pickle`` and ``__import__`` without globals say nothing about who calls
    them.
    """
    write(
        folder,
        {
            "helper.py": "import importlib, pickle\ndef load(name):\n    __import__(name)\n"
            "    return importlib.import_module(name)\n"
            "def unpickle(data):\n    return pickle.loads(data)\n",
            "wanted.py": "",
            "pickled.py": "def work(): pass\n",
        },
    )
    owner = Owner()
    recording.begin(owner)
    helper = importlib.import_module("helper")
    helper.load("wanted")
    assert callable(helper.unpickle(b"cpickled\nwork\n."))
    recording.end(owner)
    assert recorded("helper") == {}


def test_only_while_something_is_built() -> None:
    """The interpreter's own import is back when the last of several builds has ended."""
    original: Any = builtins.__import__
    one, other = Owner(), Owner()
    recording.begin(one)
    recording.begin(other)
    recording.end(one)
    assert builtins.__import__ is not original
    recording.end(other)
    assert builtins.__import__ is original


def test_build_that_never_ended() -> None:
    """A build that was given up where it began does not keep the recorder for ever."""
    original: Any = builtins.__import__
    recording.begin(Owner())
    gc.collect()
    assert builtins.__import__ is not original
    owner = Owner()
    recording.begin(owner)
    recording.end(owner)
    assert builtins.__import__ is original


def test_import_that_somebody_else_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``__import__`` that somebody puts over the recorder stays, and nothing goes in circles."""
    original: Any = builtins.__import__
    owner = Owner()
    recording.begin(owner)
    below: Any = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda *args, **more: below(*args, **more))
    theirs: Any = builtins.__import__
    recording.end(owner)
    assert builtins.__import__ is theirs
    recording.begin(owner)
    assert builtins.__import__ is theirs
    assert __import__("json").__name__ == "json"
    recording.end(owner)
    monkeypatch.undo()
    builtins.__import__ = original
    recording._covered = False

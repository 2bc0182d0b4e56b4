"""A source tree of which snapshots are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwsgi.isolation.scope import ScopeRules, find_scope
from genwsgi.isolation.snapshot import Snapshot
from genwsgi.isolation.store import Store
from tests.isolation.sources import write


class Tree:
    """A source tree and its store."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "src"
        self.store = Store(str(folder / "store"))
        self.init = str(self.root / "shop/__init__.py")

    def write(self, **files: str) -> None:
        write(self.root, {f"shop/{name}.py": text for name, text in files.items()})

    def take(self, known: Snapshot | None = None, extra: tuple[str, ...] = ()) -> str:
        scope = find_scope(ScopeRules("shop", (str(self.root),)))
        return self.store.take(scope, extra, known)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree of two modules."""
    made = Tree(tmp_path)
    made.write(__init__="A = 1", models="B = 1")
    return made

"""A generation may own single modules of a package that it shares with all others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from genwsgi.generations.generation import Generation
from genwsgi.isolation import imports
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.originals import within
from genwsgi.isolation.scope import Package, Scope
from genwsgi.isolation.store import Store
from tests.isolation.sources import write


@pytest.mark.parametrize(
    ("name", "inside"),
    [("a.b", True), ("a.b.c.d", True), ("a", False), ("a.bc", False), ("x.a.b", False)],
)
def test_within(name: str, inside: bool) -> None:
    """A name covers itself and what lies below it, by components."""
    assert within(name, {"a.b"}) is inside


def test_modules_of_a_shared_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation's ``part.rules`` imports its own ``part.fields`` and the shared ``part``."""
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    files = {
        "src/part/__init__.py": "",
        "src/part/other.py": "V = 1\n",
        "src/part/fields.py": "V = 'new'\n",
        "src/part/rules.py": """
            import part.fields, part.other
            from . import fields
            from part.fields import V
            def ask():
                import part.fields as third
                return V, fields.V, part.fields.V, third.V, part.other, part
            """,
    }
    write(tmp_path, files)
    store = Store(str(tmp_path / "store"))
    scope = Scope(
        {
            name: Package(name, str(tmp_path / "src" / (name.replace(".", "/") + ".py")), (), "")
            for name in ("part.rules", "part.fields")
        }
    )
    snapshot = store.open(store.take(scope))
    generation = Generation(1)
    generation.modules = table = ModuleTable(generation, snapshot)

    def provide() -> Generation | None:
        return None

    imports.install(provide)
    try:
        imports.opened(table)
        (tmp_path / "src/part/fields.py").write_text("V = 'newer'\n")
        rules = generation.run(table.import_module, "part.rules")
        *seen, other, part = rules.ask()
        assert seen == ["new"] * 4
        assert sorted(table.modules) == ["part.fields", "part.rules"]
        assert sys.modules["part"] is part
        assert sys.modules["part.other"] is other
    finally:
        table.close()
        imports.closed(table)
        imports.uninstall(provide)
        for name in ("part", "part.other"):
            sys.modules.pop(name, None)

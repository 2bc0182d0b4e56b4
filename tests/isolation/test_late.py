from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from genwsgi.isolation import late
from tests.isolation.sources import Site, write


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a shared module that is not imported yet."""
    write(tmp_path / "lib", {"late_library.py": "V = 1\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.delitem(sys.modules, "late_library", raising=False)
    return "late_library"


def test_when_loaded(site: Site, name: str) -> None:
    """What is to be done to a module is done once, when it is imported or at once."""
    site.write(shop="")
    site.serve()
    seen: list[ModuleType] = []
    late.when_loaded(name, seen.append)
    assert seen == []
    module = importlib.import_module(name)
    assert seen == [module]
    importlib.reload(module)
    late.when_loaded(name, seen.append)
    assert seen == [module, module]
    assert not late.never_mind(name, seen.append)
    del sys.modules[name]


def test_never_mind(site: Site, name: str) -> None:
    """What was taken back is not done."""
    site.write(shop="")
    site.serve()
    seen: list[ModuleType] = []
    act = seen.append
    late.when_loaded(name, act)
    assert late.never_mind(name, act)
    importlib.import_module(name)
    assert seen == []
    del sys.modules[name]

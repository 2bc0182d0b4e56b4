"""A shared library that looks the application up on its behalf."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation.sources import write

HELPING = """
    import builtins, functools, importlib, pkgutil, threading
    from concurrent.futures import ThreadPoolExecutor
    def late():
        return importlib.import_module("shop.lazy")
    def statement():
        import shop.lazy
        from shop.lazy import V
        assert shop.lazy.V == V
        return V
    def by_name(dotted):
        module, _, name = dotted.rpartition(".")
        return getattr(__import__(module, None, None, [name]), name)
    pool = ThreadPoolExecutor(1)
    class Asked(threading.Thread):
        def run(self):
            self.found = late().V
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library that is shared, and imports the application late and by name."""
    write(tmp_path / "lib", {"helping_library.py": HELPING})
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    sys.modules.pop("helping_library", None)
    yield
    module = sys.modules.pop("helping_library", None)
    if module is not None:
        module.pool.shutdown()

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

from genwsgi.isolation.loader import list_in_snapshot
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, compiled


def test_spec_and_file(site: Site) -> None:
    """A module has its real path as ``__file__`` and a spec like any module's."""
    site.write(shop="", shop__a="")
    generation = site.serve()
    package = generation.modules.modules["shop"]
    assert package.__file__ == str(site.root / "shop/__init__.py")
    assert package.__path__ == [str(site.root / "shop")]
    assert package.__spec__.loader.is_package("shop")
    module = generation.run(generation.modules.import_module, "shop.a")
    assert module.__package__ == "shop"
    assert module.__spec__.origin == module.__file__ == str(site.root / "shop/a.py")
    assert package.a is module


def test_data_comes_from_the_disk(site: Site) -> None:
    """A loader's ``get_data`` gives source from the snapshot and other files from the disk."""
    site.write(shop="V = 1\n")
    (site.root / "shop/data.bin").write_bytes(b"1")
    loader = site.serve().modules.modules["shop"].__loader__
    (site.root / "shop/data.bin").write_bytes(b"2")
    site.write(shop="V = 2\n")
    assert loader.get_data(str(site.root / "shop/__init__.py")).startswith(b"V = 1")
    assert loader.get_data(str(site.root / "shop/data.bin")) == b"2"
    assert loader.get_source("shop").startswith("V = 1")


def test_listing(site: Site) -> None:
    """A folder's listing has modules and packages, and no ``__init__``."""
    site.write(shop="", shop__b="", shop__a____init__="", shop__a__deep="")
    snapshot = site.serve().modules.snapshot
    found = list_in_snapshot(snapshot, str(site.root / "shop"))
    assert found == [("a", True), ("b", False)]


def test_single_file_target(site: Site) -> None:
    """A target that is one file is a generation's own as a package is."""
    site.write(shop="", single="V = 1\ndef ask():\n    return V\n")
    first = site.serve()
    assert call(first, "single", "ask") == 1
    shutil.rmtree(site.root)
    assert first.modules.modules["single"].__loader__.get_code("single")


def test_compiled_module(site: Site) -> None:
    """A compiled module inside a package of the scope is loaded once and shared."""
    site.write(shop="from shop import _json as fast\n")
    path = compiled(site.root / "shop")
    first = site.serve()
    site.pending = site.request()
    # What is loaded can't be renewed where it is.
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"\0")
    second = site.serve()
    fast = [g.modules.modules["shop"].fast for g in (first, second)]
    assert isinstance(fast[0], ModuleType)
    assert fast[0] is fast[1]
    assert fast[0].__file__ == str(path)
    assert sys.modules.get("shop").fast is fast[0]  # type: ignore[union-attr]


def test_compiled_module_of_releases(site: Site, tmp_path: Path) -> None:
    """It is loaded once as well where each release has its own copy; another content is another."""
    fast: list[ModuleType] = []
    paths: list[Path] = []
    for number in range(3):
        site.root = tmp_path / f"release-{number}"
        site.path = (str(site.root),)
        site.write(shop="from shop import _json as fast\n")
        folder = site.root / "shop"
        paths.append(Path(shutil.copy(paths[0], folder)) if number == 1 else compiled(folder))
        fast.append(site.serve().modules.modules["shop"].fast)
    assert fast[0] is fast[1]
    assert fast[2] is not fast[0]
    assert fast[2].__file__ == str(paths[2])


def test_finders_of_releases(site: Site, tmp_path: Path) -> None:
    """The finders of a release's folders go with its last generation."""
    for number in range(3):
        site.root = tmp_path / f"release-{number}"
        site.path = (str(site.root),)
        site.write(shop="import pkgutil\nlist(pkgutil.iter_modules(__path__))\n")
        site.serve()
    wait_until(
        lambda: (
            {f.split("release-")[1][0] for f in sys.path_importer_cache if "release-" in f} == {"2"}
        ),
        what="only the last release's finders are left",
    )

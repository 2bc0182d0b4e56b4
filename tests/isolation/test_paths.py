from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from genwsgi.isolation.modules import ModuleTable
from tests.helpers import wait_until
from tests.isolation.sources import LAZILY, Site, call, compiled, torn_down, write

#: A module, found in a folder outside of the scope, that asks its generation.
OUTSIDE = """
    import sys
    from shop.lazy import V
    def ask():
        import shop.lazy, importlib
        assert importlib.import_module("shop.lazy") is shop.lazy is sys.modules["shop.lazy"]
        return shop.lazy.V
    def where():
        return __file__
"""

#: A shared module that looks the application up.
LIBRARY = """
    import importlib
    def late():
        return importlib.import_module("shop.lazy")
"""

#: Ways of a package to have modules in another folder.
TRICKS = {
    "extend_path": """
        import pkgutil
        __path__ = pkgutil.extend_path(__path__, __name__)
    """,
    "append": "__path__.append(OUTSIDE)\n",
    "insert": "__path__.insert(0, OUTSIDE)\n",
    "replace": "__path__ = [*__path__, OUTSIDE]\n",
    "relative": "import os\n__path__.append(os.path.relpath(OUTSIDE))\n",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_module_of_another_folder(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: str
) -> None:
    """What a package finds in another folder is each generation's own, and asks it."""
    outside = tmp_path / "other" / "shop"
    write(outside, {"extra.py": OUTSIDE})
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    code = inspect.cleandoc(TRICKS[trick]).replace("OUTSIDE", repr(str(outside)))
    # The folder's package must not be what is found instead of the application's.
    (outside / "__init__.py").unlink(missing_ok=True)
    first, second = site.two(
        shop=code + "\ndef get():\n    import shop.extra\n    return shop.extra\n",
        shop__lazy="V = VERSION\n",
    )
    shutil.rmtree(site.root)
    found = [call(g, "shop", "get") for g in (first, second)]
    assert found[0] is not found[1]
    for module, generation, version in zip(found, (first, second), (1, 2), strict=True):
        # Called by nobody, by its own and by the other one.
        assert [run(module.ask) for run in (first.run, second.run, lambda f: f())] == [version] * 3
        assert vars(module)["__builtins__"] is generation.modules.builtins
        assert generation.modules.modules["shop.extra"] is module
        assert Path(module.where()).samefile(outside / "extra.py")
        assert "import shop.lazy" in inspect.getsource(module.ask)


def test_order_of_the_folders(site: Site, tmp_path: Path) -> None:
    """A folder that a package puts before its own is searched before it, and one behind after."""
    for name in ("before", "behind"):
        write(tmp_path / name, {"both.py": f"V = {name!r}\n", f"{name}_only/part.py": "V = 1\n"})
    site.write(
        shop=f"__path__ = [{str(tmp_path / 'before')!r}, *__path__]\nfrom shop.both import V\n"
        "from shop.before_only.part import V as part\n",
        shop__both="V = 'own'\n",
        shop__two____init__=f"__path__.append({str(tmp_path / 'behind')!r})\n"
        "from shop.two.both import V\nfrom shop.two.behind_only import part\n",
        shop__two__both="V = 'own'\n",
    )
    first = site.serve()
    assert first.modules.modules["shop"].V == "before"
    assert first.run(first.modules.import_module, "shop.two").V == "own"


def test_compiled_module_of_another_folder(site: Site, tmp_path: Path) -> None:
    """A compiled module that a package finds in another folder is loaded once and shared."""
    compiled(tmp_path)
    first, second = site.two(
        shop=f"__path__.append({str(tmp_path)!r})\nfrom shop import _json as fast\n"
    )
    assert first.modules.modules["shop"].fast is second.modules.modules["shop"].fast


def test_folder_beside_the_package(site: Site) -> None:
    """A folder of the application's that a package adds with ".." is read from the snapshot."""
    first, second = site.two(
        shop="""
        import os, pkgutil
        __path__.append(os.path.join(os.path.dirname(__file__), "..", "plugins"))
        def ask():
            from shop import plugin
            assert "plugin" in {module.name for module in pkgutil.iter_modules(__path__)}
            return plugin.V
        """,
        plugins__plugin="V = VERSION\n",
    )
    shutil.rmtree(site.root)
    assert [call(g, "shop", "ask") for g in (first, second)] == [1, 2]


def test_listing_of_a_folder_outside(site: Site, tmp_path: Path) -> None:
    """A folder that is reached through the package's, but is no part of it, is the disk's."""
    write(tmp_path / "outside", {"found.py": ""})
    site.write(
        shop="""
        import os, pkgutil
        def ask():
            folder = os.path.join(__path__[0], "..", "..", "outside")
            return [module.name for module in pkgutil.iter_modules([folder])]
        """
    )
    assert call(site.serve(), "shop", "ask") == ["found"]


def test_module_that_others_load_by_hand(site: Site) -> None:
    """A module of the scope that nobody's code loads by hand is the current generation's."""
    _, second = site.two(shop="", shop__lazy="V = VERSION\n")
    spec = importlib.util.find_spec("shop.lazy")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert vars(module)["__builtins__"] is second.modules.builtins
    assert module.V == 2


def test_later_file_beside_the_package(site: Site) -> None:
    """What came into such a folder after the snapshot is not there."""
    site.write(
        shop="import os\n__path__.append(os.path.join(__path__[0], '..', 'plugins'))\n",
        plugins__plugin="",
    )
    first = site.serve()
    site.write(plugins__late="")
    importlib.invalidate_caches()
    assert first.run(importlib.util.find_spec, "shop.plugin")
    assert first.run(importlib.util.find_spec, "shop.late") is None


def test_module_in_a_zip_file(site: Site, tmp_path: Path) -> None:
    """A module that a package finds in a zip file is each generation's own, with its source."""
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("packed.py", inspect.cleandoc(OUTSIDE))
    first, second = site.two(
        shop=f"__path__.append({str(tmp_path / 'more.zip')!r})\n"
        "def get():\n    from shop import packed\n    return packed\n",
        shop__lazy="V = VERSION\n",
    )
    modules = [call(g, "shop", "get") for g in (first, second)]
    assert [module.ask() for module in modules] == [1, 2]
    assert "import shop.lazy" in inspect.getsource(modules[0].ask)


def test_import_hook_of_the_application(site: Site) -> None:
    """What an application's own import hook makes is the generation's, and asks it."""
    first, second = site.two(
        shop="""
        import importlib.abc, importlib.machinery, sys
        class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "shop.made":
                    return importlib.machinery.ModuleSpec(name, self)
            def create_module(self, spec):
                return None
            def exec_module(self, module):
                module.made = VERSION
                exec("def ask():\\n    import shop.lazy\\n    return shop.lazy.V", vars(module))
        sys.meta_path.insert(0, Hook())
        def get():
            from shop import made
            return made
        """,
        shop__lazy="V = VERSION\n",
    )
    modules = [call(g, "shop", "get") for g in (first, second)]
    assert [module.ask() for module in modules] == [1, 2]
    assert modules[0] is not modules[1]


def test_entry_points_and_metadata(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry point that names the application loads each generation's own; metadata is shared."""
    write(
        tmp_path / "lib",
        {
            "shop-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: shop\nVersion: 1\n",
            "shop-1.dist-info/entry_points.txt": "[shop.plugins]\nlazy = shop.lazy:V\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    first, second = site.two(
        shop="""
        import importlib.metadata
        def ask():
            (found,) = importlib.metadata.entry_points(group="shop.plugins")
            assert importlib.metadata.version("shop") == "1"
            return found.load()
        """,
        shop__lazy="V = VERSION\n",
    )
    shutil.rmtree(site.root)
    assert [call(g, "shop", "ask") for g in (first, second)] == [1, 2]
    (found,) = importlib.metadata.entry_points(group="shop.plugins")
    assert found.load() == 2


def test_reload_concerns_one_generation(site: Site) -> None:
    """Reloading a module runs it again from the snapshot, in the generation that reloads it."""
    first, second = site.two(
        shop="import importlib\nfrom shop import lazy\nrefresh = lambda: importlib.reload(lazy)\n",
        shop__lazy="V = VERSION\nruns = globals().get('runs', 0) + 1\n",
    )
    site.write(shop__lazy="raise SystemError('this is the disk')\n")
    call(first, "shop", "refresh")
    found = [g.modules.modules["shop.lazy"] for g in (first, second)]
    assert [(module.V, module.runs) for module in found] == [(1, 2), (2, 1)]
    with pytest.raises(ImportError, match=r"shop\.lazy"):
        second.run(importlib.reload, found[0])


def test_patch_concerns_one_generation(site: Site) -> None:
    """What mock patches by name is patched in the generation that patches it, and put back."""
    first, second = site.two(
        shop="""
        from unittest import mock
        def patched(look):
            with mock.patch("shop.lazy.V", "patched"), mock.patch("shop.lazy.new", 1, create=True):
                return look()
        """,
        shop__lazy="V = VERSION\n",
    )
    found = [g.run(g.modules.import_module, "shop.lazy") for g in (first, second)]
    looked = call(first, "shop", "patched", lambda: [module.V for module in found])
    assert looked == ["patched", 2]
    assert [module.V for module in found] == [1, 2]
    assert not hasattr(found[0], "new")


def test_file_loaded_by_hand_is_the_snapshot_s(site: Site, tmp_path: Path) -> None:
    """A file that is loaded by its place is the snapshot's, or the disk's if it isn't in there."""
    write(tmp_path, {"plugin.py": OUTSIDE})
    load = """
        import importlib.util, pathlib
        def load(place):
            spec = importlib.util.spec_from_file_location("plugin", pathlib.Path(place))
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    """
    first, second = site.two(shop=load, shop__lazy="V = VERSION\n", shop__inside=OUTSIDE)
    site.write(shop__inside="raise SystemError('this is the disk')\n")
    for place in (site.root / "shop/inside.py", tmp_path / "plugin.py"):
        modules = [call(g, "shop", "load", str(place)) for g in (first, second)]
        assert [module.ask() for module in modules] == [1, 2]
    # What nobody's code loads is nobody's.
    spec = importlib.util.spec_from_file_location("plugin", tmp_path / "plugin.py")
    assert spec is not None
    assert "__builtins__" not in vars(importlib.util.module_from_spec(spec))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", ["helping_library", "helping_package.part"])
def test_shared_module_that_is_loaded_lazily(site: Site, tmp_path: Path, name: str) -> None:
    """A shared module that a generation's code has loaded lazily outlives that generation."""
    write(tmp_path / "lib", {"helping_package/__init__.py": "", "helping_package/part.py": LIBRARY})
    site.write(
        shop=f"""
        import importlib.util, sys
        spec = importlib.util.find_spec({name!r})
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[{name!r}] = module
        spec.loader.exec_module(module)
        """,
        shop__lazy="V = 1\n",
    )
    try:
        first = site.serve()
        module = sys.modules[name]
        site.write(shop="", shop__lazy="V = 2\n")
        site.serve()
        wait_until(lambda: torn_down(first), what="the first generation is torn down")
        assert module.late().V == 2
        builtins = vars(module)["__builtins__"]
        assert "__generation__" not in builtins
    finally:
        sys.modules.pop("helping_package", None)
        sys.modules.pop("helping_package.part", None)


def test_code_that_is_run_by_name(site: Site) -> None:
    """What a generation runs as ``python -m`` does asks that generation, called by whomever."""
    first, second = site.two(
        shop="""
        import runpy
        def run():
            return runpy.run_module("shop.command", run_name="__main__")["ask"]
        """,
        shop__lazy="V = VERSION\n",
        shop__command=OUTSIDE,
    )
    shutil.rmtree(site.root)
    asks = [call(g, "shop", "run") for g in (first, second)]
    assert [ask() for ask in asks] == [1, 2]
    assert [run(ask) for run, ask in zip((second.run, first.run), asks, strict=True)] == [1, 2]


def test_compiled_module_has_no_builtins(site: Site) -> None:
    """A compiled module, which all generations share, is given no generation's builtins."""
    site.write(shop="from shop import _json as fast\nfrom importlib import util\n")
    compiled(site.root / "shop")
    fast = site.serve().modules.modules["shop"].fast
    assert "__builtins__" not in vars(fast)


def test_walking_packages(site: Site) -> None:
    """``walk_packages`` imports packages of the generation that walks, and lists its modules."""
    files: dict[str, Any] = {
        "shop": "import pkgutil\ndef ask():\n"
        "    return [m.name for m in pkgutil.walk_packages(__path__, 'shop.')]\n",
        "shop__deep____init__": "V = VERSION\n",
        "shop__deep__moduleVERSION": "",
    }
    generations = []
    for version in ("1", "2"):
        site.replace(
            **{
                n.replace("VERSION", version): t.replace("VERSION", version)
                for n, t in files.items()
            }
        )
        generations.append(site.serve())
        if version == "1":
            site.pending = site.request()
    shutil.rmtree(site.root)
    for number, generation in enumerate(generations, 1):
        assert call(generation, "shop", "ask") == ["shop.deep", f"shop.deep.module{number}"]
        assert number == generation.modules.modules["shop.deep"].V
    assert [m.name for m in pkgutil.iter_modules([str(site.root / "shop/deep")])] == ["module2"]


def test_namespace_package_in_two_folders(site: Site, tmp_path: Path) -> None:
    """A namespace package of the scope has the parts of all its folders, from the snapshot."""
    write(tmp_path / "second", {"space/more.py": "V = 1\n"})
    site.scope = ("space",)
    site.path = (str(site.root), str(tmp_path / "second"))
    sys.path.append(site.path[1])
    try:
        site.write(
            shop="def ask():\n    from space import more, part\n    return more.V, part.V\n",
            space__part="V = 1\n",
        )
        first = site.serve()
        site.pending = site.request()
        write(tmp_path / "second", {"space/more.py": "V = 2\n"})
        site.write(space__part="V = 2\n")
        second = site.serve()
        shutil.rmtree(site.root)
        shutil.rmtree(tmp_path / "second")
        assert [call(g, "shop", "ask") for g in (first, second)] == [(1, 1), (2, 2)]
    finally:
        sys.path.remove(site.path[1])


def test_each_module_is_counted(site: Site) -> None:
    """Whoever builds is told of every module, wherever its code comes from."""
    site.write(shop="import shop.lazy\n" + LAZILY, shop__lazy="V = 1\n")
    seen: list[int] = []
    generation = site.live.build(site.take(), "test", seen.append)
    assert seen == [2, 2]  # the package has begun before its module, and ends after it
    assert isinstance(generation.modules, ModuleTable)
    site.live.discard(generation)

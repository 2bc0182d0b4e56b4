from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwsgi.isolation import view
from tests.isolation.apart import each_sees_itself
from tests.isolation.sources import Site, call, write

WAYS = {
    "import statement": """
        def ask():
            import shop.lazy
            from shop.lazy import V
            from shop import lazy
            assert lazy is shop.lazy
            return V
    """,
    "relative import": """
        def ask():
            from . import lazy
            from .lazy import V
            from .deep.er import up
            assert up.V == V
            return lazy.V
    """,
    "import as": """
        def ask():
            import shop.lazy as lazy
            return lazy.V
    """,
    "import_module": """
        import importlib
        def ask():
            assert importlib.import_module(".lazy", "shop").V
            return importlib.import_module("shop.lazy").V
    """,
    "__import__": """
        import builtins
        def ask():
            assert builtins.__import__("shop.lazy").lazy.V == __import__("shop.lazy").lazy.V
            return builtins.__import__("shop.lazy", fromlist=["V"]).V
    """,
    "sys.modules": """
        import sys
        def ask():
            import shop.lazy
            assert "shop.lazy" in sys.modules and "shop.nothing" not in sys.modules
            assert sys.modules["shop.lazy"] is sys.modules.get("shop.lazy") is shop.lazy
            assert "shop.lazy" in list(sys.modules) and sys.modules.copy()["shop"] is shop
            assert dict(sys.modules.items())["shop.lazy"] is shop.lazy
            assert dict(sys.modules)["sys"] is sys
            return sys.modules["shop.lazy"].V
    """,
    "pickle in C": """
        import pickle
        from shop.lazy import Thing
        def ask():
            copy = pickle.loads(pickle.dumps(Thing(1)))
            assert type(copy) is Thing
            return copy.version
    """,
    "pickle in Python": """
        import io, pickle
        from shop.lazy import Thing
        def ask():
            file = io.BytesIO()
            pickle._Pickler(file).dump(Thing(1))
            file.seek(0)
            copy = pickle._Unpickler(file).load()
            assert type(copy) is Thing
            return copy.version
    """,
    "copy": """
        import copy
        from shop.lazy import Thing
        def ask():
            made = copy.deepcopy(Thing([1]))
            assert type(made) is Thing
            return made.version
    """,
    "get_type_hints": """
        import typing
        from shop.lazy import Thing, hinted
        def ask():
            assert typing.get_type_hints(Thing)["other"] == typing.Optional[Thing]
            assert typing.get_type_hints(hinted)["a"] == typing.List[Thing]
            assert typing.get_type_hints(hinted)["b"] is Thing
            return typing.get_type_hints(Thing)["other"].__args__[0].version
    """,
    "dataclasses and enum": """
        import dataclasses, pickle
        from shop.lazy import Kind, Thing
        def ask():
            assert type(dataclasses.replace(Thing(1), x=2)) is Thing
            assert pickle.loads(pickle.dumps(Kind.A)) is Kind.A
            return Kind.A.value
    """,
    "pkgutil": """
        import pkgutil, sys
        def ask():
            names = {m.name for m in pkgutil.iter_modules(sys.modules["shop"].__path__)}
            assert "only1" in names or "only2" in names
            walked = [m.name for m in pkgutil.walk_packages(sys.modules["shop"].__path__, "shop.")]
            assert "shop.deep.er" in walked
            for finder, name, _ in pkgutil.iter_modules(sys.modules["shop"].__path__, "shop."):
                assert type(finder.find_spec(name).loader) is type(__loader__)
            return "1" if "only1" in names else "2"
    """,
    "inspect": """
        import inspect
        from shop import lazy
        def ask():
            assert inspect.getmodule(lazy.Thing) is lazy
            return lazy.V
    """,
    "shared library": """
        import helping_library
        def ask():
            assert helping_library.statement() == helping_library.late().V
            return helping_library.late().V
    """,
    "threads": """
        import importlib, sys, threading, pickle
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        pool.submit(int).result()
        def look():
            from shop.lazy import V, Thing
            assert type(pickle.loads(pickle.dumps(Thing(1)))) is Thing
            assert importlib.import_module("shop.lazy").V == sys.modules["shop.lazy"].V == V
            return V
        def ask():
            found = []
            thread = threading.Thread(target=lambda: found.append(look()))
            thread.start()
            thread.join()
            assert found == [pool.submit(look).result()]
            return found[0]
    """,
    "importlib.util": """
        import importlib.util
        def ask():
            assert importlib.util.find_spec("shop.nothing") is None
            assert importlib.util.find_spec("shop.lazy").loader.get_source("shop.lazy")
            module = importlib.import_module("shop.lazy")
            assert importlib.reload(module) is module
            return module.V
    """,
}


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("way", WAYS)
def test_each_generation_sees_itself(site: Site, way: str) -> None:
    """Of two live generations each sees only its own modules, also when the files are gone."""
    each_sees_itself(site, WAYS[way])


def test_resources_and_source_of_vanished_files(site: Site) -> None:
    """importlib.resources reads data beside the code; source lines outlive the file."""
    code = """
        import importlib.resources, inspect
        def ask():
            return importlib.resources.files("shop").joinpath("data.txt").read_text()
        def lines():
            return inspect.getsource(ask)
    """
    site.write(shop="", shop__asking=code)
    (site.root / "shop/data.txt").write_text("here")
    generation = site.serve()
    assert call(generation, "shop.asking", "ask") == "here"
    shutil.rmtree(site.root)
    assert "importlib.resources" in call(generation, "shop.asking", "lines")


def test_circular_imports(site: Site) -> None:
    """Modules that import each other, in every form, load as they do without genwsgi."""
    site.write(
        shop="from . import a\n",
        shop__a="from shop import b\nimport shop.b as again\nassert again is b\nV = b.__name__\n",
        shop__b="from shop import a\nimport shop.a as again\nfrom . import a as more\n"
        "from .a import *\n",
    )
    generation = site.serve()
    assert generation.modules.modules["shop.b"].a is generation.modules.modules["shop.a"]


def test_failed_submodule_is_not_bound(site: Site) -> None:
    """A submodule whose code raised is no attribute of its package; what was there is again."""
    site.write(
        shop="""
            kept = 1
            for name in ("kept", "broken"):
                try:
                    __import__("shop." + name)
                except ZeroDivisionError:
                    pass
            from shop import kept as found
        """,
        shop__kept="1/0",
        shop__broken="1/0",
    )
    module = site.serve().modules.modules["shop"]
    assert module.found == 1
    assert not hasattr(module, "broken")
    assert "shop.broken" not in sys.modules


def test_star_import(site: Site) -> None:
    """``from x import *`` takes ``__all__``, submodules included, or the public names."""
    site.write(
        shop="from .names import *\nfrom .package import *\nassert (A, child.B) == (1, 2)\n",
        shop__names="A = 1\n_hidden = 1\n",
        shop__package____init__="__all__ = ['child']\n",
        shop__package__child="B = 2\n",
    )
    assert not hasattr(site.serve().modules.modules["shop"], "_hidden")


def test_namespace_package(site: Site) -> None:
    """A namespace package that is named is in the scope, each generation with its own parts."""
    site.scope = ("space",)
    first, second = site.two(
        shop="def ask():\n    import space.part\n    from space import part as again\n"
        "    assert again is space.part\n    return again.V\n",
        space__part="V = VERSION\n",
    )
    assert [call(g, "shop", "ask") for g in (first, second)] == [1, 2]


def test_module_that_replaces_itself(site: Site) -> None:
    """What a module puts in its own place in sys.modules is what its generation imports."""
    first, second = site.two(
        shop="import shop.me\nimport shop.cls\nfrom shop.cls import sub\n"
        "def ask():\n    from shop import me\n    return me.V, sub.V\n",
        shop__me="import sys\nclass Me:\n    V = VERSION\nsys.modules[__name__] = Me()\n",
        shop__cls____init__="import sys\nclass Me:\n    pass\nMe.__path__ = __path__\n"
        "Me.__spec__ = __spec__\nMe.__name__ = __name__\nsys.modules[__name__] = Me\n",
        shop__cls__sub="V = VERSION\n",
    )
    assert [call(g, "shop", "ask") for g in (first, second)] == [(1, 1), (2, 2)]


def test_module_getattr(site: Site) -> None:
    """A module's ``__getattr__`` answers for names that it has not, lazily imported ones too."""
    first, second = site.two(
        shop="import importlib\ndef __getattr__(name):\n"
        "    if name == 'late':\n        return importlib.import_module('shop.lazy').V\n"
        "    raise AttributeError(name)\ndef ask():\n    from shop import late\n    return late\n",
        shop__lazy="V = VERSION",
    )
    assert [call(g, "shop", "ask") for g in (first, second)] == [1, 2]


def test_conditional_import(site: Site) -> None:
    """``except ImportError`` catches what isn't there, in the scope and out of it."""
    site.write(
        shop="""
            found = []
            for name in ("shop.nothing", "no_such_library", "shop.data.x"):
                try:
                    __import__(name)
                except ModuleNotFoundError as error:
                    found.append(error.name)
            try:
                from shop import nothing
            except ImportError:
                found.append("from")
            try:
                from .... import nothing
            except ImportError:
                found.append("beyond")
        """,
        shop__data="",
    )
    found = site.serve().modules.modules["shop"].found
    assert found == ["shop.nothing", "no_such_library", "shop.data.x", "from", "beyond"]


def test_later_file_is_not_visible(site: Site) -> None:
    """A module that came to the disk after the snapshot is not there, by whatever way."""
    ask = """
        import importlib, importlib.util, pkgutil, sys
        def ask():
            importlib.invalidate_caches()
            for name in ("shop.late", "shop.folder"):
                assert importlib.util.find_spec(name) is None
                try:
                    importlib.import_module(name)
                except ModuleNotFoundError as error:
                    assert error.name == name
                else:
                    raise AssertionError(name)
            return [m.name for m in pkgutil.iter_modules(sys.modules["shop"].__path__)]
    """
    site.write(shop=ask)
    generation = site.serve()
    site.write(shop__late="", shop__folder____init__="")
    assert call(generation, "shop", "ask") == []


def test_top_level_module_of_another_generation(site: Site) -> None:
    """A top-level module that only another generation has is not there for this one."""
    site.write(shop="import gone", gone="")
    old = site.serve()
    site.pending = site.request()
    optional = "try:\n    import gone\nexcept ImportError:\n    gone = None\n"
    site.replace(shop=optional, fresh="V = 1")
    new = site.build()
    assert new.modules.modules["shop"].gone is None
    site.live.swap(new)
    assert new.run(importlib.import_module, "fresh").V == 1
    shutil.rmtree(site.root)
    with pytest.raises(ModuleNotFoundError):
        old.run(importlib.import_module, "fresh")
    with pytest.raises(ModuleNotFoundError):
        old.modules.import_("fresh")
    assert old.run(lambda: "fresh" in sys.modules) is False
    assert old.run(lambda: "fresh" in list(sys.modules)) is False


def test_shared_for_one_scoped_for_another(site: Site, tmp_path: Path) -> None:
    """A package that came into the scope stays the shared one for the generation before."""
    write(tmp_path / "site-packages", {"plugin_lib.py": "V = object()\n"})
    site.path = (str(site.root), str(tmp_path / "site-packages"))
    sys.path.append(site.path[1])
    try:
        lazily = "def ask():\n    import plugin_lib\n    return plugin_lib.V\n"
        site.write(shop="import plugin_lib\n" + lazily)
        old = site.serve()
        site.pending = site.request()
        shared = sys.modules["plugin_lib"]
        site.scope = ("plugin_lib",)
        new = site.serve()
        assert call(old, "shop", "ask") is shared.V
        assert call(new, "shop", "ask") is not shared.V
        assert old.run(sys.modules.get, "plugin_lib") is shared
        assert old.run(sys.modules.copy)["plugin_lib"] is shared
        assert view.real["plugin_lib"] is not shared
        site.pending.close()
        site.close()
        assert "plugin_lib" not in sys.modules, "kept, though the last that shared it has retired"
    finally:
        sys.path.remove(site.path[1])
        sys.modules.pop("plugin_lib", None)


def test_proxy(site: Site) -> None:
    """What C code finds in the interpreter's own table behaves as the module that is meant."""
    first, second = site.two(shop="V = VERSION\n")
    proxy: Any = view.real["shop"]
    assert isinstance(proxy, ModuleType)
    assert (first.run(getattr, proxy, "V"), second.run(getattr, proxy, "V"), proxy.V) == (1, 2, 2)
    first.run(setattr, proxy, "W", 3)
    assert first.modules.modules["shop"].W == 3
    assert not hasattr(proxy, "W")
    first.run(delattr, proxy, "W")
    assert not hasattr(first.modules.modules["shop"], "W")
    assert "V" in dir(proxy)
    assert repr(proxy) == repr(second.modules.modules["shop"])


OPERATIONS: dict[str, Callable[[Any, str, ModuleType], Any]] = {
    "set": lambda d, k, v: d.__setitem__(k, v),
    "del": lambda d, k, v: d.__delitem__(k),
    "get": lambda d, k, v: d.get(k),
    "item": lambda d, k, v: d[k],
    "in": lambda d, k, v: k in d,
    "pop": lambda d, k, v: d.pop(k),
    "pop with a default": lambda d, k, v: d.pop(k, None),
    "setdefault": lambda d, k, v: d.setdefault(k, v),
    "update": lambda d, k, v: d.update({k: v}),
    "merge": lambda d, k, v: d.__ior__({k: v}) and None,
    "listed": lambda d, k, v: k in list(d),
    "reversed": lambda d, k, v: k in list(reversed(d)),
    "keys": lambda d, k, v: k in d.keys(),  # noqa: SIM118 -- the view is what is tried
    "values": lambda d, k, v: v in d.values(),
    "items": lambda d, k, v: (k, v) in d.items(),
    "or": lambda d, k, v: (d | {"zz": v}).get(k),
    "copy": lambda d, k, v: d.copy().get(k),
}
VALUES = [ModuleType("one"), ModuleType("two")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(OPERATIONS)),
            st.sampled_from(["ma", "mb", "shop.x", "shop.y"]),
            st.sampled_from(VALUES),
        )
    )
)
def test_sys_modules_is_a_dict(steps: list[tuple[str, str, ModuleType]]) -> None:
    """With nothing served, and with names shared or scoped, sys.modules does what a dict does."""
    modules = view.SysModules()
    model: dict[str, ModuleType] = {}
    try:
        for operation, key, value in steps:
            outcomes = []
            for subject in (modules, model):
                try:
                    outcomes.append(OPERATIONS[operation](subject, key, value))
                except KeyError as error:
                    outcomes.append(error.args)
            assert outcomes[0] == outcomes[1], (operation, key)
    finally:
        for name in ("ma", "mb", "shop.x", "shop.y"):
            view.real.pop(name, None)


def test_view_of_sys_modules(site: Site) -> None:
    """The view is as long, as true and as equal as the dict it stands for."""
    site.write(shop="")
    site.serve()
    assert sys.modules
    assert len(sys.modules) == len(sys.modules.copy())
    assert sys.modules == sys.modules.copy()
    assert "'shop'" in repr(sys.modules)
    assert "shop" in ({} | sys.modules)
    assert sys.modules.__reduce__()[0] is dict


def test_failed_import_of_none(site: Site) -> None:
    """None in sys.modules stops an import, as Python has it."""
    site.write(shop="import sys\nsys.modules['shop.x'] = None\n", shop__x="")
    generation = site.serve()
    with pytest.raises(ModuleNotFoundError, match=r"halted; None in sys\.modules"):
        generation.run(importlib.import_module, "shop.x")

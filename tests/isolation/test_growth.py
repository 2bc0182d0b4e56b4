from __future__ import annotations

import builtins
import gc
import html
import importlib
import importlib.machinery
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.errors import ScopeError
from genwsgi.isolation import recording, view
from genwsgi.isolation.growth import Verdict
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, write

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


@pytest.fixture
def installed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages of others are installed in; what is loaded from it is forgotten."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    site.path += (str(folder),)
    before = set(sys.modules)
    # What the applications of other tests have imported, under the same names, is not seen.
    monkeypatch.setattr(recording, "_edges", {})
    yield folder
    site.close()
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_importers_of_the_application_join(site: Site, installed: Path) -> None:
    """An installed package that imports the application joins: each generation has its own."""
    write(
        installed, {"kit/__init__.py": "", "kit/models.py": "import shop.models\nM = shop.models\n"}
    )
    site.write(shop="import shop.models, kit.models\n", shop__models="V = 1\n")
    assert site.grow() == {"kit": "imports shop (kit.models: import shop.models)"}
    first = site.live.current
    site.write(shop__models="V = 2\n")
    second = site.serve()
    assert second.run(second.modules.import_module, "kit.models").M.V == 2
    assert first is not second


def test_what_requests_import_counts_with_the_next_build(site: Site, installed: Path) -> None:
    """A package joins that only code which requests have loaded uses, if it keeps what is there."""
    write(installed, {"kit.py": "listed = []\n"})
    site.write(
        shop="class Page: ...\ndef ask():\n    import shop.views\n",
        shop__views="import kit, shop\nkit.listed.append(shop.Page)\n",
    )
    first = site.serve()
    call(first, "shop", "ask")
    assert list(site.grow()) == ["kit"]


@pytest.mark.parametrize("error", ["", "    raise LookupError('kit has another Page')\n"])
def test_a_check_that_fails_for_a_scope_that_is_too_small(
    site: Site, installed: Path, error: str
) -> None:
    """A candidate is verified before its scope is looked at; if it fails, and the scope lacks
    something, the scope is what is wrong, and nobody is told that the look alone is left.
    """
    write(installed, {"kit.py": "import shop.models\n"})
    site.write(
        shop="import genwsgi, shop.models, kit\n@genwsgi.verify\ndef check():\n    pass\n" + error,
        shop__models="",
    )
    looks: list[bool] = []
    with pytest.raises(ScopeError, match="needs a larger scope: kit"):
        site.live.build(site.take(), "test", on_look=lambda: looks.append(True))
    assert looks == [True] * (not error)


def test_nothing_is_left_of_a_build_whose_scope_was_too_small(site: Site, installed: Path) -> None:
    """The shared copy that such a build has loaded is gone; what others had loaded stays."""
    write(installed, {"kit.py": "import shop.models\n", "plain.py": ""})
    site.write(shop="import shop.models, kit, plain\n", shop__models="")
    with pytest.raises(ScopeError, match="needs a larger scope: kit") as caught:
        site.build(grow=True)
    assert [item.name for item in caught.value.additions] == ["kit"]
    assert "kit" not in sys.modules
    assert "shop" not in sys.modules
    assert "plain" in sys.modules
    assert builtins.__import__ is recording._original
    site.grow()
    assert site.live.current is not None
    assert site.live.current.number == 1


def test_the_shared_copy_takes_its_wrappers_along(site: Site, installed: Path) -> None:
    """What a package has replaced before it joined is put back: else it would be there twice."""
    before = html.escape
    tracer = """
        import html, shop.models
        calls = []
        escape = html.escape
        def traced(text):
            calls.append(text)
            return escape(text)
        html.escape = traced
    """
    write(installed, {"tracer.py": tracer})
    site.write(shop="import shop.models, tracer\n", shop__models="")
    with pytest.raises(ScopeError):
        site.build(grow=True)
    assert html.escape is before
    site.grow()
    current = site.live.current
    assert current is not None
    current.run(html.escape, "&")
    joined = current.run(current.modules.import_module, "tracer")
    assert joined.calls == ["&"]
    assert joined.escape is before


def test_back_to_a_scope_that_was_smaller(site: Site, installed: Path) -> None:
    """A package that has joined since is shared again in a generation that goes back: it is loaded
    anew, all of it, and is whole when those generations are gone in whose scope it was.
    """
    write(
        installed,
        {
            "kit/__init__.py": "from .deep import V\nimport kit.deep\nlisted = []\n"
            "def ask():\n    return V, kit.deep.V\n",
            "kit/deep.py": "V = 1\n",
        },
    )
    site.write(shop="import kit\n")
    before = site.take()
    site.serve()
    site.write(shop="import kit\nclass Page: ...\nkit.listed.append(Page)\n")
    assert list(site.grow()) == ["kit"]
    wait_until(lambda: "kit" not in view.shared_modules(), what="the shared copy dropped")
    site.live.swap(site.live.build(before, "back", look=False))
    back = site.live.current
    assert back is not None
    kit = back.run(importlib.import_module, "kit")
    assert back.run(kit.ask) == (1, 1)
    wait_until(lambda: type(view.real["kit.deep"]) is not view.ModuleProxy, what="no more proxies")
    assert back.run(kit.ask) == (1, 1)


def test_not_looked_for_where_another_process_has(site: Site, installed: Path) -> None:
    """A build that is told not to look is done with the scope it has, and says nothing of it."""
    write(installed, {"kit.py": "import shop.models\n"})
    site.write(shop="import shop.models, kit\n", shop__models="")
    site.live.discard(site.live.build(site.take(), "r", look=False))
    with pytest.raises(ScopeError):
        site.live.build(site.take(), "r")


def test_only_logged_where_it_can_t_be_helped(
    site: Site, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that boots a release serves it with the scope it has, and says so once."""
    write(installed, {"logged.py": "import shop.models\n"})
    site.write(shop="import shop.models, logged\n", shop__models="")
    for _ in range(2):
        site.live.swap(site.live.build(site.take(), "r", grow=False))
    lines = [r.getMessage() for r in caplog.records if "logged" in r.getMessage()]
    assert len(lines) == 1
    assert "logged is shared by all generations until the next deploy" in lines[0]


@pytest.mark.parametrize(
    "code",
    {
        "a class in a dict": "import kit\nclass Page: ...\nkit.registry['page'] = Page\n",
        "an attribute of its object": "import kit\nclass Page: ...\nkit.thing.kept = Page\n",
        "an attribute of its class": "import kit\nclass Page: ...\nkit.Thing.kept = [Page()]\n",
        "an instance in a list": "import kit\nclass Page: ...\nkit.listed.append(Page())\n",
        "a closure": "import kit\nclass Page: ...\nkit.listed.append(kit.closure(Page))\n",
        "a partial": "import kit, functools\ndef f(): ...\n"
        "kit.listed.append(functools.partial(max, key=f))\n",
        "a cache": "import kit\nclass Page: ...\nkit.cached(Page)\n",
        "a receiver, held weakly": "import kit, weakref\ndef f(): ...\n"
        "kit.listed.append(weakref.ref(f))\n",
        "a method, held weakly": "import kit, weakref\nclass Page:\n    def f(self): ...\n"
        "page = Page()\nkit.listed.append(weakref.WeakMethod(page.f))\n",
        "a module": "import kit, sys\nkit.listed.append(sys.modules[__name__])\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_holders_join(site: Site, installed: Path, code: tuple[str, str]) -> None:
    """A shared package that keeps something of the application's joins the scope."""
    write(
        installed,
        {
            "kit.py": "import functools\nregistry, listed = {}, []\nclass Thing: ...\n"
            "thing = Thing()\ndef closure(x):\n    return lambda: x\n"
            "@functools.lru_cache\ndef cached(x): ...\n"
        },
    )
    site.write(shop="import shop.models\n", shop__models=code[1])
    joined = site.grow()
    assert list(joined) == ["kit"]
    assert joined["kit"].startswith("holds shop.models")
    site.serve()


@pytest.mark.parametrize(
    "code",
    {
        "a class, held weakly": "import kit, weakref\nclass Page: ...\n"
        "kit.listed.append(weakref.ref(Page))\n",
        "an instance in a weak cache": "import kit, weakref\nclass Page: ...\npage = Page()\n"
        "kit.weak['x'] = page\n",
        "a proxy that must not be touched": "import kit\nclass Proxy(kit.Untouchable): ...\n",
        "plain data": "import kit\nkit.registry['x'] = ['y', 1, {'z': (1, 2)}]\n",
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_no_registry(site: Site, installed: Path, code: tuple[str, str]) -> None:
    """Weak caches and plain data don't make a package join; nothing foreign is called."""
    write(
        installed,
        {
            "kit.py": "import weakref\nregistry, listed = {}, []\n"
            "weak = weakref.WeakValueDictionary()\n"
            "class Untouchable:\n"
            "    def __getattribute__(self, name):\n        raise SystemExit(name)\n"
            "    __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __getattribute__\n"
            "proxy = Untouchable()\n"
        },
    )
    site.write(shop="import shop.models\n", shop__models=code[1])
    assert site.grow() == {}


def test_shared_on_request_or_compiled(
    site: Site, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A package named with --share stays shared, and one with compiled modules; the log says so."""
    write(
        installed,
        {
            "stays.py": "import shop.models\n",
            "fast/__init__.py": "import shop.models\n",
            f"fast/deep/_speed{SUFFIX}": "",
            "above.py": "import fast\n",
        },
    )
    caplog.set_level("INFO")
    site.share = ("stays",)
    site.write(shop="import shop.models, stays, above\n", shop__models="")
    assert site.grow() == {}
    text = caplog.text
    assert "stays imports shop (stays: import shop.models), but --share names it" in text
    assert f"but has compiled modules (fast/deep/_speed{SUFFIX}) and stays shared" in text


def test_known_registry(site: Site, installed: Path) -> None:
    """A package that is known to keep registries joins if the application loads it."""
    write(installed, {"cherrypy/__init__.py": "", "dramatiq/__init__.py": ""})
    site.write(shop="import cherrypy\n")
    assert list(site.grow()) == ["cherrypy"]


def test_loaded_before_anything_was_recorded(site: Site, installed: Path) -> None:
    """Of what the host program had loaded, the globals tell who imports whom."""
    write(
        installed,
        {
            "base.py": "registry = []\nclass Base: ...\n",
            "upon.py": "from base import Base\n",
            "lonely.py": "",
        },
    )
    importlib.import_module("upon")
    importlib.import_module("lonely")
    site.write(shop="import base, upon, lonely\nclass Page: ...\nbase.registry.append(Page)\n")
    joined = site.grow()
    assert set(joined) == {"base", "upon"}
    assert joined["upon"] == "imports base (upon holds something of base)"
    assert "upon" in sys.modules, "what the host program has loaded is its own"


def test_moved_into_the_scope_the_shared_copy_goes(site: Site, installed: Path) -> None:
    """When no generation uses the shared copy of a package any more, it and what it holds go."""
    write(installed, {"kit.py": "class Base: ...\nlisted = []\n"})
    site.write(shop="import shop.models\n", shop__models="import kit\n")
    assert site.grow() == {}
    pending = site.request(lambda: "answer")
    shared = weakref.ref(sys.modules["kit"])
    site.write(shop__models="import kit\nclass Page: ...\nkit.listed.append(Page)\n")
    assert list(site.grow()) == ["kit"]
    assert shared() is not None
    current = site.live.current
    assert current is not None
    assert current.run(current.modules.import_module, "kit") is not shared()
    assert b"".join(pending) == b"answer"
    pending.close()
    del pending

    def gone() -> bool:
        gc.collect()
        return shared() is None

    wait_until(gone, what="the shared copy is collected")


def test_folder_that_the_application_puts_on_the_path(site: Site, installed: Path) -> None:
    """Modules in such a folder are the application's own, found anew in each release."""
    first, second = site.root.parent / "r1", site.root.parent / "r2"
    code = """
        import os, sys
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), "lib"))
        import addon
        V = addon.V
    """
    for number, release in enumerate((first, second), 1):
        write(release, {"shop/models.py": code, "lib/addon.py": f"V = {number}\n"})
        write(
            release,
            {"shop/__init__.py": "import shop.models\ncreate_app = lambda: lambda e, s: []\n"},
        )
    link = site.root.parent / "current"
    link.symlink_to(first)
    site.path = (str(link), str(installed))
    assert site.grow() == {str(link / "lib"): "the application puts it on sys.path"}
    link.unlink()
    link.symlink_to(second)
    generation = site.serve()
    assert generation.run(generation.modules.import_module, "addon").V == 2
    assert "addon" in generation.modules.names


def test_packages_in_folders_that_the_application_puts_on_the_path(
    site: Site, installed: Path
) -> None:
    """They have their submodules, and a namespace package its parts in each of these folders."""
    site.path = (str(site.root), str(installed))
    write(
        site.root,
        {
            "lib/kit/__init__.py": "from kit.sub import V\n",
            "lib/kit/sub.py": "V = 1\n",
            "lib/space/one.py": "V = 2\n",
            "more/space/two.py": "V = 3\n",
        },
    )
    site.write(
        shop="""
            import os, sys
            home = os.path.dirname(os.path.dirname(__file__))
            sys.path[:0] = [os.path.join(home, "lib"), os.path.join(home, "more")]
            import kit, space.one, space.two
            V = kit.V, space.one.V, space.two.V
        """
    )
    why = "the application puts it on sys.path"
    assert site.grow() == {str(site.root / folder): why for folder in ("lib", "more")}
    generation = site.serve()
    assert generation.run(generation.modules.import_module, "shop").V == (1, 2, 3)
    assert {"kit", "space"} <= generation.modules.names


def test_verdicts(site: Site, installed: Path) -> None:
    """Each package that the application uses is explained, those in the scope first."""
    write(
        installed,
        {
            "kit.py": "import shop.models\n",
            "plain.py": "",
            "kept.py": "",
            "fast/__init__.py": "",
            f"fast/_speed{SUFFIX}": "",
        },
    )
    site.share = ("kept",)
    site.write(shop="import shop.models, kit, plain, kept, fast\n", shop__models="")
    site.grow()
    verdicts: list[Verdict] = []
    site.live.discard(site.live.build(site.take(), "r", verdicts=verdicts))
    assert [(v.name, v.inside, v.reason) for v in verdicts] == [
        ("kit", True, "imports shop (kit: import shop.models)"),
        ("shop", True, "the application's own"),
        ("fast", False, f"compiled: fast/_speed{SUFFIX}"),
        ("kept", False, "named by --share"),
        ("plain", False, "imports nothing of the scope"),
    ]


def test_a_borrowed_name_is_no_import(site: Site, installed: Path) -> None:
    """A function that says it is of another module's (attrs' do) does not make its package join."""
    write(installed, {"borrower.py": "def evolve(): ...\n"})
    importlib.import_module("borrower")
    site.write(shop="import borrower\nborrower.evolve.__module__ = 'shop'\n")
    assert site.grow() == {}
    assert site.grow() == {}


def test_what_can_t_be_found_is_not_asked_for_again(site: Site, installed: Path) -> None:
    """A package that is not on the path any more does not end one build after the other."""
    write(installed, {"hidden.py": "listed = []\n"})
    importlib.import_module("hidden")
    (installed / "hidden.py").unlink()
    site.write(shop="import hidden\nclass Page: ...\nhidden.listed.append(Page)\n")
    assert list(site.grow()) == ["hidden"]
    current = site.live.current
    assert current is not None
    assert "hidden" not in current.modules.names

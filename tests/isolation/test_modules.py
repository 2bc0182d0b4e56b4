from __future__ import annotations

import builtins
import threading

import pytest

from genwsgi.generations.generation import Generation
from genwsgi.isolation.modules import bootstrap
from tests.helpers import wait_until
from tests.isolation.sources import LAZILY, Site, call, torn_down

BUILDING_BLOCKS = [
    "_find_and_load",
    "_find_and_load_unlocked",
    "_handle_fromlist",
    "_lock_unlock_module",
    "_ModuleLockManager",
    "_calc___package__",
    "_resolve_name",
    "__import__",
]


@pytest.mark.parametrize("name", BUILDING_BLOCKS)
def test_building_blocks(name: str) -> None:
    """The private functions of the import system that tables are built on are there."""
    assert callable(getattr(bootstrap, name))


def test_import_returns_what_python_documents(site: Site) -> None:
    """``__import__`` returns the top package, or the module itself with a fromlist or a level."""
    site.write(shop="", shop__a____init__="", shop__a__b="from . import c\n", shop__a__c="")
    generation = site.serve()
    table = generation.modules
    modules = table.modules
    assert table.import_("shop.a.b") is modules["shop"]
    assert table.import_("shop.a", fromlist=("b",)) is modules["shop.a"]
    here = {"__package__": "shop", "__name__": "shop.x", "__spec__": None}
    assert table.import_("a.b", here, level=1) is modules["shop.a"]
    assert table.import_("", here, fromlist=("a",), level=1) is modules["shop"]
    assert table.import_("", here, level=1) is modules["shop"]
    assert table.import_("os.path", fromlist=("join",)).join
    with pytest.raises(ValueError, match="Empty module name"):
        table.import_("")
    assert repr(table) == "<ModuleTable of generation 1, 4 modules>"


def test_code_belongs_to_its_generation_on_any_thread(site: Site) -> None:
    """A function of an old generation imports its own modules, called by whomever."""
    first, second = site.two(
        shop="def ask():\n    import shop.lazy\n    from . import later\n"
        "    return shop.lazy.V, later.V\n",
        shop__lazy="V = VERSION",
        shop__later="V = VERSION",
    )
    old, new = (g.modules.modules["shop"] for g in (first, second))
    found: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: found.append(old.ask()))
    thread.start()
    thread.join()
    assert found == [(1, 1)]
    assert second.run(old.ask) == (1, 1)
    assert first.run(new.ask) == (2, 2)


def test_import_after_the_end(site: Site) -> None:
    """Code left over from a retired generation imports nothing, and above all no newer module."""
    site.write(shop=LAZILY, shop__lazy="V = 1")
    first = site.serve()
    old = first.modules.modules["shop"].ask
    site.write(shop__lazy="V = 2")
    second = site.serve()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    with pytest.raises(ImportError, match="generation 1 is retired"):
        old()
    with pytest.raises(ImportError, match="generation 1 is retired"):
        first.run(__import__, "shop.lazy")
    assert "shop.lazy" not in second.modules.modules
    assert call(second, "shop", "ask") == 2


def test_hung_build_holds_up_nobody(site: Site) -> None:
    """A build that hangs in a module does not delay a request that imports the older one."""
    gate = threading.Event()
    builtins.gate = gate  # type: ignore[attr-defined]
    try:
        site.write(
            shop="def ask():\n    import shop.slow\n    return shop.slow.V\n", shop__slow="V = 1"
        )
        first = site.serve()
        site.write(shop="import shop.slow", shop__slow="import builtins\ngate.wait(30)\nV = 2\n")
        built: list[Generation] = []
        thread = threading.Thread(target=lambda: built.append(site.build()))
        thread.start()
        try:
            wait_until(lambda: _held(gate), what="the build hangs")
            assert call(first, "shop", "ask") == 1
            assert thread.is_alive()
        finally:
            gate.set()
            thread.join(60)
        site.live.discard(built[0])
    finally:
        del builtins.gate  # type: ignore[attr-defined]


def _held(gate: threading.Event) -> bool:
    return bool(gate._cond._waiters)  # type: ignore[attr-defined]


def test_threads_in_a_circle(site: Site) -> None:
    """Two threads that import a circle of modules from both ends both get them."""
    barrier = threading.Barrier(2, timeout=10)
    builtins.meet = barrier.wait  # type: ignore[attr-defined]
    try:
        site.write(
            shop="def ask(name):\n    import importlib\n"
            "    return importlib.import_module('shop.' + name).__name__\n",
            shop__a="meet()\nimport shop.b\nfrom shop import b\n",
            shop__b="meet()\nimport shop.a\nfrom shop import a\n",
        )
        generation = site.serve()
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(call(generation, "shop", "ask", n)))
            for n in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(found) == ["shop.a", "shop.b"]
    finally:
        del builtins.meet  # type: ignore[attr-defined]


def test_importers_wait_for_each_other(site: Site) -> None:
    """A module that one thread is loading is seen by another only when it is complete."""
    started, gate = threading.Event(), threading.Event()
    builtins.started, builtins.gate = started, gate  # type: ignore[attr-defined]
    try:
        site.write(
            shop="def ask():\n    from shop import slow\n    return slow.V\n",
            shop__slow="started.set()\ngate.wait(60)\nV = 1\n",
        )
        generation = site.serve()
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(call(generation, "shop", "ask")))
            for _ in range(2)
        ]
        threads[0].start()
        assert started.wait(10)
        threads[1].start()
        gate.set()
        for thread in threads:
            thread.join(60)
        assert found == [1, 1]
    finally:
        del builtins.started, builtins.gate  # type: ignore[attr-defined]


def test_builtins(site: Site) -> None:
    """Names put into builtins are found, and those a generation puts there are its own."""
    builtins.before = 1  # type: ignore[attr-defined]
    try:
        first, second = site.two(
            shop="import builtins, shop.puts\nbuiltins.mine = VERSION\n"
            "def ask():\n    return mine, before, via_shared\n",
            shop__puts="import sys\nvars(sys.modules['builtins'])['via_shared'] = 3\n",
        )
        assert [call(g, "shop", "ask") for g in (first, second)] == [(1, 1, 3), (2, 1, 3)]
        assert not hasattr(builtins, "mine")
    finally:
        del builtins.before  # type: ignore[attr-defined]
        del builtins.via_shared  # type: ignore[attr-defined]

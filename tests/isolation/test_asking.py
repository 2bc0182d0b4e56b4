from __future__ import annotations

import contextvars
import gc
import importlib
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from genwsgi.generations.generation import active
from genwsgi.isolation import view
from genwsgi.isolation.asking import asking
from genwsgi.isolation.modules import EndedTable
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, torn_down

#: Code of the application that looks its own module up by every name.
LOOKS = {
    "shop": "",
    "shop__lazy": """
        V = VERSION
        class Thing:
            version = VERSION
    """,
    "shop__asking": """
        import importlib, pickle, sys
        from shop.lazy import Thing
        def look(*_):
            import shop.lazy
            found = {
                shop.lazy.V,
                importlib.import_module("shop.lazy").V,
                sys.modules["shop.lazy"].V,
                pickle.loads(pickle.dumps(Thing())).version,
            }
            assert len(found) == 1, found
            return found.pop()
        def through(submit):
            return submit(look).result(10)
    """,
}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread that belongs to no generation, as a shared library has one."""
    with ThreadPoolExecutor(1) as made:
        yield made


def test_pool_of_a_shared_library(site: Site, pool: ThreadPoolExecutor) -> None:
    """On a shared pool's thread code is its own generation's, whichever started the thread."""
    first, second = site.two(**LOOKS)
    for _ in range(2):
        assert call(first, "shop.asking", "through", pool.submit) == 1
        assert call(second, "shop.asking", "through", pool.submit) == 2
    assert pool.submit(asking).result(10) in (None, first)


def test_kept_context_of_another_generation(site: Site) -> None:
    """A context that was kept from one generation makes another's code nothing else."""
    first, second = site.two(**LOOKS)
    kept = first.run(contextvars.copy_context)
    assert kept.run(active.get) is first
    assert second.run(kept.run, second.modules.import_module("shop.asking").look) == 2
    assert kept.run(first.modules.import_module("shop.asking").look) == 1
    # Nobody's code in it is the generation's that the context is from.
    assert kept.run(importlib.import_module, "shop.lazy").V == 1


def test_nearest_generation_asks(site: Site) -> None:
    """Of two generations that call each other the one whose code is nearest asks."""
    first, second = site.two(
        shop="""
        import importlib
        V = VERSION
        def ask(inner=tuple):
            mine = importlib.import_module("shop").V
            return (mine, *inner(), importlib.import_module("shop").V)
        """
    )
    old, new = (g.modules.modules["shop"].ask for g in (first, second))
    assert first.run(old, new) == (1, 2, 2, 1)
    assert second.run(new, lambda: old(new)) == (2, 1, 2, 2, 1, 2)
    # A generation that is entered asks, whoever enters it.
    assert old(lambda: [second.run(asking) is second]) == (1, True, 1)


def test_code_in_made_up_builtins(site: Site) -> None:
    """Code that a generation runs with a copy of its builtins is the generation's."""
    first, _ = site.two(
        shop="""
        import builtins, importlib
        V = VERSION
        def ask():
            names = {"__builtins__": dict(vars(builtins)), "importlib": importlib}
            exec("def f():\\n    return importlib.import_module('shop').V", names)
            return names["f"]
        """
    )
    assert call(first, "shop", "ask")() == 1


def test_ended_generation(site: Site) -> None:
    """Code of an ended generation still asks in its name; a thread's old context does not."""
    site.write(**{name: text.replace("VERSION", "1") for name, text in LOOKS.items()})
    first = site.serve()
    kept = first.run(contextvars.copy_context)
    look = first.modules.import_module("shop.asking").look
    site.write(shop__lazy="V = 2\n")
    second = site.serve()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    found: list[Any] = []
    threads = [
        threading.Thread(target=kept.run, args=(lambda: found.append(asking()),)),
        threading.Thread(
            target=kept.run,
            args=(lambda: found.append(importlib.import_module("shop.lazy").V),),
        ),
    ]
    for thread in threads:
        thread.start()
        thread.join(10)
    assert found == [None, 2]
    for run in (second.run, kept.run, lambda function: function()):
        with pytest.raises(ImportError, match="generation 1 is retired"):
            run(look)


def test_what_an_ended_generation_answers(site: Site) -> None:
    """To code that is left of it an ended generation has none of its names, and takes none."""
    site.write(
        shop="""
        import sys
        def ask():
            sys.modules["shop.new"] = sys
            return "shop" in sys.modules, "shop.new" in sys.modules, "shop" in list(sys.modules)
        """
    )
    first = site.serve()
    ask = first.modules.modules["shop"].ask
    site.serve()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert ask() == (False, False, False)
    assert "shop.new" not in sys.modules
    assert "shop.new" not in view.real
    assert isinstance(first.modules, EndedTable)
    assert repr(first.modules) == "<EndedTable: generation 1 is retired>"


def test_old_context_pins_no_modules(site: Site) -> None:
    """A context that outlives its generation keeps none of the generation's modules alive."""
    site.write(shop="")
    first = site.serve()
    table = weakref.ref(first.modules)
    module = weakref.ref(first.modules.modules["shop"])
    kept = first.run(contextvars.copy_context)
    site.serve()
    del first
    wait_until(
        lambda: gc.collect() >= 0 and table() is None and module() is None,
        what="its table and its module are collected",
    )
    assert kept.run(active.get).number == 1  # type: ignore[union-attr]


def test_bare_greenlet(site: Site) -> None:
    """A greenlet that has no context of its own runs code of the generation it belongs to."""
    greenlet = pytest.importorskip("greenlet")
    first, second = site.two(**LOOKS)
    for generation, version in ((first, 1), (second, 2), (first, 1)):
        look = generation.modules.import_module("shop.asking").look
        assert generation.run(greenlet.greenlet(look).switch) == version
        assert greenlet.greenlet(look).switch() == version


@pytest.fixture
def gevent() -> Iterator[Any]:
    """gevent, whose hub is gone after the test.  It keeps the frame that destroys it: this one."""
    module = pytest.importorskip("gevent")
    yield module
    module.get_hub().destroy()


def test_gevent_greenlet(site: Site, gevent: Any) -> None:
    """A greenlet and a pool of gevent's run code of the generation that it belongs to."""
    threadpool = pytest.importorskip("gevent.threadpool")
    first, second = site.two(**LOOKS)
    workers = threadpool.ThreadPool(1)
    try:
        for generation, version in ((first, 1), (second, 2), (first, 1)):
            look = generation.modules.import_module("shop.asking").look
            assert generation.run(gevent.spawn, look).get(timeout=10) == version
            assert gevent.spawn(look).get(timeout=10) == version
            assert generation.run(workers.spawn, look).get(timeout=10) == version
    finally:
        workers.kill()

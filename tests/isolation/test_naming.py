from __future__ import annotations

import collections
import functools
import gc
import logging
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from genwsgi.isolation.holders import belongs, find
from genwsgi.isolation.naming import describe, name_of
from genwsgi.isolation.roots import name_holder, thread_place
from tests.helpers import wait_until
from tests.isolation.sources import Site, torn_down

LIBRARY = """
    import collections, functools, logging, threading
    registry = {}
    LIST = []
    HELD = set()
    local = threading.local()
    class Pool:
        __slots__ = ("size",)
    class Thing: ...
    @functools.lru_cache
    def load(number, key): return 1
    def keep(value):
        def inner(): return value
        return inner
    log = logging.getLogger("shared_lib")
    class Holder:
        one = None
"""
SHOP = {
    "shop": "import shop.models, shop.jobs\n",
    "shop__models": "class Page:\n    def show(self): ...\n",
    "shop__jobs": """\
        import threading
        GATE = threading.Event()
        def poll():
            GATE.wait(120)
    """,
}


@pytest.fixture
def library() -> Iterator[Any]:
    """A shared module that keeps what it is given."""
    module = ModuleType("shared_lib.util")
    source = LIBRARY.replace("\n    ", "\n")
    exec(source, vars(module))
    sys.modules["shared_lib.util"] = module
    yield module
    sys.modules.pop("shared_lib.util", None)


#: The test's own hold, which is on the searching thread.
OUTSIDE = "something outside of Python's modules"


class Old:
    """What is left of a retired generation, in the hands of the test alone."""

    def __init__(self, site: Site, **files: str) -> None:
        first, self.second = site.two(**files)
        table = first.modules
        self.table = weakref.ref(table)
        self.builtins = table.builtins
        self.models = table.modules["shop.models"]
        self.jobs = table.modules["shop.jobs"]
        self.started = first.run
        self.retire = site.pending.close
        self.generation = first

    def holder(self, own: frozenset[int] = frozenset()) -> str:
        """What the log would say of it; the test itself does not count."""
        self.retire()
        wait_until(lambda: torn_down(self.generation), what="the generation is torn down")
        return name_holder(self.table, own)


def lru(lib: Any, models: Any) -> None:
    lib.load(1, models.Page)


def in_dict(lib: Any, models: Any) -> None:
    lib.registry["page"] = models.Page()


def in_list(lib: Any, models: Any) -> None:
    lib.LIST += [1, [models.Page]]


def in_set(lib: Any, models: Any) -> None:
    lib.HELD.add(models.Page.show)


def in_slot(lib: Any, models: Any) -> None:
    lib.POOL = lib.Pool()
    lib.POOL.size = models.Page


def in_attribute(lib: Any, models: Any) -> None:
    lib.THING = lib.Thing()
    lib.THING.page = [models.Page().show]


def in_closure(lib: Any, models: Any) -> None:
    lib.CALL = lib.keep(models.Page)


def in_local(lib: Any, models: Any) -> None:
    lib.local.request = models.Page


def in_partial(lib: Any, models: Any) -> None:
    lib.PART = functools.partial(print, models.Page)


def in_class(lib: Any, models: Any) -> None:
    lib.Holder.one = models


def as_key(lib: Any, models: Any) -> None:
    lib.registry[models.Page] = 1


def by_object(lib: Any, models: Any) -> None:
    lib.registry[(1, 2)] = collections.deque([vars(models)])


def pages(page: Any) -> Iterator[Any]:
    while True:
        yield page


def in_generator(lib: Any, models: Any) -> None:
    lib.GEN = pages(models.Page)
    next(lib.GEN)


def in_mapping(lib: Any, models: Any) -> None:
    lib.PROXY = types.MappingProxyType({"page": models.Page})


def deep(lib: Any, models: Any) -> None:
    lib.DEEP = models.Page
    for _ in range(80):
        lib.DEEP = [lib.DEEP]


@pytest.mark.parametrize(
    ("hold", "text"),
    [
        (lru, "`functools.lru_cache` of `shared_lib.util.load`, through `shop.models.Page`"),
        (
            in_dict,
            "`shared_lib.util.registry['page']`, through an instance of `shop.models.Page`",
        ),
        (in_list, "`shared_lib.util.LIST[1][0]`, through `shop.models.Page`"),
        (in_set, "an item of `shared_lib.util.HELD`, through `shop.models.Page.show`"),
        (in_slot, "`shared_lib.util.POOL.size`, through `shop.models.Page`"),
        (in_attribute, "`shared_lib.util.THING.page[0]`, through `shop.models.Page.show`"),
        (in_closure, "the variable `value` of `shared_lib.util.CALL`, through `shop.models.Page`"),
        (
            in_local,
            "`request` of the thread-local `shared_lib.util.local`, through `shop.models.Page`",
        ),
        (in_class, "`shared_lib.util.Holder.one`, through module `shop.models`"),
        (as_key, "a key of `shared_lib.util.registry`, through `shop.models.Page`"),
        (by_object, "`shared_lib.util.registry[<tuple>][0]`, through module `shop.models`"),
        (in_mapping, "`shared_lib.util.PROXY['page']`, through `shop.models.Page`"),
        (in_partial, "`shared_lib.util.PART.args[0]`, through `shop.models.Page`"),
        (
            in_generator,
            "generator 'pages' of `shared_lib.util.GEN`, through `shop.models.Page`",
        ),
    ],
)
def test_words(site: Site, library: Any, hold: Callable[[Any, Any], None], text: str) -> None:
    """The holder is named by the place in a shared module, and by what it holds of it."""
    old = Old(site, **SHOP)
    hold(library, old.models)
    assert old.holder() == text


def test_long_paths_are_cut_in_the_middle(site: Site, library: Any) -> None:
    """A path of any length is named in one line that can be read."""
    old = Old(site, **SHOP)
    deep(library, old.models)
    text = old.holder()
    assert text.startswith("`shared_lib.util.DEEP[0][0]")
    assert "..." in text
    assert len(text) < 260


def test_another_generation(site: Site) -> None:
    """What one generation keeps of another is named with its own number."""
    old = Old(site, **SHOP)
    old.second.modules.modules["shop.models"].old = [old.models.Page]
    text = "`shop.models.old[0]` of generation 2, through `shop.models.Page`"
    assert old.holder() == text


def test_thread(site: Site) -> None:
    """A thread is named, with where it is now and whether the generation started it."""
    old = Old(site, **SHOP)
    thread = threading.Thread(target=old.jobs.poll, name="poller")
    old.started(thread.start)
    try:
        wait_until(lambda: thread_place(thread, old.builtins) == "shop/jobs.py:4", what="it waits")
        assert old.holder() == "thread 'poller', at shop/jobs.py:4"
        text = "thread 'poller' (started by it), at shop/jobs.py:4"
        assert old.holder(frozenset({thread.ident or 0})) == text
        assert thread_place(thread).startswith("threading.py:")
    finally:
        old.jobs.GATE.set()
        thread.join()
    assert thread_place(thread) == ""


def test_variables_of_a_shared_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a running function of shared code holds is named, and not kept by having looked."""
    monkeypatch.setattr("genwsgi.janitor.name_holder", lambda *_: "")  # which looks as well
    old = Old(site, **SHOP)
    ready, go, done = (threading.Event() for _ in range(3))
    pages = [old.models.Page()]

    def serve() -> None:
        page = pages.pop()
        seen.append(weakref.ref(page))
        ready.set()
        go.wait(120)
        del page
        done.set()
        gone.wait(120)

    gone = threading.Event()
    seen: list[Any] = []
    thread = threading.Thread(target=serve, name="pool-1")
    thread.start()
    try:
        assert ready.wait(20)
        text = old.holder()
        assert text.startswith("`page` of thread 'pool-1', at tests/isolation/test_naming.py:")
        assert text.endswith("through an instance of `shop.models.Page`")
        go.set()
        assert done.wait(20)
        gc.collect()
        assert seen[0]() is None
        assert old.holder().startswith(OUTSIDE)
    finally:
        go.set()
        gone.set()
        thread.join()


def test_logger(site: Site) -> None:
    """What hangs on a logger of the process is named by the logger."""
    old = Old(site, **SHOP)
    page = old.models.Page()
    logger = logging.getLogger("shared_lib")
    logger.shelf = [page]  # type: ignore[attr-defined]
    try:
        text = "`shelf[0]` of logger 'shared_lib', through an instance of `shop.models.Page`"
        found = find([("here", logger)], lambda o: belongs(o, old.builtins)).path
        assert found is not None
        assert describe(found) == text
    finally:
        del logger.shelf  # type: ignore[attr-defined]


def test_names() -> None:
    """Things are called by their module and their name in it, others by their type."""
    assert name_of(Site.serve) == "`tests.isolation.sources.Site.serve`"
    assert name_of(Site) == "`tests.isolation.sources.Site`"
    assert name_of(sys.modules[__name__]) == f"module `{__name__}`"
    assert name_of(sys._getframe()).startswith("tests/isolation/test_naming.py:")
    assert name_of(weakref.ref(Site)) == "a ReferenceType"
    assert name_of([]) == "a list"

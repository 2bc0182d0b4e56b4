from __future__ import annotations

import functools
import gc
import subprocess
import sys
import weakref
from types import ModuleType
from typing import Any

import pytest

from genwsgi.isolation import holders
from genwsgi.isolation.holders import belongs, find
from tests.isolation.sources import Site, call


class Proxy:
    """Foreign code everywhere that an object can be asked something."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("the search runs foreign code")

    __getattribute__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = _refuse


CODE = {
    "shop": "import shop.models, sys\nFRAME = sys._getframe\ndef frame():\n    return FRAME()\n",
    "shop__models": """
        import collections, dataclasses, enum
        class M:
            def f(self): ...
            @classmethod
            def c(cls): ...
        class Wrapped:
            p = property(lambda self: 1)
        class Plain(Exception):
            pass
        class Slots:
            __slots__ = ()
        class Label(str):
            __slots__ = ()
        Pair = collections.namedtuple("Pair", "a b")
        class Colour(enum.Enum):
            RED = 1
        def local():
            class Local: ...
            return Local
        def close(over):
            def inner(): return over
            return inner
    """,
}


def two(site: Site) -> tuple[Any, Any, Any, Any]:
    first, second = site.two(**CODE)
    models = [g.modules.modules["shop.models"] for g in (first, second)]
    return first.modules, models[0], second.modules, models[1]


def test_what_belongs(site: Site) -> None:
    """Functions, methods, modules, their dicts, frames and classes belong to their generation."""
    one, models, two_, others = two(site)
    mine = [
        *(models, vars(models), one.builtins, models.M, models.M.f, models.M().f, models.M.c),
        *(models.Wrapped, models.local, call(one.generation, "shop", "frame")),
    ]
    theirs = [others, vars(others), two_.builtins, others.M, others.M.f, others.M().f, others.M.c]
    assert all(belongs(obj, one.builtins) for obj in mine)
    assert not any(belongs(obj, two_.builtins) for obj in mine)
    assert not any(belongs(obj, one.builtins) for obj in theirs)
    for obj in (models.M(), [models.M], functools.partial(models.M.f), 1, None, int, Site, gc):
        assert not belongs(obj, one.builtins)


def test_classes_without_methods(site: Site) -> None:
    """A class that has no method belongs by its name, to the generation in which that means it."""
    one, models, _, others = two(site)
    for name in ("Plain", "Slots", "Pair", "Colour", "M"):
        assert belongs(getattr(models, name), one.builtins, one.modules)
        assert not belongs(getattr(others, name), one.builtins, one.modules)
    assert belongs(models.local(), one.builtins, one.modules)
    assert not belongs(Site, one.builtins, one.modules)
    impostor = type("Plain", (), {"__module__": "shop.models", "__qualname__": "no.such.Plain"})
    assert not belongs(impostor, one.builtins, one.modules)


def test_no_foreign_code_runs(site: Site) -> None:
    """Neither question nor search runs code of the objects that it looks at."""
    one, models, _, _ = two(site)
    proxy = object.__new__(Proxy)
    object.__setattr__(proxy, "inside", [models.M])
    assert not belongs(proxy, one.builtins, one.modules)
    found = find([("here", [proxy])], lambda o: belongs(o, one.builtins))
    assert found.path is not None
    assert found.path.objects[-1] is models.M


class Bare:
    __slots__ = ()


class Receiver:
    def receive(self) -> None: ...


@pytest.mark.parametrize(
    "hold",
    [
        lambda m: {"a": [m.M]},
        lambda m: functools.partial(print, m.M()),
        lambda m: m.close(1),
        lambda m: lambda: m.M,
        lambda m: functools.lru_cache(m.local),
        lambda m: m.Slots(),
        lambda m: m.Label("of which the collector knows nothing"),
        lambda m: type("Heir", (m.M,), {}),
        lambda m: (x for x in [m.M]),
        lambda m: weakref.WeakValueDictionary({1: m.M}) and [m.M().f],
    ],
)
def test_search(site: Site, hold: Any) -> None:
    """Through whatever kind of object something of a generation is held, it is found."""
    one, models, two_, _ = two(site)
    roots = [("nothing", [Bare()]), ("here", hold(models))]
    wanted = lambda o: belongs(o, one.builtins, one.modules)  # noqa: E731
    for through_modules in (True, False):
        found = find(roots, wanted, through_modules=through_modules)
        assert found.path is not None
        assert found.path.root == "here"
        assert wanted(found.path.objects[-1])
        for one_, next_ in zip(found.path.objects, found.path.objects[1:], strict=False):
            assert any(next_ is o for o in holders.referents(one_))
    other = find(roots, lambda o: belongs(o, two_.builtins, two_.modules), through_modules=False)
    assert (other.path, other.complete) == (None, True)


#: Leaves freed iterators of futures to the interpreter, and looks for something everywhere.
AFTER_FUTURES = """
import _asyncio, asyncio, gc
from genwsgi.isolation.holders import find

async def wait():
    loop = asyncio.get_running_loop()
    for _ in range(3):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

asyncio.run(wait())
assert find([("asyncio", [_asyncio])], lambda obj: obj is _asyncio.Task).path is not None
assert find([("asyncio", [_asyncio])], lambda obj: False).complete
gc.collect()
"""


def test_a_search_leaves_alone_what_the_interpreter_has_freed() -> None:
    """Or else the next collection, after a program has waited for futures, would never end."""
    subprocess.run([sys.executable, "-c", AFTER_FUTURES], check=True, timeout=60)


def test_everybodys_objects_are_left_out_on_request(site: Site) -> None:
    """What leads to a module only, or over the globals of a function, is not held by it."""
    one, models, _, _ = two(site)
    module = ModuleType("everybodys")
    vars(module)["cache"] = [models.M]
    exec("class C:\n    def f(self): ...\n", vars(module))
    cls = vars(module)["C"]
    cls.known = [models.M]
    wanted = lambda o: belongs(o, one.builtins)  # noqa: E731
    for obj in (module, cls, cls().f, cls.f, cls()):
        assert find([("here", obj)], wanted).path is not None
        assert find([("here", [obj])], wanted, through_modules=False).path is None


def test_weak_references(site: Site) -> None:
    """Weakly held functions and methods are found on request, and nothing else that is weak."""
    one, models, _, _ = two(site)
    wanted = lambda o: belongs(o, one.builtins)  # noqa: E731
    instance = models.M()
    for obj in (weakref.ref(models.local), weakref.WeakMethod(instance.f)):
        assert find([("here", [obj])], wanted, weak=True).path is not None
        assert find([("here", [obj])], wanted, through_modules=False).path is None
    refs = [weakref.ref(models.M), weakref.ref(instance)]
    assert find([("here", refs)], wanted, weak=True, through_modules=False).path is None


def test_budget(site: Site) -> None:
    """A search ends when its budget is spent, and says so; what is skipped is not searched."""
    one, models, _, _ = two(site)
    wanted = lambda o: belongs(o, one.builtins)  # noqa: E731
    nested: list[Any] = [models.M]
    for _ in range(3 * holders.SLICE):
        nested = [nested]
    roots = [("here", nested)]
    assert find(roots, wanted, depth=10_000).path is not None
    for budget in ({"objects": 10}, {"seconds": 0.0}):
        cut = find(roots, wanted, depth=10_000, **budget)
        assert (cut.path, cut.complete) == (None, False)
    assert find([("here", [[models.M]])], wanted, depth=1).path is None
    assert find([("here", [[models.M]])], wanted, depth=2).path is not None
    inner: list[Any] = [models.M]
    assert find([("here", [inner])], wanted, skip=lambda o: o is inner).path is None
    assert find([("here", models.M)], wanted).visited == 1


def test_others_run_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long search leaves the processor to other threads again and again."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    find([("here", [[i] for i in range(5 * holders.SLICE)])], lambda o: False)
    assert pauses == [holders.PAUSE] * 5

from __future__ import annotations

import atexit
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import genwsgi
from genwsgi import keeping
from genwsgi.errors import BuildError, KeepError
from genwsgi.isolation.effects import effects_of
from tests.helpers import wait_until
from tests.isolation.fixtures import site
from tests.isolation.sources import Site, call, torn_down

__all__ = ["site"]


class Pool:
    """Shared code: what a library would give."""

    log = logging.getLogger("pool")

    def __init__(self) -> None:
        self.log_too = logging.getLogger("pool")
        self.lock = threading.RLock()
        self.items: list[Any] = []


@pytest.fixture(autouse=True)
def library() -> Iterator[None]:
    """A shared module with a pool; and nothing kept by another test."""
    module = ModuleType("pool_lib")
    module.Pool = Pool  # type: ignore[attr-defined]
    sys.modules["pool_lib"] = module
    keeping._kept.clear()
    yield
    keeping._kept.clear()
    del sys.modules["pool_lib"]


KEEPING = "import genwsgi, pool_lib\nPOOL = genwsgi.keep('pool', pool_lib.Pool)\n"


def test_outlives_generations(site: Site) -> None:
    """What is kept is made once and is the same object for every generation."""
    first, second = site.two(shop=KEEPING)
    pool = first.modules.modules["shop"].POOL
    assert type(pool) is Pool
    assert second.modules.modules["shop"].POOL is pool
    site.pending.close()
    wait_until(lambda: torn_down(first), what="it is torn down")
    assert genwsgi.keep("pool", dict) is pool
    assert keeping.kept() == [("genwsgi.keep('pool')", pool)]


def test_made_by_the_applications_function(site: Site) -> None:
    """``make`` may be the application's own code, as long as what it makes is not."""
    first, second = site.two(
        shop="import genwsgi\ndef make():\n    import shop.late\n    return [shop.late.V]\n"
        "KEPT = genwsgi.keep('x', make)\n",
        shop__late="V = VERSION\n",
    )
    assert second.modules.modules["shop"].KEPT == [1]
    table = weakref.ref(first.modules)
    del first
    site.pending.close()
    wait_until(lambda: table() is None, what="the one that made it is gone")


def test_what_making_it_does_is_the_processs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ``make`` starts, and an exit callback, belong to the process and stay."""
    gate = threading.Event()
    monkeypatch.setattr("builtins.gate", gate, raising=False)
    site.write(
        shop="import atexit, genwsgi, threading\n"
        "def make():\n"
        "    atexit.register(gate.set)\n"
        "    thread = threading.Thread(target=gate.wait, args=(60,))\n"
        "    thread.start()\n"
        "    return [thread]\n"
        "KEPT = genwsgi.keep('x', make)\n"
    )
    try:
        generation = site.serve()
        effects = effects_of(generation)
        assert effects is not None
        assert effects.stragglers() == []
        thread = generation.modules.modules["shop"].KEPT[0]
        site.serve()
        wait_until(lambda: torn_down(generation), what="it is torn down")
        assert not gate.is_set()
        assert thread.is_alive()
    finally:
        gate.set()
        atexit.unregister(gate.set)


@pytest.mark.parametrize(
    ("made", "path"),
    [
        ("M()", "it, through an instance of `shop.M`"),
        ("[1, M]", "`[1]` of it, through `shop.M`"),
        ("{'a': print, 'b': M().f}", "`['b']` of it, through `shop.M.f`"),
        ("lambda: 1", "it"),
        ("Slots()", "it, through an instance of `shop.Slots`"),
        ("type('Heir', (M,), {})", "`__base__` of it, through `shop.M`"),
    ],
)
def test_must_not_hold_a_generation(site: Site, made: str, path: str) -> None:
    """What would keep a generation alive is refused in one line with the path, and not kept."""
    site.write(
        shop="import genwsgi\nclass M:\n    def f(self): ...\nclass Slots:\n    __slots__ = ()\n"
        f"genwsgi.keep('pool', lambda: {made})\n"
    )
    with pytest.raises(BuildError) as caught:
        site.build()
    assert caught.value.reason == (
        "genwsgi.errors.KeepError: genwsgi.keep('pool'): what was made would keep generation 1 "
        f"alive ({path}): make it from code that all generations share (--share NAME makes a "
        "package such)"
    )
    assert keeping.kept() == []


def test_may_refer_to_what_is_everybodys(site: Site) -> None:
    """Loggers, modules and shared classes lead to everything, and are held by nobody."""
    site.write(
        shop="import genwsgi, logging, pool_lib, sys\n"
        "logging.getLogger('pool').shelf = [lambda: 1]\n"
        "POOL = genwsgi.keep('pool', pool_lib.Pool)\n"
        "MODULES = genwsgi.keep('modules', lambda: [sys, logging, genwsgi])\n"
    )
    try:
        site.serve()
        assert len(keeping.kept()) == 2
    finally:
        del logging.getLogger("pool").shelf  # type: ignore[attr-defined]


def test_a_failed_build_leaves_nothing_kept(site: Site) -> None:
    """What a build made that then failed is dropped, unless a generation that serves has it too."""
    site.write(shop="")
    site.serve()
    site.write(shop=KEEPING + "1 / 0\n")
    with pytest.raises(BuildError):
        site.build()
    assert keeping.kept() == []
    site.write(shop=KEEPING)
    ready = site.build()
    site.live.discard(ready)
    assert keeping.kept() == []
    ready = site.build()
    pool = genwsgi.keep("pool", Pool)
    site.live.discard(ready)
    assert genwsgi.keep("pool", Pool) is pool


def test_a_build_that_fails_later_takes_nothing_of_others(site: Site) -> None:
    """What an earlier generation made stays when a later build that used it fails."""
    site.write(shop=KEEPING)
    pool = site.serve().modules.modules["shop"].POOL
    site.write(shop=KEEPING + "1 / 0\n")
    with pytest.raises(BuildError):
        site.build()
    assert genwsgi.keep("pool", Pool) is pool


def test_others_wait_for_the_one_that_makes() -> None:
    """Threads that ask at once get one object; no lock is held while it is made."""
    go, asked = threading.Event(), threading.Event()
    made: list[object] = []
    got: list[object] = []

    def make() -> object:
        asked.set()
        assert genwsgi.keep("other", list) == []  # which needs the lock
        go.wait(60)
        made.append(object())
        return made[0]

    threads = [
        threading.Thread(target=lambda: got.append(genwsgi.keep("slow", make))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    assert asked.wait(20)
    go.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert got == made * 5


def test_whoever_waits_makes_it_when_the_maker_fails() -> None:
    """A ``make`` that raises leaves nothing, and one that waited makes the object itself."""
    go, asked = threading.Event(), threading.Event()
    errors: list[BaseException] = []
    got: list[object] = []

    def fail() -> object:
        asked.set()
        go.wait(60)
        raise SystemExit("no")

    def first() -> None:
        try:
            genwsgi.keep("x", fail)
        except SystemExit as error:
            errors.append(error)

    threads = [
        threading.Thread(target=first),
        threading.Thread(target=lambda: got.append(genwsgi.keep("x", lambda: "second"))),
    ]
    threads[0].start()
    assert asked.wait(20)
    threads[1].start()

    def waits() -> bool:
        frame = sys._current_frames()[threads[1].ident or 0]
        return (frame.f_code.co_filename, frame.f_code.co_name) == (threading.__file__, "wait")

    wait_until(waits, what="the second one waits")
    go.set()
    for thread in threads:
        thread.join()
    assert [str(error) for error in errors] == ["no"]
    assert got == ["second"]


def test_asking_for_what_one_is_making() -> None:
    """A ``make`` that asks for its own name is told so instead of waiting for itself."""
    with pytest.raises(KeepError, match=r"keep\('x'\): it is asked for by the function that makes"):
        genwsgi.keep("x", lambda: genwsgi.keep("x", list))
    assert keeping.kept() == []


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a ``make`` that does not come to an end is told which thread is at it."""
    monkeypatch.setattr(keeping, "PATIENCE", 0.01)
    go, asked = threading.Event(), threading.Event()

    def make() -> object:
        asked.set()
        return go.wait(60)

    thread = threading.Thread(target=genwsgi.keep, args=("x", make), name="slow one")
    thread.start()
    try:
        assert asked.wait(20)
        with pytest.raises(KeepError, match=r"thread 'slow one' has been making it for 0 s"):
            genwsgi.keep("x", list)
    finally:
        go.set()
        thread.join()


def test_a_kept_object_is_named_as_holder(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A kept object that comes to hold a generation later is what the log and the status name."""
    site.write(shop=KEEPING + "class Job:\n    def run(self): ...\n    \n")
    generation = site.serve()
    pool = generation.modules.modules["shop"].POOL
    pool.items.append(call(generation, "shop", "Job").run)
    del generation, pool
    site.serve()
    holder = "`items[0]` of genwsgi.keep('pool'), through `shop.Job.run`"
    wait_until(lambda: [s.holder for s in site.live.status()] == [holder, ""], what="the status")
    assert f"generation 1 has retired but is held by {holder}" in caplog.text
    keeping._kept.clear()
    gc.collect()

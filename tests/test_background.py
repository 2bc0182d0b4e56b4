"""Tests of genwsgi.background."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from genwsgi import background, interrupt
from genwsgi.background import GIVE_WAY, PAUSE, BackgroundBuild, BackgroundDiscard
from genwsgi.build import tear_down
from genwsgi.errors import BuildError, NoThreadError
from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import State
from genwsgi.interrupt import Interruption
from tests.helpers import handler_of_all, wait_until
from tests.isolation.fixtures import site
from tests.isolation.sources import Site, write

__all__ = ["site"]


def start_build(site: Site) -> tuple[BackgroundBuild, threading.Event]:
    done = threading.Event()
    return BackgroundBuild(site.live, site.take(), "test", lambda build: done.set()), done


def built(site: Site) -> Generation:
    """A ready generation of an application that has nothing of its own."""
    site.write(shop="")
    build, done = start_build(site)
    assert done.wait(10)
    assert build.generation is not None
    return build.generation


def test_background_build(site: Site) -> None:
    """A build on a thread of its own ends with a ready generation or with the error."""
    site.write(shop="")
    build, done = start_build(site)
    assert done.wait(10)
    assert build.generation is not None
    assert build.seconds > 0
    wait_until(lambda: not build.running, what="the thread has ended")
    assert "shop" not in build.where()
    site.live.discard(build.generation)
    build.abandon()
    site.write(shop="1 / 0\n")
    build, done = start_build(site)
    assert done.wait(10)
    assert build.generation is None
    assert isinstance(build.error, BuildError)


@pytest.mark.parametrize("fails", [False, True])
def test_threads_take_turns_more_often_during_a_build(site: Site, fails: bool) -> None:
    """As long as builds go on requests wait less for the interpreter's lock, and then as before;
    what the application sets stays.
    """
    usual = sys.getswitchinterval()
    try:
        site.write(
            shop="import sys\nif sys.getswitchinterval() > 0.001: 1 / 0\n" + "1 / 0\n" * fails
        )
        build, done = start_build(site)
        assert done.wait(10)
        wait_until(lambda: not build.running, what="the thread has ended")
        assert (build.generation is None) is fails
        assert sys.getswitchinterval() == usual
        site.write(shop="import sys\nsys.setswitchinterval(0.01)\n")
        build, done = start_build(site)
        assert done.wait(10)
        wait_until(lambda: not build.running, what="the thread has ended")
        assert sys.getswitchinterval() == 0.01
    finally:
        sys.setswitchinterval(usual)


# With a call in it: without one, CPython 3.10 never leaves a loop that begins with "try".
LOOP = "while True:\n    try:\n        len('')\n    except Exception:\n        pass\n"
STEPS = """
import importlib, sys
while True:
    importlib.import_module("shop.a")
    del sys.modules["shop.a"]
"""


# What interrupts a build may do so between the opening of a file and its closing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("code", [LOOP, STEPS])
def test_abandoned_build_stops(site: Site, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build abandoned in an endless loop stops, leaves nothing and tells nobody."""
    reached: list[int] = []
    monkeypatch.setattr("builtins.reached", reached, raising=False)
    site.write(shop="V = 1\n")
    site.serve()
    site.write(shop="reached.append(1)\n" + code, shop__a="")
    build, done = start_build(site)
    wait_until(lambda: reached, what="the application's code runs")
    build.abandon()
    build.abandon()
    wait_until(lambda: not build.running, what="the build has stopped")
    assert not done.is_set()
    assert build.generation is None
    assert site.live.current is not None
    assert site.live.current.number == 1


#: A package that can be loaded once in a process, as numpy's compiled part; its parts come first.
ONCE = """
import heavy_library.part
import builtins
builtins.loads.append(1)
assert len(builtins.loads) == 1, "cannot load module more than once per process"
builtins.entered.set()
while not builtins.gate.is_set():
    builtins.turns[0] += 1
ENDING
"""


@pytest.mark.parametrize("ending", ["", "import shop.late\n", "raise ImportError('no')"])
def test_abandoned_in_a_shared_import(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """A shared package that is being imported when a build is given up is loaded to its end, and
    the build ends then; so the next one can use it.
    """
    entered, gate, ran, turns = threading.Event(), threading.Event(), list[int](), [0]
    put = {"entered": entered, "gate": gate, "ran": ran, "turns": turns, "loads": []}
    for name, value in put.items():
        monkeypatch.setattr(f"builtins.{name}", value, raising=False)
    write(
        tmp_path / "lib/heavy_library",
        {"__init__.py": ONCE.replace("ENDING", ending), "part.py": ""},
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setattr(interrupt, "LATE", 0.0)
    site.write(shop="import heavy_library\nran.append(1)\n", shop__late="")
    try:
        build, done = start_build(site)
        assert entered.wait(10)
        build.abandon()
        # Long enough for what is raised to arrive.
        last = turns[0] + 10_000
        wait_until(lambda: turns[0] > last, what="the import to go on")
        gate.set()
        wait_until(lambda: not build.running, what="the build has stopped")
        assert ran == []
        assert not done.is_set()
        assert ("heavy_library" in sys.modules) is not ending.startswith("raise")
        if not ending.startswith("raise"):
            site.serve()
            assert ran == [1]
    finally:
        gate.set()
        for name in ("heavy_library", "heavy_library.part"):
            sys.modules.pop(name, None)


def test_abandoned_where_it_waits_for_a_handler(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that is given up while it waits to log, as all versions of the code do by the same
    handler, leaves that free.
    """
    site.write(
        shop="""
            import logging
            while True:
                logging.getLogger("gw-shared").error("no")
                for _ in range(1000):
                    len("")
        """
    )
    looks, step = [0], Interruption.step

    def counted(self: Interruption) -> bool:
        looks[0] += 1
        return step(self)

    monkeypatch.setattr(Interruption, "step", counted)
    monkeypatch.setattr(interrupt, "LATE", 0.0)
    with handler_of_all() as (asks, free):
        with free:
            build, _ = start_build(site)
            assert asks.wait(10)
            build.abandon()
            wait_until(lambda: looks[0] > 5, what="looks for the moment")
        wait_until(lambda: not build.running, what="the build has stopped")
        assert free.acquire(timeout=10)


def test_abandoned_when_just_ready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that is abandoned in the moment it is ready is discarded."""
    site.write(shop="")
    entered, gate = threading.Event(), threading.Event()
    real = site.live.build
    made: list[Any] = []

    def build(*args: Any, **kwargs: Any) -> Any:
        made.append(real(*args, **kwargs))
        entered.set()
        gate.wait(10)
        return made[0]

    monkeypatch.setattr(site.live, "build", build)
    started, done = start_build(site)
    assert entered.wait(10)
    started.abandon()
    gate.set()
    wait_until(lambda: made[0].state is State.DISCARDED, what="the generation is discarded")
    wait_until(lambda: not started.running, what="the thread has ended")
    assert not done.is_set()


def test_abandoned_while_it_is_undone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failed build did is undone whole, whenever it is abandoned."""
    site.write(shop="import sys\nsys.path.append('/of/shop')\n1 / 0\n")
    entered, gate = threading.Event(), threading.Event()

    def slowly(*args: Any) -> None:
        entered.set()
        gate.wait(10)
        tear_down(*args)

    monkeypatch.setattr("genwsgi.build.tear_down", slowly)
    build, done = start_build(site)
    assert entered.wait(10)
    assert "/of/shop" in sys.path
    build.abandon()
    gate.set()
    wait_until(lambda: not build.running, what="the thread has ended")
    assert "/of/shop" not in sys.path
    assert not done.is_set()


def test_abandoned_before_it_runs_code(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that is abandoned at its beginning runs no code of the application."""
    ran: list[int] = []
    monkeypatch.setattr("builtins.ran", ran, raising=False)
    site.write(shop="ran.append(1)\n")
    entered, gate = threading.Event(), threading.Event()
    take, really = site.take(), site.store.open

    def slowly(digest: str) -> Any:
        entered.set()
        gate.wait(10)
        return really(digest)

    monkeypatch.setattr(site.store, "open", slowly)
    build = BackgroundBuild(site.live, take, "test", lambda _: None)
    assert entered.wait(10)
    build.abandon()
    gate.set()
    wait_until(lambda: not build.running, what="the thread has ended")
    assert ran == []
    site.store.sweep([])
    assert os.listdir(os.path.join(site.store.path, "snapshots")) == []


class Clock:
    """Stands in for a build's clock: a module takes a millisecond, and each pause the same time.

    :param lasting: seconds that a pause takes.
    :ivar pauses: what was asked for, in seconds.
    """

    def __init__(self, lasting: float) -> None:
        self._now = 100.0
        self._lasting = lasting
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        self._now += 0.001
        return self._now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._now += self._lasting


def test_lets_requests_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each module a build pauses while somebody is served, and else only gives way."""
    clock = Clock(lasting=0.0)
    monkeypatch.setattr(background, "time", clock)
    pauses = clock.pauses
    site.write(shop="import shop.a\n", shop__a="")
    site.serve()
    for pause in (GIVE_WAY, PAUSE):
        pauses.clear()
        body = site.request() if pause is PAUSE else None
        build, done = start_build(site)
        assert done.wait(10)
        assert pauses[:2] == [pause, pause]
        assert build.generation is not None
        site.live.discard(build.generation)
        if body is not None:
            body.close()


def test_is_not_held_up_by_long_pauses(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where requests make pauses long, the build works for longer before the next one."""
    clock = Clock(lasting=0.1)
    monkeypatch.setattr(background, "time", clock)
    pauses = clock.pauses
    names = [f"m{number}" for number in range(50)]
    site.write(shop="".join(f"import shop.{name}\n" for name in names))
    site.write(**{f"shop__{name}": "" for name in names})
    site.serve()
    pauses.clear()
    build, done = start_build(site)
    assert done.wait(30)
    assert build.generation is not None
    assert 1 <= len(pauses) < len(names) / 2
    site.live.discard(build.generation)


def test_build_that_breaks_down_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits for a build hears of its end whatever ended it."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no more")

    site.write(shop="")
    monkeypatch.setattr(site.live, "build", fail)
    build, done = start_build(site)
    assert done.wait(10)
    assert build.generation is None
    assert str(build.error) == "the build broke down: MemoryError('no more'); see the log"
    assert "Traceback" in caplog.text


def test_build_that_no_thread_is_left_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system allows no more threads, whoever waits hears that, and what to do."""

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    site.write(shop="")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        build, done = start_build(site)
    assert done.is_set()
    assert build.generation is None
    assert not build.running
    assert isinstance(build.error, NoThreadError)
    assert str(build.error).startswith(
        "no build of release test could begin: can't start new thread; raise the limit"
    )


def test_discard_on_a_thread_of_its_own(site: Site) -> None:
    """Whoever discards waits for nothing that the application does at its end."""
    site.write(
        shop="import genwsgi, threading\nend = threading.Event()\ngenwsgi.on_retire(end.wait)\n"
    )
    build, done = start_build(site)
    assert done.wait(10)
    generation = build.generation
    assert generation is not None
    end = generation.run(lambda: __import__("sys").modules["shop"].end)
    discard = BackgroundDiscard(site.live, generation)
    wait_until(lambda: "self._callback()" in discard.where(), what="the callback")
    assert discard.running
    end.set()
    wait_until(lambda: not discard.running, what="the end")
    assert generation.state is State.DISCARDED


def test_discard_that_breaks_down_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its traceback, and that is all."""
    generation = built(site)
    with monkeypatch.context() as patch:
        patch.setattr(site.live, "discard", {}.__getitem__)
        discard = BackgroundDiscard(site.live, generation)
        wait_until(lambda: not discard.running, what="the end")
    assert f"{generation.name} could not be torn down whole\nTraceback" in caplog.text
    site.live.discard(generation)


def test_discard_that_no_thread_is_left_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system allows no more threads, the generation goes all the same."""

    def refuse(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    generation = built(site)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not BackgroundDiscard(site.live, generation).running
    assert generation.state is State.DISCARDED

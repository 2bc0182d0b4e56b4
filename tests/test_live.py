from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from genwsgi.build import build as build_now
from genwsgi.errors import BuildAbandoned, BuildError, GenwsgiError
from genwsgi.generations.lifecycle import State
from genwsgi.live import BackgroundBuild, LiveApplication
from tests.helpers import wait_until
from tests.isolation.fixtures import process, site
from tests.isolation.sources import Site, call

__all__ = ["site"]


def test_modules_of_a_retired_generation_are_collected(site: Site) -> None:
    """Within a second of the last close every module of a retired generation is gone."""
    site.write(
        shop="import typing, dataclasses, shop.models\n"
        "def ask():\n    from shop.lazy import hinted\n    return typing.get_type_hints(hinted)\n",
        shop__models="import dataclasses, typing, enum, abc, logging, pickle\n"
        "@dataclasses.dataclass\nclass M:\n    x: typing.Optional['M'] = None\n"
        "MAYBE = typing.Optional[M]\nclass E(enum.Enum):\n    A = 1\n"
        "class B(abc.ABC):\n    pass\n"
        "logging.getLogger(__name__).addHandler(logging.NullHandler())\n"
        "pickle.loads(pickle.dumps(M()))\n",
        shop__lazy="import typing, shop.models as m\ndef hinted(a: typing.List[m.M]): ...\n",
    )
    generation = site.serve()
    call(generation, "shop", "ask")
    watched = [weakref.ref(m) for m in generation.modules.modules.values()]
    watched.append(weakref.ref(generation.modules.modules["shop.models"].M))
    assert len(watched) == 4
    pending = site.request(lambda: "answer")
    assert b"".join(pending) == b"answer"
    site.serve()
    call(generation, "shop", "ask")  # typing remembers what it makes for the old one now, too
    del generation
    assert all(ref() is not None for ref in watched)
    pending.close()
    del pending
    wait_until(lambda: not any(ref() for ref in watched), timeout=1.0, what="modules collected")


def test_request_keeps_its_generation(site: Site) -> None:
    """A request that began on the old generation ends on it; the next one is on the new."""
    first, _second = site.two(shop="V = VERSION\n")
    ask: Any = lambda: __import__("sys").modules["shop"].V  # noqa: E731
    old = site.request(ask)
    assert b"".join(old) == b"2"
    old.close()
    assert site.live.draining() == [first]
    assert site.live.statistics().leases == {1: 1, 2: 0}
    site.pending.close()
    wait_until(lambda: first.state is State.RETIRED, what="the first generation retires")
    assert "shop:create_app" in repr(site.live)


def test_requests_are_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each generation's requests are counted if that is asked for, of the latest generations."""
    monkeypatch.setattr("genwsgi.live.COUNTED", 2)
    site.write(shop="V = 1\n")
    site.serve()
    site.request(lambda: "ok").close()
    assert site.live.counts() == ()
    site.live.counting = True
    for _ in range(3):
        site.serve()
        site.request(lambda: "ok").close()
    found = [(one.number, one.tally.requests) for one in site.live.counts()]
    assert found == [(3, 1), (4, 1)]


def test_held_snapshot(site: Site) -> None:
    """A snapshot is held while its generation lives, and let go when that retires."""
    first, second = site.two(shop="V = VERSION\n")
    digests = {g.modules.snapshot.digest for g in (first, second)}
    site.store.sweep([])
    assert set(site.store.digests()) == digests
    site.pending.close()
    wait_until(lambda: first.modules.closed, what="the first generation is torn down")
    site.store.sweep([])
    assert site.store.digests() == [second.modules.snapshot.digest]


def test_close_leaves_the_process_as_it_was(site: Site) -> None:
    """After close the process is as before, nothing is served, and closing again does nothing."""
    site.write(shop="")
    site.serve()
    assert process()["modules"] is not dict
    site.live.close()
    site.live.close()
    assert process()["modules"] is dict
    assert process()["proxies"] == []
    assert not [t for t in threading.enumerate() if t.name == "genwsgi-janitor"]
    with pytest.raises(GenwsgiError):
        site.request()


def test_close_with_a_lease_open(site: Site) -> None:
    """A response that is open when everything closes still ends on its generation, lazily too."""
    site.write(shop="", shop__lazy="V = 'late'\n")
    site.serve()
    pending = site.request(lambda: __import__("importlib").import_module("shop.lazy").V)
    site.live.close(timeout=0.01)
    assert b"".join(pending) == b"late"
    pending.close()
    wait_until(lambda: process()["modules"] is dict, what="the process is as before")
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name == "genwsgi-janitor"],
        what="the janitor has ended",
    )


def test_two_applications(site: Site, tmp_path: Any) -> None:
    """Two applications in one process each have their own modules, and may import each other's."""
    (tmp_path / "more").mkdir()
    other = Site(tmp_path / "more", "club:create_app")
    try:
        site.write(shop="V = 'shop'\n")
        other.write(club="import shop\nV = shop.V\ncreate_app = lambda: (lambda e, s: [])\n")
        mine = site.serve()
        assert other.serve().modules.modules["club"].V == "shop"
        assert mine.run(__import__, "club").V == "shop"
    finally:
        other.live.close()
    assert call(mine, "shop", "__class__", "x")


def test_working_directory_that_is_gone(
    tmp_path: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build whose working directory has been deleted is done where its path leads now."""
    releases = [tmp_path / name for name in ("one", "two")]
    for release in releases:
        release.mkdir()
    current = tmp_path / "current"
    current.symlink_to(releases[0])
    monkeypatch.chdir(current)
    site.write(shop="import os\nhere = os.getcwd()\n")
    live = LiveApplication(site.target, site.store, folder=str(current))

    def built_in() -> str:
        generation = live.build(site.take(), "test")
        here: str = generation.modules.modules["shop"].here
        live.discard(generation)
        return here

    try:
        assert built_in() == str(releases[0])
        current.unlink()
        current.symlink_to(releases[1])
        assert built_in() == str(releases[0])
        releases[0].rmdir()
        assert built_in() == str(releases[1])
    finally:
        live.close()


def background(site: Site) -> tuple[BackgroundBuild, threading.Event]:
    done = threading.Event()
    return BackgroundBuild(site.live, site.take(), "test", lambda build: done.set()), done


def test_background_build(site: Site) -> None:
    """A build on a thread of its own ends with a ready generation or with the error."""
    site.write(shop="")
    build, done = background(site)
    assert done.wait(10)
    assert build.generation is not None
    assert build.seconds > 0
    wait_until(lambda: not build.running, what="the thread has ended")
    assert "shop" not in build.where()
    site.live.discard(build.generation)
    build.abandon()
    site.write(shop="1 / 0\n")
    build, done = background(site)
    assert done.wait(10)
    assert build.generation is None
    assert isinstance(build.error, BuildError)


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
    build, done = background(site)
    wait_until(lambda: reached, what="the application's code runs")
    build.abandon()
    build.abandon()
    wait_until(lambda: not build.running, what="the build has stopped")
    assert not done.is_set()
    assert build.generation is None
    assert site.live.current is not None
    assert site.live.current.number == 1


def test_abandoned_when_just_ready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that is abandoned in the moment it is ready is discarded."""
    site.write(shop="")
    entered, gate = threading.Event(), threading.Event()
    real = site.live.build
    made: list[Any] = []

    def build(*args: Any, **kwargs: Any) -> Any:
        made.append(real(*args, **kwargs))
        entered.set()
        # Not to be interrupted before it returns: what abandon() sends arrives at the wait's end.
        gate.wait(10)
        return made[0]

    monkeypatch.setattr(site.live, "build", build)
    started, done = background(site)
    assert entered.wait(10)
    started._ended = True  # as if the build had passed that point
    started.abandon()
    gate.set()
    wait_until(lambda: made[0].state is State.DISCARDED, what="the generation is discarded")
    wait_until(lambda: not started.running, what="the thread has ended")
    assert not done.is_set()


def test_abandoned_between_ready_and_return(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An abandonment that arrives when the build has just ended discards what it built."""
    site.write(shop="")
    made: list[Any] = []

    def build(generation: Any, *args: Any, **kwargs: Any) -> None:
        build_now(generation, *args, **kwargs)
        made.append(generation)
        raise BuildAbandoned

    monkeypatch.setattr("genwsgi.live.build", build)
    with pytest.raises(BuildAbandoned):
        site.build()
    assert made[0].state is State.DISCARDED
    gc.collect()


def test_build_that_breaks_down_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits for a build hears of its end whatever ended it."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no more")

    site.write(shop="")
    monkeypatch.setattr(site.live, "build", fail)
    build, done = background(site)
    assert done.wait(10)
    assert build.generation is None
    assert str(build.error) == "the build broke down: MemoryError('no more'); see the log"
    assert "Traceback" in caplog.text

from __future__ import annotations

import builtins
import logging
import sys
import threading
import weakref
from typing import Any

import pytest

from genwsgi.background import BackgroundBuild
from genwsgi.build import tear_down
from genwsgi.errors import BuildError, GenwsgiError
from genwsgi.generations.lifecycle import State
from genwsgi.live import LiveApplication
from tests.helpers import wait_until
from tests.isolation.fixtures import process, site
from tests.isolation.sources import Site, call, torn_down

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
    wait_until(lambda: not any(ref() for ref in watched), what="modules collected")


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
    monkeypatch.setattr("genwsgi.generations.counts.KEPT", 2)
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


def test_requests_of_a_generation_that_comes_back(site: Site) -> None:
    """No request counts for two releases: what was served before stays the earlier one's."""
    site.write(shop="V = 1\n")
    site.live.counting = True
    first = site.serve()
    for _ in range(3):
        site.request(lambda: "ok").close()
    (before,) = site.live.counts()
    assert (before.release, before.tally.requests) == ("test", 3)
    site.live.swap(site.build(), park=True)
    first.release = "3-back"
    site.live.swap(first)
    site.request(lambda: "ok").close()
    found = [(one.number, one.release, one.tally.requests) for one in site.live.counts()]
    assert found == [(1, "3-back", 1), (2, "test", 0)]


def test_parked_generation_serves_again(site: Site) -> None:
    """A generation that was parked comes back with its state; nothing of it has been ended."""
    site.write(shop="hits = []\nimport genwsgi\ngenwsgi.on_retire(lambda: hits.append('ended'))\n")
    first = site.serve()
    hits = first.modules.modules["shop"].hits
    hits.append("served")
    second = site.build()
    site.live.swap(second, park=True)
    assert [one.state for one in site.live.status()] == ["parked", "current"]
    assert site.live.parked is first
    site.live.discard(first)  # an order that was called off
    site.live.swap(first)
    assert b"".join(site.request(lambda: "/".join(hits))) == b"served"
    wait_until(lambda: second.state is State.RETIRED, what="the second retires")
    third = site.build()
    site.live.swap(third, park=True)
    site.live.unpark()
    wait_until(lambda: hits[-1] == "ended", what="the first ends when its time is over")


def test_held_snapshot(site: Site) -> None:
    """A snapshot is held while its generation lives, and let go when that retires."""
    first, second = site.two(shop="V = VERSION\n")
    digests = {g.modules.snapshot.digest for g in (first, second)}
    site.store.sweep([])
    assert set(site.store.digests()) == digests
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    site.store.sweep([])
    assert site.store.digests() == [second.modules.snapshot.digest]


def test_close_leaves_the_process_as_it_was(site: Site) -> None:
    """After close the process is as before, nothing is served, and closing again does nothing."""
    site.write(shop="")
    site.serve()
    assert process()["modules"] is not dict
    site.close()
    site.close()
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


def test_close_while_a_build_is_undone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is left when the last build in it has been undone, and no earlier.

    The fixture compares what it is then with what it was before.
    """
    site.write(shop="import sys\nsys.path.append('/of/shop')\nwhile True:\n    len('')\n")
    entered, gate = threading.Event(), threading.Event()

    def slowly(*args: Any) -> None:
        entered.set()
        gate.wait(60)
        tear_down(*args)

    monkeypatch.setattr("genwsgi.build.tear_down", slowly)
    build = BackgroundBuild(site.live, site.take(), "test", lambda _: None)
    wait_until(lambda: "/of/shop" in sys.path, what="the application's code runs")
    build.abandon()
    assert entered.wait(10)
    site.live.close(timeout=0.01)
    assert process()["modules"] is not dict
    gate.set()
    wait_until(lambda: not build.running, what="the build is undone")
    assert process()["modules"] is dict
    assert "/of/shop" not in sys.path


def test_close_waits_for_a_build_that_is_undone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within its time, close returns when the process is as it was before."""
    site.write(shop="1 / 0\n")
    entered = threading.Event()

    def slowly(*args: Any) -> None:
        entered.set()
        wait_until(lambda: site.live._closed, what="close() is called")
        tear_down(*args)

    monkeypatch.setattr("genwsgi.build.tear_down", slowly)
    BackgroundBuild(site.live, site.take(), "test", lambda _: None)
    assert entered.wait(10)
    site.close()
    assert process()["modules"] is dict


def test_nothing_is_built_once_it_is_closed(site: Site) -> None:
    """What is ready then is discarded; a build that ends later, or begins, is refused."""
    site.write(shop="import sys\nsys.path.append('/of/shop')\n")
    ready = site.build()
    site.close()
    assert ready.state is State.DISCARDED
    site.live.discard(ready)
    assert "/of/shop" not in sys.path
    assert process()["modules"] is dict
    with pytest.raises(GenwsgiError, match="closed"):
        site.build()
    assert process()["modules"] is dict


def test_closed_during_a_build(site: Site) -> None:
    """A build that has ended well when everything was closed is undone all the same."""
    site.write(shop="import sys\nsys.path.append('/of/shop')\n")
    with pytest.raises(GenwsgiError, match="closed"):
        site.live.build(site.take(), "test", lambda _: site.live.close(timeout=0.01))
    assert "/of/shop" not in sys.path
    assert process()["modules"] is dict


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
        other.close()
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


FAILS = "import shop.models\n1 / 0\n"
MODELS = (
    "class Page:\n    def show(self): ...\n    def __init__(self): self.of = self\nPAGE = Page()\n"
)


def test_a_build_that_failed_is_collected(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """What builds have opened that failed, or were discarded, is gone soon, and no line says so."""
    caplog.set_level(logging.INFO, "genwsgi")
    site.write(shop="")
    site.serve()
    site.write(shop=FAILS, shop__models=MODELS + "from builtins import opened\nopened.add(PAGE)\n")
    opened: weakref.WeakSet[object] = weakref.WeakSet()
    builtins.opened = opened  # type: ignore[attr-defined]
    try:
        with pytest.raises(BuildError) as kept:
            site.build()
        assert opened
        wait_until(lambda: not opened, what="the failed build is collected")
        site.write(shop="import shop.models")
        site.live.discard(site.build())
        wait_until(lambda: not opened, what="the discarded build is collected")
    finally:
        del builtins.opened  # type: ignore[attr-defined]
    site.live._janitor.catch_up(10)
    assert "ZeroDivisionError" in str(kept.value.reason)
    assert [one.number for one in site.live.status()] == [1]
    assert not [one for one in caplog.messages if "is collected" in one or "held" in one]

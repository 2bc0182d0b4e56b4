from __future__ import annotations

import ctypes
import gc
import json
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from genwsgi import janitor
from genwsgi.errors import BuildError
from genwsgi.generations.status import GenerationStatus
from genwsgi.isolation import audit
from genwsgi.isolation.roots import OUTSIDE, name_holder
from tests.helpers import wait_until
from tests.isolation.fixtures import site
from tests.isolation.sources import Site

__all__ = ["site"]

MODELS = "class Page:\n    def show(self): ...\n"
POLLER = """\
import threading
GATE = threading.Event()
def poll():
    GATE.wait(60)
threading.Thread(target=poll, name="poller", daemon=True).start()
"""


@pytest.fixture
def shelf() -> Iterator[list[Any]]:
    """A list of a shared module, on which anybody may leave something."""
    module = ModuleType("shared_lib")
    module.shelf = []  # type: ignore[attr-defined]
    sys.modules["shared_lib"] = module
    yield module.shelf
    del sys.modules["shared_lib"]


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    """What the janitor says is seen, of every level."""
    caplog.set_level(logging.INFO, "genwsgi")


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    said = [one.getMessage() for one in caplog.records if one.levelno == level]
    # What the audit of the scope finds in pytest is none of this.
    return [line for line in said if line.startswith("generation ")]


def retired(site: Site) -> list[GenerationStatus]:
    return [one for one in site.live.status() if one.state == "retired"]


def test_says_what_is_gone(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation is logged as retired, and as collected when it is and its memory was given back
    to the system.
    """
    monkeypatch.setattr(janitor, "trim", lambda: janitor.log.info("generation 1's memory is free"))
    site.write(shop="")
    site.serve()
    site.serve()
    wait_until(lambda: "generation 1 is collected" in lines(caplog), what="the log")
    assert lines(caplog)[-3:] == [
        "generation 1 has retired",
        "generation 1's memory is free",
        "generation 1 is collected",
    ]
    assert lines(caplog, logging.WARNING) == []
    wait_until(lambda: [one.number for one in site.live.status()] == [2], what="the status")


def test_what_the_application_has_frozen(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A generation whose code has frozen what there is for the garbage collector is collected."""
    site.write(shop="import gc\nclass Page: pass\ngc.freeze()\n")
    try:
        site.serve()
        site.write(shop="")
        site.serve()
        wait_until(lambda: "generation 1 is collected" in lines(caplog), what="the log")
        assert lines(caplog, logging.WARNING) == []
    finally:
        gc.unfreeze()


def test_a_build_finds_nothing_left_of_what_has_retired(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a build begins, what has retired is collected, and what is held is not waited for."""
    monkeypatch.setattr(janitor, "GATHER", 30.0)
    monkeypatch.setattr("genwsgi.live.CATCH_UP", 30.0)
    site.write(shop="")
    site.serve()
    held = site.serve().modules

    def said(line: str) -> bool:
        return line in lines(caplog)

    for number in (1, 2):
        wait_until(partial(said, f"generation {number} has retired"), what="teardown")
        site.serve()
        assert said("generation 1 is collected")
    assert not said("generation 2 is collected")
    assert held.closed


def test_names_the_holder(
    site: Site,
    shelf: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who holds a retired generation is in the log once and in the status until it is gone."""
    monkeypatch.setattr(janitor, "AGAIN", (0.05, 0.3))
    site.write(shop="import shop.models", shop__models=MODELS)
    generation = site.serve()
    shelf.append(generation.modules.modules["shop.models"].Page)
    del generation
    site.serve()
    wait_until(lambda: lines(caplog, logging.WARNING), what="the warning")
    text = "`shared_lib.shelf[0]`, through `shop.models.Page`"
    assert lines(caplog, logging.WARNING) == [f"generation 1 has retired but is held by {text}"]
    # The status comes after the log.
    wait_until(lambda: [one.holder for one in retired(site)] == [text], what="the status")
    (held,) = retired(site)
    assert held == GenerationStatus(1, "test", "retired", 0, None, text, age=held.age)
    assert held.age is not None
    assert 0 <= held.age < 60
    json.dumps([asdict(one) for one in site.live.status()])
    looked = site.live._janitor._left[0]
    wait_until(lambda: looked.pause == 0.3, what="it is looked at again, and later each time")
    assert len(lines(caplog, logging.WARNING)) == 1
    shelf.clear()
    wait_until(lambda: not retired(site), what="it is gone")
    last = "generation 1 is collected at last, "
    wait_until(lambda: any(line.startswith(last) for line in lines(caplog)), what="the log")


def test_is_looked_at_with_the_next_one(
    site: Site, shelf: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """When another generation retires, those that are held are looked at as well."""
    site.write(shop="import shop.models", shop__models=MODELS)
    shelf.append(site.serve().modules.modules["shop.models"].Page)
    site.serve()
    wait_until(lambda: lines(caplog, logging.WARNING), what="the warning")
    shelf.clear()
    site.serve()
    wait_until(lambda: "generation 2 is collected" in lines(caplog), what="the second is gone")
    wait_until(lambda: retired(site) == [], what="the status")
    assert any("generation 1 is collected at last" in line for line in lines(caplog))


def test_after_the_end_nobody_is_looked_for(
    site: Site, shelf: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """When everything closes, what is held is left alone, while others still drain too."""
    site.two(shop="import shop.models", shop__models=MODELS)
    shelf.append(site.live.current.modules.modules["shop.models"].Page)  # type: ignore[union-attr]
    site.live.close(timeout=0.01)
    wait_until(lambda: "generation 2 has retired" in lines(caplog), what="it is torn down")
    looked = site.live._janitor
    wait_until(lambda: looked._left, what="it has been collected")
    assert looked._next_look() is None
    site.pending.close()
    wait_until(lambda: not looked._thread.is_alive(), what="the janitor ends")  # type: ignore[union-attr]
    assert lines(caplog, logging.WARNING) == []
    assert "generation 1 is collected" in lines(caplog)


def test_a_thread_that_goes_on_is_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that a generation started and that holds it is named, with where it is."""
    site.write(shop=POLLER)
    first = site.serve()
    gates = [first.modules.modules["shop"].GATE]
    gates.append(site.serve().modules.modules["shop"].GATE)
    try:
        del first
        wait_until(lambda: lines(caplog, logging.WARNING), what="the warning")
        text = "thread 'poller' (started by it), at shop/__init__.py:4"
        assert lines(caplog, logging.WARNING) == [f"generation 1 has retired but is held by {text}"]
        wait_until(lambda: [one.holder for one in retired(site)] == [text], what="the status")
    finally:
        for gate in gates:
            gate.set()


def test_a_thread_of_shared_code_is_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A leftover thread that holds nothing of its generation is named all the same."""
    gate = threading.Event()
    site.write(shop="import threading\n")
    thread = threading.Thread(target=gate.wait, args=(60,), name="waiter")
    site.serve().run(thread.start)
    site.serve()
    try:
        wait_until(lambda: lines(caplog, logging.WARNING), what="the warning")
        (line,) = lines(caplog, logging.WARNING)
        assert line.startswith("generation 1 has retired but its threads still run: waiter at thr")
        assert "generation 1 is collected" in lines(caplog)
    finally:
        gate.set()
        thread.join()


def test_draining_in_the_status(site: Site) -> None:
    """The status tells how many responses a generation owes and since when, and of the oldest whose
    it is.
    """
    site.two(shop="")
    first, second = site.live.status()
    assert (first.state, first.leases, first.holder) == ("draining", 1, "")
    assert first.oldest is not None
    assert first.age is not None
    assert 0 <= first.age <= first.oldest < 60
    assert first.request == "GET /slow"
    assert second == GenerationStatus(2, "test", "current", 0, None, "")


class Clock:
    """Stands in for the clock: only who sleeps takes any time."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("busy", "least", "most"),
    [
        ([0], 0.0, 0.0),
        ([3, 2, 1, 0], 0.0, 0.1),
        ([3], 0.2, 0.35),  # no fewer than ever: as soon as half of the time is over
        (range(1, 10_000), 0.4, 0.55),  # ever more: at the end of the time
    ],
)
def test_moment_of_the_collection(
    busy: Any, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection comes at once when no response is owed, else when few are, or in the end."""
    clock, collected = Clock(), list[float]()
    monkeypatch.setattr(janitor, "time", clock)
    monkeypatch.setattr("gc.collect", lambda: collected.append(clock.now))
    leases = list(busy)
    made = janitor.Janitor(
        lambda: leases.pop(0) if len(leases) > 1 else leases[0], lambda: False, lambda: None
    )
    began = clock.now
    made._collect()
    assert least <= collected[0] - began <= most


def test_waits_for_the_end_of_a_search(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is collected while a build looks through what is there, and the other way round."""
    collecting: list[bool] = []
    searching: list[bool] = []
    collect, search = gc.collect, audit._Look.search

    def collected() -> int:
        collecting.append(audit._searching.locked())
        return collect()

    def searched(self: Any, *arguments: Any) -> Any:
        searching.append(audit._searching.locked())
        return search(self, *arguments)

    monkeypatch.setattr(gc, "collect", collected)
    monkeypatch.setattr(audit._Look, "search", searched)
    site.write(shop="")
    for _ in range(2):
        site.serve()
    wait_until(lambda: collecting, what="a collection")
    assert all(collecting)
    assert searching
    assert all(searching)
    with audit.no_search(30.0), audit.no_search(0.0):
        pass
    assert not audit._searching.locked()


#: Two greenlets that want to search, the second while the first gives way to others.
GREENLETS = """
from genwsgi.isolation import audit
import gevent.event, gevent.monkey
gevent.monkey.patch_all()
order = []
both = gevent.event.Event()
def search(name):
    if order:
        both.set()
    with audit.no_search(20.0):
        order.append("begin " + name)
        assert both.wait(20.0)
        order.append("end " + name)
gevent.joinall([gevent.spawn(search, name) for name in "ab"])
print(", ".join(order))
"""


def test_who_waits_for_a_search_stops_no_greenlet() -> None:
    """Under gevent the wait for a search lets that search, and all else, go on."""
    told = subprocess.check_output([sys.executable, "-c", GREENLETS], text=True, timeout=60)
    assert told.strip() == "begin a, end a, begin b, end b"


@pytest.mark.parametrize(
    ("hold", "text"),
    [
        (lambda models: [models.Page], ": a list, through `shop.models.Page`"),
        (lambda models: models.Page, ", out of sight of its garbage collector"),
    ],
)
def test_a_holder_outside_of_python(site: Site, hold: Any, text: str) -> None:
    """What no path leads to is said to be outside, with its kind if that can be seen."""
    site.write(shop="import shop.models", shop__models=MODELS)
    table = weakref.ref(site.serve().modules)
    held = hold(site.live.current.modules.modules["shop.models"])  # type: ignore[union-attr]
    address = id(held)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    del held
    site.serve()
    wait_until(lambda: [one for one in retired(site) if one.holder], what="it is looked for")
    assert [one.holder for one in retired(site)] == ["something outside of Python's modules" + text]
    ctypes.pythonapi.Py_DecRef(ctypes.cast(address, ctypes.py_object))

    def collected() -> bool:
        gc.collect()
        return table() is None

    # The janitor may still have it in its hands.
    wait_until(collected, what="it is gone")


def test_what_is_only_seen_once_wakes_nobody(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that no path leads to is logged when it is there at the next look as well."""
    monkeypatch.setattr(janitor, "name_holder", lambda *_: OUTSIDE + ": a list")
    monkeypatch.setattr(janitor, "AGAIN", (0.05, 0.3))
    site.write(shop="")
    pinned = [site.serve().modules]
    looks: list[bool] = []
    name = janitor.Janitor._is_held

    def is_held(self: janitor.Janitor, one: Any, holder: str) -> None:
        name(self, one, holder)
        looks.append("is held by" in caplog.text)

    monkeypatch.setattr(janitor.Janitor, "_is_held", is_held)
    site.serve()
    wait_until(lambda: len(looks) >= 2, what="it is looked at twice")
    assert looks[:2] == [False, True]
    pinned.clear()


def test_nothing_holds_what_is_gone(site: Site) -> None:
    """Of a generation that is gone meanwhile no holder is named."""
    site.write(shop="")
    first = site.serve()
    table = weakref.ref(first.modules)
    del first
    site.serve()
    wait_until(lambda: table() is None, what="it is gone")
    assert name_holder(table) == ""


HANGS = """\
import atexit, threading
GATE = threading.Event()
def wait():
    GATE.wait(60)
atexit.register(wait)
"""


def test_a_teardown_that_hangs_holds_up_nobody(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a teardown hangs is told in log and status, the next one goes on, and when it ends
    after all the generation is collected like the others.
    """
    monkeypatch.setattr(janitor, "DEADLINE", 1.0)
    site.write(shop=HANGS)
    gate = site.serve().modules.modules["shop"].GATE
    site.write(shop="")
    site.serve()
    wait_until(lambda: lines(caplog, logging.WARNING), what="the warning")
    # However slow the machine is, the next one does not hang.
    monkeypatch.setattr(janitor, "DEADLINE", 60.0)
    site.serve()
    wait_until(lambda: "generation 2 is collected" in lines(caplog), what="the next one is gone")
    (line,) = lines(caplog, logging.WARNING)
    assert line.startswith("generation 1 is not torn down after 1 s, and waited for no longer.")
    assert 'shop/__init__.py", line 4, in wait' in line
    held = [(1, "its own teardown, which is at shop/__init__.py:4")]
    wait_until(lambda: [(one.number, one.holder) for one in retired(site)] == held, what="status")
    assert "generation 1 has retired" not in lines(caplog)
    gate.set()
    wait_until(lambda: "generation 1 is collected" in lines(caplog), what="it is gone")
    assert lines(caplog)[-2:] == ["generation 1 has retired", "generation 1 is collected"]
    wait_until(lambda: retired(site) == [], what="the status")


def test_the_end_waits_for_a_teardown_that_hangs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is not left while a teardown hangs in it, and close waits no longer than it may."""
    monkeypatch.setattr(janitor, "DEADLINE", 0.05)
    site.write(shop=HANGS)
    gate = site.serve().modules.modules["shop"].GATE
    site.live.close(timeout=0.3)
    thread = site.live._janitor._thread
    assert thread is not None
    assert thread.is_alive()
    gate.set()
    wait_until(lambda: not thread.is_alive(), what="the janitor ends")


def test_without_another_thread(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started the janitor tears a generation down itself."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "teardown" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    site.write(shop="")
    site.serve()
    site.serve()
    wait_until(lambda: "generation 1 is collected" in lines(caplog), what="the log")


@pytest.mark.parametrize(("last", "end"), [("1 / 0", "has failed"), ("", "was discarded")])
def test_who_holds_a_build_that_never_served(
    site: Site,
    shelf: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    last: str,
    end: str,
) -> None:
    """Who holds what is left of a build that never served is in the log and the status."""
    monkeypatch.setattr(janitor, "AGAIN", (0.05, 0.3))
    site.write(shop="")
    site.serve()
    keep = "import shared_lib\nshared_lib.shelf.append(Page)\n"
    site.write(shop=f"import shop.models\n{last}", shop__models=MODELS + keep)
    if last:
        with pytest.raises(BuildError):
            site.build()
    else:
        site.live.discard(site.build())
    wait_until(lambda: "is held by" in caplog.text, what="the warning")
    (line,) = [one for one in caplog.messages if "is held by" in one]
    assert line.startswith(f"the build of generation 2 {end} but is held by `shared_lib.shelf[0]`")
    wait_until(lambda: len(site.live.status()) == 2, what="the status")
    held = site.live.status()[1]
    assert (held.number, held.state, held.age) == (2, "discarded", None)
    assert held.holder in line
    shelf.clear()
    late = "the build of generation 2 is collected at last, "
    wait_until(lambda: any(one.startswith(late) for one in caplog.messages), what="the log")
    wait_until(lambda: len(site.live.status()) == 1, what="the status")

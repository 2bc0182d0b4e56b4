from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import genwsgi
from genwsgi.errors import BuildError, HandoverError, LifeError
from genwsgi.generations.lifecycle import State
from tests.helpers import wait_until
from tests.isolation.fixtures import site
from tests.isolation.sources import Site, call, torn_down

__all__ = ["site"]


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that the code of every generation knows as ``notes``."""
    made: list[Any] = []
    monkeypatch.setattr("builtins.notes", made, raising=False)
    return made


def retire(site: Site) -> None:
    """Let the current generation retire: another one takes its place."""
    old = site.live.current
    site.serve()
    wait_until(lambda: old is not None and torn_down(old), what="it is torn down")


ENDING = """
    import atexit, genwsgi
    atexit.register(notes.append, "VERSION atexit 1")
    @genwsgi.on_retire
    def one():
        from shop.late import V
        notes.append(V)
    atexit.register(notes.append, "VERSION atexit 2")
    genwsgi.on_retire(lambda: notes.append("VERSION two"))
"""


def test_callbacks_run_when_the_generation_retires(site: Site, notes: list[Any]) -> None:
    """At the end of its last response a generation's callbacks run in its context, last first."""
    first, _ = site.two(shop=ENDING, shop__late="V = 'VERSION one'\n")
    assert notes == []
    site.pending.close()
    wait_until(lambda: torn_down(first), what="it is torn down")
    assert notes == ["1 two", "1 atexit 2", "1 one", "1 atexit 1"]


def test_a_callback_that_raises(
    site: Site, notes: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises is logged, and the others have their turn."""
    site.write(
        shop="from genwsgi import on_retire\non_retire(notes.clear)\non_retire(lambda: 1 / 0)"
    )
    site.serve()
    notes.append("to be cleared")
    retire(site)
    assert notes == []
    assert "ZeroDivisionError" in caplog.text


def test_callbacks_of_a_build_that_fails(site: Site, notes: list[Any]) -> None:
    """What was opened before a build failed can be closed; its exit callbacks are forgotten."""
    ending = ENDING.replace("from shop.late import V", "V = 'one'")
    site.write(shop=ending + "\n    1 / 0\n")
    with pytest.raises(BuildError):
        site.build()
    assert notes == ["VERSION two", "one"]


def test_a_callback_that_imports_what_failed(
    site: Site, notes: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a callback of a failed build registers anew is refused or forgotten."""
    site.write(shop=ENDING + "\n    1 / 0\n")
    with pytest.raises(BuildError):
        site.build()
    assert notes == ["VERSION two"]
    assert "LifeError" in caplog.text


def test_callbacks_of_a_discarded_generation(site: Site, notes: list[Any]) -> None:
    """A generation that is ready but never swapped in closes what it opened, too."""
    site.write(shop=ENDING, shop__late="V = 'one'\n")
    generation = site.build()
    assert notes == []
    site.live.discard(generation)
    assert notes == ["VERSION two", "one"]
    assert generation.state is State.DISCARDED


def test_callbacks_when_everything_closes(site: Site, notes: list[Any]) -> None:
    """The last generation's callbacks run when the application is closed."""
    site.write(shop=ENDING, shop__late="V = 'one'\n")
    site.serve()
    site.close()
    assert notes == ["VERSION two", "VERSION atexit 2", "one", "VERSION atexit 1"]


def test_whose_callback_it_is(site: Site, notes: list[Any]) -> None:
    """Registered by shared code for a generation's, or on another's thread, it is the caller's."""
    first, _ = site.two(shop="import genwsgi\ndef register(call, *args):\n    call(*args)\n")
    thread = threading.Thread(
        target=call, args=(first, "shop", "register", genwsgi.on_retire, notes.clear)
    )
    thread.start()
    thread.join()
    notes.append(1)
    site.pending.close()
    wait_until(lambda: torn_down(first), what="it is torn down")
    assert notes == []


@pytest.mark.parametrize(
    ("hook", "args"),
    [("on_retire", (print,)), ("on_handover", (print,)), ("put_forward", ("x", print))],
)
def test_too_late(site: Site, hook: str, args: tuple[Any, ...]) -> None:
    """A generation that has ended is told that it comes too late."""
    first, _ = site.two(
        shop="import genwsgi\ndef register(name, *a):\n    getattr(genwsgi, name)(*a)"
    )
    register = first.modules.modules["shop"].register
    site.pending.close()
    wait_until(lambda: torn_down(first), what="it is torn down")
    with pytest.raises(LifeError, match=r"comes too late: generation 1 is retired; call it while"):
        register(hook, *args)


GIVING = """
    import genwsgi
    cache = {"page": VERSION}
    genwsgi.put_forward("cache", lambda: dict(cache))
"""
TAKING = (
    GIVING
    + """
    @genwsgi.on_handover
    def take(offered):
        notes.append(dict(offered))
        from shop.late import V
        cache.update(offered.get("cache", {}), late=V)
"""
)


def test_hand_over(site: Site, notes: list[Any]) -> None:
    """A new generation is offered what the current one puts forward, before it is ready."""
    first, second = site.two(shop=TAKING, shop__late="V = VERSION\n")
    assert notes == [{"cache": {"page": 1}}]
    assert second.modules.modules["shop"].cache == {"page": 1, "late": 2}
    first.modules.modules["shop"].cache["page"] = "changed since"
    second.modules.modules["shop"].cache["page"] = "changed"
    third = site.build()
    assert third.modules.modules["shop"].cache["page"] == "changed"
    site.live.discard(third)
    assert second.state is State.CURRENT
    assert site.live.statistics().leases == {1: 1, 2: 0}


def test_each_is_called_in_its_own_context(site: Site, notes: list[Any]) -> None:
    """``give`` runs in the context of the generation that gives, ``take`` in the new one's."""
    site.write(
        shop="import genwsgi\n"
        "from genwsgi.generations.generation import active\n"
        "genwsgi.put_forward('x', lambda: notes.append(active.get().number))\n"
        "genwsgi.on_handover(lambda offered: notes.append(active.get().number))\n"
    )
    site.serve()
    site.serve()
    assert notes == [1, 2]


def test_nothing_is_offered(site: Site, notes: list[Any]) -> None:
    """Who follows one that puts nothing forward gets nothing; the first one is not asked."""
    site.write(
        shop=TAKING.replace("VERSION", "1").replace('genwsgi.put_forward("cache"', "print(0")
    )
    site.write(shop__late="V = 0")
    site.serve()
    assert notes == []
    site.serve()
    assert notes == [{}]


@pytest.mark.parametrize(
    "code",
    [
        'import genwsgi\ngenwsgi.on_handover(lambda offered: offered["no such thing"])\n',
        "import genwsgi\n@genwsgi.on_handover\ndef take(offered):\n    raise SystemExit(3)\n",
    ],
)
def test_taking_may_fail(site: Site, code: str) -> None:
    """When taking over raises, the build fails with the traceback and the old one serves on."""
    site.write(shop=GIVING.replace("VERSION", "1"))
    first = site.serve()
    site.write(shop=code)
    with pytest.raises(BuildError) as caught:
        site.build()
    assert "shop/__init__.py" in caught.value.traceback
    assert "genwsgi/hooks.py" not in caught.value.traceback
    assert site.live.current is first
    assert site.live.statistics().leases == {1: 0}


def test_giving_may_fail(site: Site) -> None:
    """When what was put forward raises, the build fails with the traceback of the old code."""
    site.write(shop="import genwsgi\ngenwsgi.put_forward('x', lambda: 1 / 0)\n")
    first = site.serve()
    site.write(shop="import genwsgi\ngenwsgi.on_handover(print)\n")
    with pytest.raises(BuildError, match="ZeroDivisionError") as caught:
        site.build()
    assert "genwsgi.put_forward('x', lambda: 1 / 0)" in caught.value.traceback
    assert site.live.current is first


def test_nothing_of_the_old_one_is_handed_over(site: Site) -> None:
    """What would keep the old generation alive is refused, with the path that leads to it."""
    site.write(
        shop="import genwsgi\nclass P:\n    pass\ngenwsgi.put_forward('x', lambda: [1, P()])\n"
    )
    site.serve()
    site.write(shop="import genwsgi\ngenwsgi.on_handover(print)\n")
    with pytest.raises(BuildError) as caught:
        site.build()
    text = (
        "genwsgi.put_forward('x') of generation 1 would keep that generation alive (`[1]` of what "
        "it gives, through an instance of `shop.P`): give what all generations share"
    )
    assert text in caught.value.reason
    assert HandoverError.__name__ in caught.value.traceback


ALONE = """
import atexit, sys
import genwsgi
made = []
@genwsgi.on_retire
def last(): print("retired")
genwsgi.put_forward("x", dict)
genwsgi.on_handover(print)
genwsgi.verify(print)
def make():
    made.append(1)
    return [1]
assert genwsgi.keep("pool", make) is genwsgi.keep("pool", make)
print("end", made)
"""


def test_without_genwsgi(tmp_path: Path) -> None:
    """Code that uses all of it runs without genwsgi: retirement is the end of the process."""
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert shown.stdout == "end [1]\nretired\n"


def test_in_a_shared_module(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shared module asks while it is imported is the process's, and outlives generations."""
    library = tmp_path / "library"
    library.mkdir()
    registered: list[Any] = []
    monkeypatch.setattr("atexit.register", registered.append)
    (library / "hooked_lib.py").write_text("import genwsgi\ngenwsgi.on_retire(print)\n")
    monkeypatch.syspath_prepend(str(library))
    site.write(shop="import hooked_lib\n")
    try:
        site.serve()
        assert print in registered
    finally:
        sys.modules.pop("hooked_lib", None)
    assert logging.getLogger("genwsgi").disabled is False

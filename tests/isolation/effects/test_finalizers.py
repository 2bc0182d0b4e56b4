from __future__ import annotations

import weakref

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site

#: As Django's signals do it: the callback leads to the object that is waited for.
FINALIZING = """
    import weakref
    from functools import partial
    class Signal:
        def receiver(self): pass
        def forget(self, what="forgotten", *_):
            said.append((what, VERSION))
    signal = Signal()
    weakref.finalize(signal, Signal.forget, signal, "first")
    weakref.finalize(Signal.receiver, signal.forget)
    weakref.finalize(signal, partial(print, signal)).atexit = False
"""


def test_retired_generation(site: Site) -> None:
    """What is left of a generation's finalizers is done when it retires, last first."""
    first, _ = site.two(shop=FINALIZING)
    signal = weakref.ref(first.modules.modules["shop"].signal)
    site.pending.close()
    wait_until(lambda: signal() is None, what="the first generation is collected")
    assert said == [("forgotten", 1), ("first", 1)]


def test_failed_build(site: Site) -> None:
    """Those of a failed build are forgotten, and one that raises stops no other."""
    before = weakref.finalize._registry.copy()  # type: ignore[attr-defined]
    site.write(shop=FINALIZING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert weakref.finalize._registry.keys() <= before.keys()  # type: ignore[attr-defined]
    assert said == []


def test_one_that_raises(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A finalizer that raises is logged, and the others have their turn."""
    raising = "    weakref.finalize(signal, lambda: 1 / 0)\n"
    site.two(shop=FINALIZING + raising)
    site.pending.close()
    wait_until(lambda: ("first", 1) in said, what="the others")
    assert "its finalizer" in caplog.text


def test_a_shared_callback(site: Site) -> None:
    """A finalizer that leads to nothing of the generation's waits for its object."""
    site.write(
        shop="import weakref\nclass Thing: pass\nthing = Thing()\n"
        f"weakref.finalize(thing, {__name__!r} and __import__({__name__!r}, fromlist='x').note)\n"
    )
    first = site.serve()
    thing = weakref.ref(first.modules.modules["shop"].thing)
    assert said == []
    site.write(shop="")
    site.serve()
    wait_until(lambda: said == ["noted"], what="the object is collected")
    assert thing() is None


def note() -> None:
    """Write down that a finalizer has run."""
    said.append("noted")

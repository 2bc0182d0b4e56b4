from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

from genwsgi.isolation.effects import base, exits
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, torn_down, write


def test_atexit_runs_at_retirement(told: list[str], site: Site) -> None:
    """Exit callbacks run when the generation retires, the last one first, in its name."""
    first, _ = site.two(
        shop="""
            import atexit
            @atexit.register
            def last():
                import shop.lazy
                said.append(shop.lazy.V)
            atexit.register(said.append, "arguments")
            def gone():
                said.append("gone")
            atexit.register(gone)
            atexit.unregister(gone)
            atexit.register(exit, 1)
            atexit.register(lambda: 1 / 0)
            @atexit.register
            def cancelled():
                import asyncio
                raise asyncio.CancelledError
        """,
        shop__lazy="V = VERSION",
    )
    assert said == []
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    assert said == ["arguments", 1]


def test_finalizers_are_the_process_s(site: Site) -> None:
    """Retiring a generation runs no finalizer of anybody else's."""

    class Thing:
        pass

    thing = Thing()
    first, _ = site.two(shop="import weakref\nclass A: ...\na = A()\nweakref.finalize(a, int)\n")
    finalizer = weakref.finalize(thing, said.append, "finalized")
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    assert finalizer.alive
    finalizer.detach()


def test_at_the_process_s_end(tmp_path: Path) -> None:
    """Exit callbacks of the generations that are left run when the process ends, which is not held
    up by a folder that the current one has put on the path.
    """
    source = "import atexit, sys\nsys.path.append('/nowhere')\natexit.register(print, 'bye')\n"
    write(tmp_path, {"src/shop.py": f"{source}app = dict\n"})
    program = """
from genwsgi.isolation.scope import ScopeRules, find_scope
from genwsgi.isolation.store import Store
from genwsgi.live import LiveApplication
from genwsgi.target import parse
store = Store("store")
digest = store.take(find_scope(ScopeRules("shop", ("src",))))
live = LiveApplication(parse("shop:app"), store, factory=False)
live.swap(live.build(digest, "r"))
"""
    root = Path(base.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("bye\n", "")


def test_those_of_threading(site: Site) -> None:
    """Callbacks that ``threading`` calls before it waits for threads come first, and once."""
    first, _ = site.two(
        shop="""
            import atexit, threading
            threading._register_atexit(said.append, "early VERSION")
            atexit.register(said.append, "late VERSION")
        """
    )
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    assert said == ["early 1", "late 1"]
    exits._before_threads()
    assert said == ["early 1", "late 1", "early 2"]
    site.close()
    assert said == ["early 1", "late 1", "early 2", "late 2"]
    # For the process itself it is as ever.
    known = len(threading._threading_atexits)  # type: ignore[attr-defined]
    threading._register_atexit(int)  # type: ignore[attr-defined]
    assert len(threading._threading_atexits) == known + 1  # type: ignore[attr-defined]

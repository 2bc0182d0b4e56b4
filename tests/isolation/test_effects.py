from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import typing
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation.effects import base, signals
from tests.helpers import wait_until
from tests.isolation.sources import LAZILY, Site, call, write

#: Where the applications of these tests write what they do.
said: list[Any] = []


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("builtins.said", said, raising=False)
    yield
    said.clear()


LOGGING = """
    import logging
    class Ear(logging.Handler):
        def emit(self, record):
            said.append(("VERSION", record.getMessage()))
    log = logging.getLogger("genwsgi_tests_shop")
    log.setLevel("INFO")
    if not log.handlers:
        log.addHandler(Ear())
    def ask(text):
        log.info(text)
"""


def test_no_line_twice(site: Site) -> None:
    """With two generations alive, and after one retired, each record is written once."""
    first, second = site.two(shop=LOGGING)
    logger = logging.getLogger("genwsgi_tests_shop")
    call(first, "shop", "ask", "one")
    call(second, "shop", "ask", "two")
    logger.info("nobody")
    assert said == [("1", "one"), ("2", "two"), ("2", "nobody")]
    said.clear()
    site.pending.close()
    wait_until(lambda: first.modules.closed, what="the first generation is torn down")
    call(second, "shop", "ask", "three")
    assert said == [("2", "three")]
    assert logger.handlers == []


def test_configuring_disables_no_logger_of_others(site: Site) -> None:
    """``dictConfig`` with its defaults, in a build good or bad, leaves the others' loggers on."""
    configure = """
        import logging.config
        logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
    """
    log = logging.getLogger("genwsgi_tests_shop")
    site.write(shop=LOGGING)
    site.serve()
    level = logging.root.level
    site.write(shop=configure + "    1 / 0\n")
    with pytest.raises(BuildError):
        site.build()
    assert (log.disabled, base.log.disabled) == (False, False)
    assert logging.root.level == level
    site.write(shop=configure)
    site.serve()
    assert (log.disabled, base.log.disabled) == (False, False)
    logging.root.setLevel(level)


def test_handlers_are_a_list_of_its_own(site: Site) -> None:
    """Whatever a generation does to a logger's list, others and the process don't notice."""
    logger = logging.getLogger("genwsgi_tests_shop")
    mine = logging.NullHandler()
    logger.addHandler(mine)
    try:
        first, second = site.two(
            shop="import logging\nlog = logging.getLogger('genwsgi_tests_shop')\n"
            "seen = list(log.handlers)\nif VERSION == 1:\n    log.handlers.clear()\n"
            "else:\n    log.handlers = [logging.NullHandler()]\n"
            "def ask():\n    return list(log.handlers)\n"
        )
        for generation in (first, second):
            assert generation.modules.modules["shop"].seen == [mine]
        assert call(first, "shop", "ask") == []
        assert len(call(second, "shop", "ask")) == 1
        assert logger.handlers == [mine]
    finally:
        logger.removeHandler(mine)


def test_list_follows_the_process(site: Site) -> None:
    """A handler that the process adds later is heard by generations that have none of their own."""
    site.write(shop="import logging\ndef ask():\n    return logging.getLogger('gw.x').handlers\n")
    generation = site.serve()
    assert call(generation, "shop", "ask") == []
    later = logging.NullHandler()
    logging.getLogger("gw.x").addHandler(later)
    assert call(generation, "shop", "ask") == [later]
    logging.getLogger("gw.x").removeHandler(later)


def test_handlers_are_closed(site: Site) -> None:
    """A retired generation's handlers are closed, and one that raises then stops nothing."""
    first, _ = site.two(
        shop="import logging\nclass Bad(logging.NullHandler):\n    def close(self):\n"
        "        super().close()\n        said.append('closed')\n        raise OSError\n"
        "logging.getLogger('gw.y').addHandler(Bad())\n"
    )
    site.pending.close()
    wait_until(lambda: said, what="the handler is closed")
    wait_until(lambda: first.modules.closed, what="the generation is torn down")


def test_atexit_runs_at_retirement(site: Site) -> None:
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
    wait_until(lambda: first.modules.closed, what="the generation is torn down")
    assert said == ["arguments", 1]


def test_shared_modules_speak_for_the_process(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shared module registers while it is imported outlives the generation that did it."""
    write(
        tmp_path / "lib",
        {
            "registering_library.py": """
                import atexit, logging, threading
                def at_the_end():
                    said.append("too early")
                atexit.register(at_the_end)
                handler = logging.NullHandler()
                logging.getLogger("registering_library").addHandler(handler)
            """
        },
    )
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "lib"))
        first, second = site.two(shop="import registering_library\n")
    library = sys.modules.pop("registering_library")
    site.pending.close()
    wait_until(lambda: first.modules.closed, what="the generation is torn down")
    logger = logging.getLogger("registering_library")
    assert said == []
    assert logger.handlers == [library.handler]
    assert second.run(lambda: logger.handlers) == [library.handler]
    atexit.unregister(library.at_the_end)
    logger.removeHandler(library.handler)


def test_finalizers_are_the_process_s(site: Site) -> None:
    """Retiring a generation runs no finalizer of anybody else's."""

    class Thing:
        pass

    thing = Thing()
    first, _ = site.two(shop="import weakref\nclass A: ...\na = A()\nweakref.finalize(a, int)\n")
    finalizer = weakref.finalize(thing, said.append, "finalized")
    site.pending.close()
    wait_until(lambda: first.modules.closed, what="the generation is torn down")
    assert finalizer.alive
    finalizer.detach()


def test_at_the_process_s_end(tmp_path: Path) -> None:
    """Exit callbacks of the generations that are left run when the process ends."""
    write(tmp_path, {"src/shop.py": "import atexit\natexit.register(print, 'bye')\napp = dict\n"})
    program = """
from genwsgi.isolation.scope import ScopeRules, find_scope
from genwsgi.isolation.snapshot import Store
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
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("bye\n", "")


def test_signal_off_the_main_thread(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """signal.signal works on a build's thread; the newest served generation gets the signal."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        code = "import signal\nsignal.signal(signal.SIGUSR1, lambda *a: said.append(VERSION))\n"
        site.write(shop=code.replace("VERSION", "1"))
        site.serve()
        assert signal.getsignal(signal.SIGUSR1) is signals.dispatch
        site.write(shop=code.replace("VERSION", "2"))
        built: list[Any] = []
        thread = threading.Thread(target=lambda: built.append(site.build()))
        thread.start()
        thread.join(10)
        signal.raise_signal(signal.SIGUSR1)
        site.live.swap(built[0])
        signal.raise_signal(signal.SIGUSR1)
        assert said == [1, 2]
        site.write(shop="")
        site.serve()
        signal.raise_signal(signal.SIGUSR1)
        assert said == [1, 2]
        assert "takes effect when the worker is replaced" not in caplog.text
        site.live.close()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_signal_nobody_claimed_before(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A signal first claimed on a build's thread stays the process's, and the log says so."""
    before = signal.getsignal(signal.SIGUSR1)
    site.write(shop="import signal\nsignal.signal(signal.SIGUSR1, lambda *a: said.append(1))\n")
    thread = threading.Thread(target=site.serve)
    thread.start()
    thread.join(10)
    assert signal.getsignal(signal.SIGUSR1) == before
    assert "SIGUSR1 takes effect when the worker is replaced" in caplog.text


def test_signal_falls_back(site: Site) -> None:
    """A signal that the current generation doesn't want goes to who had it before."""
    before = signal.signal(signal.SIGUSR1, lambda *_: said.append("before"))
    try:
        site.write(shop="import signal\nsignal.signal(signal.SIGUSR1, lambda *a: None)\n")
        site.serve()
        site.write(shop="")
        site.serve()
        signal.raise_signal(signal.SIGUSR1)
        assert said == ["before"]
    finally:
        site.live.close()
        signal.signal(signal.SIGUSR1, before)


FAILING = """
    import atexit, logging, sys, threading
    import shop.other
    sys.path.insert(0, "/nowhere/in/particular")
    class Hook:
        def find_spec(self, name, path=None, target=None):
            return None
    sys.meta_path.insert(0, Hook())
    sys.path_hooks.append(lambda path: 1 / 0)
    atexit.register(said.append, "exit")
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("gw.failing").handlers.append(logging.NullHandler())
    def run():
        import time
        while True:
            time.sleep(0.01)
    thread = threading.Thread(target=run, name="gw-failing", daemon=True)
    thread.start()
    1 / 0
"""


# pytest's hook, unlike Python's own, reports a thread that SystemExit has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_failed_build_leaves_no_trace(site: Site) -> None:
    """Nothing of a failed build is left, and the serving generation goes on importing lazily."""
    site.write(shop=LAZILY, shop__lazy="V = 1")
    serving = site.serve()
    site.write(shop=FAILING, shop__other="", shop__lazy="V = 2")
    before = (list(sys.path), list(sys.meta_path), list(sys.path_hooks))
    proxies = set(sys.modules)
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert (list(sys.path), list(sys.meta_path), list(sys.path_hooks)) == before
    assert set(sys.modules) == proxies
    assert "shop.other" not in sys.modules
    assert logging.getLogger("gw.failing").handlers == []
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name == "gw-failing"],
        what="the failed build's thread has stopped",
    )
    assert call(serving, "shop", "ask") == 1
    assert said == []


def test_lists_at_retirement(site: Site) -> None:
    """A retired generation's import hooks go; of a folder on the path one entry stays."""
    hooks, path = list(sys.meta_path), list(sys.path)
    try:
        for _ in range(3):
            site.write(
                shop="import sys\nclass Hook:\n    def find_spec(*_):\n        return None\n"
                "sys.meta_path.append(Hook())\nsys.path.append('/nowhere/' + 'else')\n"
            )
            generation = site.serve()
        wait_until(lambda: len(sys.meta_path) == len(hooks) + 1, what="old hooks are gone")
        assert sys.path.count("/nowhere/else") == 1
        assert generation.modules.modules["shop"].Hook is type(sys.meta_path[-1])
    finally:
        sys.path[:] = path


def test_stragglers_are_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that outlives its generation is named in the log."""
    site.write(
        shop="import threading\nstop = threading.Event()\n"
        "threading.Thread(target=stop.wait, name='gw-straggler', daemon=True).start()\n"
    )
    stop = site.serve().modules.modules["shop"].stop
    site.write(shop="")
    site.serve()
    wait_until(lambda: "threads still run: gw-straggler" in caplog.text, what="the warning")
    stop.set()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="overloads are kept from 3.11 on")
def test_overloads_are_forgotten(site: Site) -> None:
    """The typing module forgets the overloaded functions of a generation that has ended."""
    code = "import typing\n{}@typing.overload\ndef f(a: int): ...\ndef f(a): ...\n"
    site.write(shop=code.format(""))
    first = site.serve()
    builtins = first.modules.builtins
    site.write(shop=code.format("\n\n"))
    site.serve()
    wait_until(lambda: first.modules.closed, what="the generation is torn down")
    registry = typing._overload_registry["shop"]["f"]  # type: ignore[attr-defined]
    wait_until(lambda: len(registry) == 1, what="one overload is left")
    assert all(f.__builtins__ is not builtins for f in registry.values())
    gc.collect()

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from pathlib import Path

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation.effects import effects_of, mimes, threads
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import LAZILY, Site, call, torn_down, write


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
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    logger = logging.getLogger("registering_library")
    assert said == []
    assert logger.handlers == [library.handler]
    assert second.run(lambda: logger.handlers) == [library.handler]
    atexit.unregister(library.at_the_end)
    logger.removeHandler(library.handler)


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
        import select, socket
        never, other = socket.socketpair()
        with never, other:
            while not select.select([never], [], [], 0.01)[0]:
                pass
    thread = threading.Thread(target=run, name="gw-failing", daemon=True)
    thread.start()
    1 / 0
"""


# pytest's hook, unlike Python's own, reports a thread that SystemExit has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_failed_build_leaves_no_trace(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a failed build is left, and the serving generation goes on importing lazily."""
    monkeypatch.setattr(threads, "STOPS", 10)
    site.write(shop=LAZILY, shop__lazy="V = 1")
    serving = site.serve()
    site.write(shop=FAILING, shop__other="", shop__lazy="V = 2")
    before = (list(sys.path), list(sys.meta_path), list(sys.path_hooks))
    proxies = set(sys.modules)
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert (list(sys.path), list(sys.meta_path), list(sys.path_hooks)) == before
    # What reports the thread's end, pytest's hook, imports.
    assert set(sys.modules) - {"tracemalloc", "_tracemalloc"} == proxies - {
        "tracemalloc",
        "_tracemalloc",
    }
    assert "shop.other" not in sys.modules
    assert logging.getLogger("gw.failing").handlers == []
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name == "gw-failing"],
        what="the failed build's thread has stopped",
    )
    assert call(serving, "shop", "ask") == 1
    assert said == []


# pytest's hook, unlike Python's own, reports a thread that SystemExit has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_each_step_is_guarded(told: list[str], site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that can't be undone stops no other one, and the log says which it was."""
    # Its thread is to end in this test.
    monkeypatch.setattr(threads, "STOPS", 10)

    def fail(self: object) -> None:
        raise OSError("broken")

    before = mimes.Mimes.undo
    mimes.Mimes.undo = fail  # type: ignore[method-assign]
    try:
        site.write(shop=FAILING, shop__other="")
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
    finally:
        mimes.Mimes.undo = before  # type: ignore[method-assign]
    assert "generation 1: undo() of its Mimes failed" in told
    assert "/nowhere/in/particular" not in sys.path


def test_report(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """What a generation did to the process is told in the log and kept for the status."""
    caplog.set_level("INFO", logger="genwsgi")
    site.write(
        shop="""
            import atexit, codecs, gc, logging, mimetypes, os, signal, sqlite3, sys, threading
            atexit.register(int)
            codecs.register(lambda name: None)
            gc.callbacks.append(lambda *_: None)
            log = logging.getLogger("gw.reported")
            log.addHandler(logging.NullHandler())
            log.addHandler(logging.NullHandler())
            log.addFilter(lambda record: True)
            mimetypes.add_type("text/x-gw", ".gw")
            os.environ["GW_REPORTED"] = "secret"
            os.register_at_fork(before=int)
            sqlite3.register_adapter(type("Price", (), {}), str)
            stop = threading.Event()
            threading.Thread(target=stop.wait, daemon=True).start()
            sys.excepthook = lambda *_: None
        """
    )
    generation = site.serve()
    report = [
        "environment GW_REPORTED",
        "1 garbage collector callback",
        "1 sqlite3 adapter",
        "1 sys.excepthook",
        "1 codec search function",
        "MIME types",
        "1 fork callback",
        "2 log handlers",
        "1 log filter",
        "1 thread",
        "1 exit callback",
    ]
    assert effects_of(generation).report() == report  # type: ignore[union-attr]
    assert f"generation 1 did to the process: {', '.join(report)}" in caplog.messages
    generation.modules.modules["shop"].stop.set()
    site.close()
    assert generation.effects.report() == []
    del os.environ["GW_REPORTED"]

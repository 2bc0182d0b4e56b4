from __future__ import annotations

import gc
import importlib
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation.effects import threads
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, torn_down, write


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


# pytest's hook, unlike Python's own, reports a thread that SystemExit has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_of_a_failed_build(
    told: list[str], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, timers and pools of a failed build stop, and one that can't is named."""
    monkeypatch.setattr(threads, "STOPS", 1.0)
    site.write(
        shop="""
            import threading, time
            from concurrent.futures import ThreadPoolExecutor
            stop = threading.Event()
            said.append(stop)
            pool = ThreadPoolExecutor(1, thread_name_prefix="gw-pool")
            pool.submit(len, ()).result()
            timer = threading.Timer(600, len)
            timer.name = "gw-timer"
            timer.daemon = True
            timer.start()
            threading.Thread(target=stop.wait, name="gw-blocked", daemon=True).start()
            1 / 0
        """
    )
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert "is undone but its threads still run:" in told[-1]
    assert "gw-blocked" in told[-1]
    assert "gw-timer" not in told[-1]
    said.pop().set()
    wait_until(lambda: not alive("gw-blocked") and not alive("gw-timer"), what="they have stopped")
    # The idle thread of a pool ends when the pool is collected.
    wait_until(lambda: gc.collect() >= 0 and not alive("gw-pool"), what="the pool has ended")


POOL = """
    import threading
    from concurrent.futures import ThreadPoolExecutor
    pool = ThreadPoolExecutor(1, thread_name_prefix="gw-shared-pool")
    lock = threading.Lock()
    asked = threading.Event()
    def locked():
        asked.set()
        lock.acquire()
        try:
            return 1
        finally:
            lock.release()
"""


@pytest.fixture
def pool_library(tmp_path: Path) -> Iterator[Any]:
    """A shared library that keeps a pool and has a lock."""
    write(tmp_path / "lib", {"pool_library.py": POOL})
    sys.path.insert(0, str(tmp_path / "lib"))
    yield importlib.import_module("pool_library")
    sys.modules.pop("pool_library").pool.shutdown()
    sys.path.remove(str(tmp_path / "lib"))


ENDED = "pool_library.pool.submit(len, ()).result()"
ENDLESS = """
started = threading.Event()
def endless():
    started.set()
    while True:
        len("")
pool_library.pool.submit(endless)
started.wait()
"""


@pytest.mark.parametrize("job", [ENDED, ENDLESS])
def test_a_shared_pool_outlives_a_failed_build(
    site: Site, pool_library: Any, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """The thread that a failed build had a shared pool start works for others, when what it does
    for the build has been stopped.
    """
    if job is ENDLESS:
        monkeypatch.setattr(threads, "STOPS", 10)
    site.write(shop=f"import pool_library, threading\n{job}\n1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert pool_library.pool.submit(len, "ab").result(10) == 2
    assert pool_library.pool.submit(len, "abc").result(10) == 3


# pytest's hook, unlike Python's own, reports a thread that SystemExit has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lock_that_a_failed_build_s_thread_waits_for_is_given_back(
    site: Site, pool_library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread is told to stop in the build's own code, and never where a shared lock is taken."""
    monkeypatch.setattr(threads, "STOPS", 10)
    site.write(
        shop="""
            import pool_library, threading
            def work():
                while True:
                    pool_library.locked()
                    for _ in range(1000):
                        len("")
            threading.Thread(target=work, daemon=True, name="gw-locking").start()
            pool_library.asked.wait()
            1 / 0
        """
    )
    with pool_library.lock:
        release = threading.Timer(0.1, pool_library.lock.release)
        # Let go while the thread is being told; taken again for the end of this block.
        release.start()
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
        assert pool_library.lock.acquire(timeout=10)
    assert not alive("gw-locking")


def alive(name: str) -> list[str]:
    """Return the names of the threads that are called so, and run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(name)]


def test_leftovers_of_every_kind(site: Site) -> None:
    """A pool, a timer and a thread that keeps the process alive are known after retirement."""
    site.write(
        shop="""
            import threading
            from concurrent.futures import ThreadPoolExecutor
            stop = threading.Event()
            pool = ThreadPoolExecutor(1, thread_name_prefix="gw-pool")
            pool.submit(stop.wait)
            timer = threading.Timer(600, len)
            timer.name = "gw-timer"
            timer.start()
            threading.Thread(target=stop.wait, name="gw-not-daemon").start()
        """
    )
    first = site.serve()
    module = first.modules.modules["shop"]
    assert first.effects.report() == ["3 threads"]
    site.write(shop="")
    site.serve()
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    left = sorted(thread.name for thread in first.effects.stragglers())
    assert left == ["gw-not-daemon", "gw-pool_0", "gw-timer"]
    module.timer.cancel()
    module.stop.set()
    module.pool.shutdown()


SHARED_LOCALS = """
    import threading
    request = threading.local()
    def bind(environ):
        request.environ = environ
"""


def test_a_shared_framework_s_last_request(site: Site, tmp_path: Path) -> None:
    """A request that a shared thread-local keeps is let go with the thread's next request."""
    write(tmp_path / "lib", {"local_library.py": SHARED_LOCALS})
    sys.path.insert(0, str(tmp_path / "lib"))
    code = """
        import local_library
        class Mark: ...
        def create_app():
            def app(environ, start_response):
                environ["shop.mark"] = Mark()
                local_library.bind(environ)
                start_response("200 OK", [])
                return [b"VERSION"]
            return app
    """
    server = ThreadPoolExecutor(1)

    def serve() -> Any:
        response = site.live.application({}, lambda *_: lambda _data: None)
        body = b"".join(response)
        close = getattr(response, "close", None)
        if close is not None:
            close()
        return body

    try:
        write(site.root, {"shop.py": code.replace("VERSION", "1")})
        table = weakref.ref(site.serve().modules)
        assert server.submit(serve).result() == b"1"
        write(site.root, {"shop.py": code.replace("VERSION", "2")})
        site.serve()
        wait_until(lambda: not site.live.draining(), what="the first generation has retired")
        gc.collect()
        assert table() is not None
        assert server.submit(serve).result() == b"2"
        wait_until(lambda: gc.collect() >= 0 and table() is None, what="the first is collected")
    finally:
        server.shutdown()
        sys.path.remove(str(tmp_path / "lib"))
        del sys.modules["local_library"]

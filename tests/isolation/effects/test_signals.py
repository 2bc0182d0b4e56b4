from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation.effects import signals
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, call


def test_signal_off_the_main_thread(site: Site) -> None:
    """signal.signal works on a build's thread; the newest served generation gets the signal."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        code = "import signal\nsignal.signal(signal.SIGUSR1, lambda *a: said.append(VERSION))\n"
        site.write(shop=code.replace("VERSION", "1"))
        site.serve()
        assert signals._getsignal(signal.SIGUSR1) is signals.dispatch
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
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
        site.close()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def off_the_main_thread(function: Callable[[], Any]) -> Any:
    """Call it where builds run, and return what it returns."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(10)
    return results[0]


def test_signal_first_claimed_off_the_main_thread(site: Site) -> None:
    """A signal that nobody claimed before is claimed on the main thread for a build off it."""
    before = signal.getsignal(signal.SIGUSR1)
    site.write(shop="import signal\nsignal.signal(signal.SIGUSR1, lambda *a: said.append(1))\n")
    off_the_main_thread(site.serve)
    wait_until(lambda: signals._getsignal(signal.SIGUSR1) is signals.dispatch, what="it is claimed")
    signal.raise_signal(signal.SIGUSR1)
    assert said == [1]
    site.close()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_failed_build_claims_nothing(site: Site) -> None:
    """What a failed build has claimed goes to who had the signal before."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    site.write(
        shop="import signal\nsignal.signal(signal.SIGUSR1, lambda *a: said.append(1))\n1/0\n"
    )
    try:
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
        signal.raise_signal(signal.SIGUSR1)
        assert said == []
    finally:
        site.close()
        signal.signal(signal.SIGUSR1, before)


def test_the_server_goes_on_with_its_signals(told: list[str], site: Site) -> None:
    """What the server handles it handles after the application, whatever that raises."""
    before = signal.signal(signal.SIGTERM, lambda *_: said.append("server"))
    try:
        site.write(
            shop="import signal, sys\ndef stop(*_):\n    said.append('application')\n"
            "    sys.exit(3)\nsignal.signal(signal.SIGTERM, stop)\n"
        )
        site.serve()
        signal.raise_signal(signal.SIGTERM)
        assert said == ["application", "server"]
        assert "its handler of signal 15 raised" in told[-1]
        site.write(shop="import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n")
        site.serve()
        said.clear()
        signal.raise_signal(signal.SIGTERM)
        assert said == ["server"]
    finally:
        site.close()
        signal.signal(signal.SIGTERM, before)


def test_chaining(site: Site) -> None:
    """A handler that calls the one it found calls the process's, and no older generation's."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    chain = """
        import signal
        found = signal.getsignal(signal.SIGUSR1)
        mine = lambda *a: said.append((VERSION, found))
        assert signal.signal(signal.SIGUSR1, mine) == found
        assert signal.getsignal(signal.SIGUSR1) is mine
        def ask():
            signal.signal(signal.SIGUSR1, found)
            return signal.getsignal(signal.SIGUSR1)
    """
    try:
        _, second = site.two(shop=chain)
        signal.raise_signal(signal.SIGUSR1)
        assert said == [(2, signal.SIG_IGN)]
        assert call(second, "shop", "ask") == signal.SIG_IGN
        signal.raise_signal(signal.SIGUSR1)
        assert said == [(2, signal.SIG_IGN)]
    finally:
        site.pending.close()
        site.close()
        signal.signal(signal.SIGUSR1, before)


def test_asyncio_leaves_no_claim(site: Site) -> None:
    """``asyncio.run`` in an application takes back its handler of SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        site.write(
            shop="import asyncio\nasync def main():\n    return 1\n"
            "def ask():\n    return asyncio.run(main())\n"
        )
        generation = site.serve()
        assert call(generation, "shop", "ask") == 1
        assert generation.effects.of(signals.Signals).handlers == {}
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        site.close()
        signal.signal(signal.SIGINT, before)


def test_wrong_handler(site: Site) -> None:
    """What is no handler is refused as Python refuses it."""
    site.write(shop="import signal\nsignal.signal(signal.SIGUSR1, 'no')\n")
    with pytest.raises(BuildError, match="TypeError"):
        site.build()


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
        site.close()
        signal.signal(signal.SIGUSR1, before)

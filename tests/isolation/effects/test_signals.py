from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from genwsgi.isolation.effects import signals
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site


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

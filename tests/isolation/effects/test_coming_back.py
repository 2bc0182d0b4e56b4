"""What is in force when an older generation is the current one again."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from genwsgi.generations.lifecycle import State
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, torn_down

SHOP = """
    import logging, signal, sys, threading
    signal.signal(signal.SIGUSR1, lambda *a: said.append("signal VERSION"))
    class Says(logging.Handler):
        def emit(self, record):
            said.append("log VERSION")
    logging.getLogger("library").addHandler(Says())
    threading.excepthook = lambda args: said.append("hook VERSION")
    class Out:
        def write(self, text):
            return len(text)
        def flush(self):
            pass
    sys.stderr = Out()
    V = VERSION
"""


def test_older_generation_that_is_current_again(site: Site) -> None:
    """Whatever is the current one's is the older generation's again; the newer one's is gone."""
    stderr = sys.stderr
    before = signal.getsignal(signal.SIGUSR1)
    try:
        site.write(shop=SHOP.replace("VERSION", "1"))
        first = site.serve()
        out = sys.stderr
        site.write(shop=SHOP.replace("VERSION", "2"))
        second = site.build()
        site.live.swap(second, park=True)
        heard(2)
        assert sys.modules["shop"].V == 2
        site.live.swap(first)
        heard(1)
        assert sys.modules["shop"].V == 1
        wait_until(lambda: second.state is State.RETIRED, what="the second retires")
        wait_until(lambda: torn_down(second), what="it is torn down")
        heard(1)
        assert sys.stderr is out
        site.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
        sys.stderr = stderr


def heard(version: int) -> None:
    """What code of no generation does is heard by generation ``version`` alone."""
    said.clear()
    signal.raise_signal(signal.SIGUSR1)
    logging.getLogger("library").warning("x")
    thread = threading.Thread(target=lambda: [][0])
    thread.start()
    thread.join()
    assert said == [f"signal {version}", f"log {version}", f"hook {version}"]

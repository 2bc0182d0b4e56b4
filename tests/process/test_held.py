"""Leaks put in on purpose: who holds a retired generation is in the log and in the status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genwsgi.generations.status import GenerationStatus
from tests.helpers import wait_until
from tests.process.harness import COMMITTED, Server, put, serving

#: In a folder as pip has it; shared, because nothing of the application is imported by it.
LIBRARY = """\
import functools

@functools.lru_cache
def load(model):
    return model.__name__
"""

#: Where the first one leaves a class of its own in the library's cache, when it is asked to.
LEAKING = """\
V = "{version}"
from shared_lib.util import load
from shop.models import User

def create_app():
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/leak":
            load(User)
        start_response("200 OK", [("Content-Length", "2")])
        return [V.encode()]
    return app
"""

MODELS = "class User:\n    def name(self): ...\n"

POLLING = """\
V = "{version}"
import threading

def poll():
    gate = threading.Event()
    while True:
        gate.wait(60)

threading.Thread(target=poll, name="poller", daemon=True).start()

def create_app():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        return [V.encode()]
    return app
"""


def old_ones(server: Server) -> list[list[GenerationStatus]]:
    """What each worker has besides the current generation."""
    return [
        [one for one in worker.generations if one.state != "current"]
        for worker in server.status().workers
    ]


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_cache_of_a_shared_library(tmp_path: Path, worker_class: str) -> None:
    """A class in the cache of a shared library is named by that cache, in each worker that has it.

    The generation is gone, and leaves the status, once the cache has let go.
    """
    root, installed = tmp_path / "app", tmp_path / "site-packages"
    (root / "shop").mkdir(parents=True)
    (installed / "shared_lib").mkdir(parents=True)
    (installed / "shared_lib" / "__init__.py").write_text("")
    (installed / "shared_lib" / "util.py").write_text(LIBRARY)
    (root / "shop" / "models.py").write_text(MODELS)
    put(root / "shop" / "__init__.py", LEAKING.format(version="v1"))
    options = (f"--worker-class={worker_class}", "--share=shared_lib")
    env = {"PYTHONPATH": str(installed)}
    with serving(root, *options, workers=1, target="shop:create_app", env=env) as server:
        assert server.get("/leak") == "v1"
        put(root / "shop" / "__init__.py", LEAKING.format(version="v2"))
        server.wait_for_log(COMMITTED)
        holder = "`functools.lru_cache` of `shared_lib.util.load`, through `shop.models.User`"
        warning = rf"\[WARNING\] generation 1 has retired but is held by {re.escape(holder)}\n"
        server.wait_for_log(warning)
        wait_until(lambda: old_ones(server)[0] and old_ones(server)[0][0].holder, what="the status")
        (held,) = old_ones(server)[0]
        assert (held.number, held.state, held.leases, held.holder) == (1, "retired", 0, holder)
        # What was not left anywhere is gone.
        put(root / "shop" / "__init__.py", LEAKING.format(version="v3"))
        server.wait_for_log(r"generation 2 is collected\n")
        assert len(re.findall(warning, server.log())) == 1
        wait_until(lambda: [one.number for one in old_ones(server)[0]] == [1], what="the status")


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_thread_that_never_ends(tmp_path: Path, worker_class: str) -> None:
    """A thread that its generation has left behind is named, with the line that it is at."""
    (tmp_path / "shop").mkdir()
    put(tmp_path / "shop" / "__init__.py", POLLING.format(version="v1"))
    options = (f"--worker-class={worker_class}",)
    with serving(tmp_path, *options, workers=1, target="shop:create_app") as server:
        assert server.get() == "v1"
        put(tmp_path / "shop" / "__init__.py", POLLING.format(version="v2"))
        server.wait_for_log(COMMITTED)
        named = r"thread 'poller' \(started by it\), at shop/__init__.py:7"
        found = server.wait_for_log(rf"generation 1 has retired but is held by ({named})")
        wait_until(lambda: old_ones(server)[0] and old_ones(server)[0][0].holder, what="the status")
        assert [one.holder for one in old_ones(server)[0]] == [found[1]]
        assert server.get() == "v2"

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from typing import Any

import pytest

from genwsgi.isolation import effects
from tests.helpers import wait_until
from tests.isolation.sources import Site

#: Within which a generation is collected, in seconds: more than is promised, for the tests share
#: their processors with others.
SOON = 15.0

APPLICATION = """\
import atexit, logging
from flask import Blueprint, Flask, request, session
from shop import views

handler = logging.FileHandler({log!r})
logging.getLogger("shop").addHandler(handler)
logging.getLogger().addHandler(logging.NullHandler())
atexit.register(handler.flush)


def create_app():
    app = Flask(__name__)
    app.secret_key = "secret"
    app.register_blueprint(views.pages)
    return app
"""
VIEWS = """\
import logging, threading
from flask import Blueprint, request, session, stream_with_context

pages = Blueprint("pages", __name__)
log = logging.getLogger("shop")


@pages.route("/")
def page():
    session["seen"] = session.get("seen", 0) + 1
    thread = threading.Thread(target=log.info, args=("asked",))
    thread.start()
    thread.join()

    def body():
        yield request.path
        yield "VERSION"

    return stream_with_context(body())
"""


def environ() -> dict[str, Any]:
    """A request, as a server would make it."""
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": open(os.devnull, "rb"),
        "wsgi.errors": None,
    }


def left() -> dict[str, object]:
    """What generations might leave in the process; the janitor's own thread is always there."""
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "handlers": [list(logging.getLogger(name).handlers) for name in ("", "shop")],
        "files": len(os.listdir("/proc/self/fd")),
        "exits": [len(book.of(effects.exits.Exits).callbacks) for _, book in effects.base.living()],
    }


def note(gone: dict[int, float], number: int) -> None:
    """A generation has been collected."""
    gone[number] = time.monotonic()


def ask(site: Site) -> None:
    """One request, from its beginning to the close of its body."""
    request = environ()
    with request["wsgi.input"]:
        body = site.live.application(request, lambda *_: lambda _data: None)
        assert b"".join(body).startswith(b"/")
        body.close()  # type: ignore[attr-defined]


def numbers(site: Site) -> list[int]:
    """The generations that are in the status."""
    return [one.number for one in site.live.status()]


def test_fifty_swaps(site: Site, tmp_path: Any) -> None:
    """After 50 swaps of a Flask application the process has what it had after the first.

    Threads, log handlers, open files and exit callbacks; and each old generation was collected
    soon after its last response.
    """
    pytest.importorskip("flask")
    closed: dict[int, float] = {}
    gone: dict[int, float] = {}
    first: dict[str, object] = {}
    for number in range(51):
        site.write(shop__views=VIEWS.replace("VERSION", str(number)))
        (site.root / "shop" / "__init__.py").write_text(
            APPLICATION.format(log=str(tmp_path / "shop.log"))
        )
        generation = site.build()
        weakref.finalize(generation.modules, note, gone, number).atexit = False
        old = environ()
        with old["wsgi.input"]:
            streaming: Any = None
            if number:
                streaming = site.live.application(old, lambda *_: lambda _data: None)
                assert next(streaming) == b"/"
            site.live.swap(generation)
            del generation
            if streaming is not None:
                assert next(streaming) == str(number - 1).encode()
                closed[number - 1] = time.monotonic()
                streaming.close()
            del streaming, old
        ask(site)
        if number == 1:
            wait_until(lambda: 0 in gone, what="the first one is gone")
            # The collector may have taken it while the thread of its teardown came to its end.
            wait_until(lambda: numbers(site) == [2], what="the janitor is done with it")
            first = left()
    wait_until(lambda: len(gone) == 50, 2 * SOON, "all are gone")
    late = {number: gone[number] - at for number, at in closed.items()}
    assert max(late.values()) < SOON, late
    wait_until(lambda: left() == first, what="all is as after the first swap")
    assert gc.isenabled()
    wait_until(lambda: numbers(site) == [51], what="the status")

"""Tests of genwsgi.verification."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from genwsgi import verification
from genwsgi.background import BackgroundBuild
from genwsgi.errors import BuildAbandoned, OptionError, VerificationError
from genwsgi.generations.lifecycle import State
from genwsgi.verification import SHOWN, Expected, Verification, expected
from tests.helpers import handler_of_all, wait_until
from tests.isolation.fixtures import process, site
from tests.isolation.sources import Site

__all__ = ["process", "site"]

#: An application that answers as its path says, and keeps what it was asked.
SHOP = """\
import threading
import genwsgi

asked = []
waiting = threading.Event()


def stream(path):
    yield path.encode()
    if path == "/bad":
        raise LookupError("half-way")


def create_app():
    def app(environ, start_response):
        asked.append(environ)
        path = environ["PATH_INFO"]
        if path == "/raise":
            raise KeyError("x")
        if path == "/hang":
            waiting.wait()
        if path == "/loop":
            while True:
                pass
        if path == "/empty":
            return []
        if path == "/invalid":
            start_response("200 OK", [])
            return [b"no type"]
        status = path[1:4] + " Said" if path[1:4].isdigit() else "200 OK"
        write = start_response(status, [("Content-Type", "text/plain")])
        if path == "/write":
            write(b"written")
        return stream(path)
    return app
"""


def build(site: Site, *requests: str, more: str = "", **options: Any) -> Any:
    """Build the shop, with ``more`` at its end; return its module ``shop``."""
    site.replace(shop____init__=SHOP + more)
    asked = [expected(text) for text in requests]
    site.live._verification = Verification(asked, **{"timeout": 10.0, **options})
    generation = site.build()
    site.live.swap(generation)
    return generation.modules.modules["shop"]


def refused(site: Site, *requests: str, more: str = "", **options: Any) -> VerificationError:
    """Build what does not pass; return the error."""
    with pytest.raises(VerificationError) as caught:
        build(site, *requests, more=more, **options)
    return caught.value


@pytest.mark.parametrize(
    ("text", "path", "status"),
    [
        ("/", "/", None),
        ("/health?deep=1", "/health?deep=1", None),
        ("/old=301", "/old", 301),
        ("/page?n=200=200", "/page?n=200", 200),
        ("/a=999", "/a=999", None),
    ],
)
def test_what_is_expected(text: str, path: str, status: int | None) -> None:
    """PATH or PATH=STATUS; what only looks like a status is part of the path."""
    assert expected(text) == Expected(path, status)


@pytest.mark.parametrize("text", ["", "health", "/a b", "/ä", "/a#b", "http://x/"])
def test_what_is_no_path(text: str) -> None:
    """What can't be asked for is refused with the way to write it."""
    with pytest.raises(OptionError, match="give PATH or PATH=STATUS"):
        expected(text)


def test_good_answers_make_a_candidate_ready(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """All that is asked is asked, in its order, and its environ is that of a whole request."""
    caplog.set_level(logging.INFO, "genwsgi")
    shop = build(site, "/one%20two?x=1", "/404=404", "/write", host="shop.example:8000")
    assert [environ["PATH_INFO"] for environ in shop.asked] == ["/one two", "/404", "/write"]
    first = shop.asked[0]
    assert first["QUERY_STRING"] == "x=1"
    assert first["HTTP_HOST"] == "shop.example:8000"
    assert (first["SERVER_NAME"], first["SERVER_PORT"]) == ("shop.example", "8000")
    assert first["REMOTE_ADDR"] == "127.0.0.1"
    assert first["genwsgi.verify"] is True
    assert first["genwsgi.generation"] == 1
    assert "generation 1 passed GET /404 in " in caplog.text


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("/500", "GET /500 was answered '500 Said' and not with a status that is below 400"),
        ("/404", "GET /404 was answered '404 Said' and not with a status that is below 400"),
        ("/ok=201", "GET /ok was answered '200 OK' and not with a status that is 201"),
        ("/raise", "GET /raise has raised KeyError: 'x'"),
        ("/bad", "GET /bad has raised LookupError: half-way"),
        ("/empty", "GET /empty was answered '' and not with a status that is below 400"),
        ("/invalid", "GET /invalid has raised AssertionError: No Content-Type header found"),
    ],
)
def test_bad_answer_ends_the_build(site: Site, request_: str, reason: str) -> None:
    """An answer that is none, or breaks the protocol, fails the build, which leaves no trace."""
    error = refused(site, request_)
    assert str(error).startswith(f"verification failed: {reason}")
    assert site.live.current is None
    assert error.__context__ is error.__cause__ is None


def test_response_is_shown(site: Site) -> None:
    """The error carries the response: its status, its headers, the first part of its body."""
    error = refused(site, "/500" + "x" * 3 * SHOWN)
    head, _, body = error.traceback.partition("\n\n")
    assert head.endswith("500 Said\nContent-Type: text/plain")
    assert body == "/500" + "x" * (SHOWN - 4)


def test_traceback_is_shown(site: Site) -> None:
    """What the application raised comes with its traceback."""
    assert 'raise KeyError("x")' in refused(site, "/raise").traceback


def test_first_failure_ends_it(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """What comes after a failure is not asked."""
    caplog.set_level(logging.INFO, "genwsgi")
    refused(site, "/one", "/500", "/two")
    assert "passed GET /one" in caplog.text
    assert "/two" not in caplog.text


@pytest.mark.parametrize("path", ["/hang", "/loop"])
def test_answer_that_does_not_come(site: Site, path: str) -> None:
    """A handler that hangs, in a lock or a loop, is given up in time; the error says where it is.

    One that still can be stopped is.
    """
    error = refused(site, path, timeout=1.0)
    assert str(error) == f"verification failed: GET {path} has not ended within 1 s"
    where = "waiting.wait()" if path == "/hang" else "while True:"
    assert f"in app\n    {where}" in error.traceback
    if path == "/loop":
        names = [f"genwsgi-verify GET {path}"]
        wait_until(lambda: not _alive(names), what="the loop to be left")


def _alive(names: list[str]) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name in names]


def test_committed_release_serves_all_the_same(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the release is committed already, what it fails is said and it serves."""
    site.replace(shop____init__=SHOP)
    site.live._verification = Verification([Expected("/500")])
    generation = site.live.build(site.take(), "1-code", strict=False)
    assert generation.state is State.READY
    site.live.discard(generation)
    assert "generation 1 serves all the same: verification failed: GET /500" in caplog.text


def test_own_check(site: Site) -> None:
    """A check of the application's own runs after the requests, in the generation's context."""
    shop = build(
        site,
        "/",
        more="from genwsgi.generations.generation import active\nseen = []\n"
        "@genwsgi.verify\ndef check():\n    seen.append((len(asked), active.get().number))\n",
    )
    assert shop.seen == [(1, 1)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return False", "says no"),
        ("return 'no stock'", "says no stock"),
        ("raise LookupError('stock')", "has raised LookupError: stock"),
    ],
)
def test_own_check_that_fails(site: Site, body: str, reason: str) -> None:
    """A check fails by what it raises, by False, and by a text that says why."""
    error = refused(site, more=f"@genwsgi.verify\ndef stock():\n    {body}\n")
    assert str(error) == f"verification failed: the check stock {reason}"


def test_candidate_is_abandoned_as_it_is_verified(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An abort reaches a build also while it waits for an answer."""
    monkeypatch.setattr(verification, "LOOK", 0.01)
    site.replace(shop____init__=SHOP)
    site.live._verification = Verification([Expected("/loop")])
    ended = threading.Event()
    build = BackgroundBuild(site.live, site.take(), "1-code", lambda _build: ended.set())
    wait_until(lambda: _alive(["genwsgi-verify GET /loop"]), what="the request")
    build.abandon()
    wait_until(lambda: not build.running, what="the build to stop")
    wait_until(lambda: not _alive(["genwsgi-verify GET /loop"]), what="the loop to be left")
    assert not ended.is_set()


LOCKED = """

import logging
import genwsgi

@genwsgi.verify
def check():
    while True:
        logging.getLogger("gw-shared").error("no")
        for _ in range(1000):
            len("")
"""


def test_a_check_that_waits_for_a_handler_leaves_it_free(site: Site) -> None:
    """A check that is given up while it waits for a lock of shared code gives that back."""
    with handler_of_all() as (_, free):
        with free:
            assert "has not ended within" in str(refused(site, more=LOCKED, timeout=0.1))
        wait_until(lambda: not _alive(["genwsgi-verify the check check"]), what="its end")
        assert free.acquire(timeout=10)


def test_progress_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits hears how many of the checks are done."""
    monkeypatch.setattr(verification, "LOOK", 0.01)
    site.replace(shop____init__=SHOP)
    site.live._verification = Verification([Expected("/"), Expected("/hang")])
    heard = []

    def on_check(done: int, total: int) -> None:
        heard.append((done, total))
        if done:
            raise BuildAbandoned

    with pytest.raises(BuildAbandoned):
        site.live.build(site.take(), "1-code", on_check=on_check)
    assert heard[-1] == (1, 2)

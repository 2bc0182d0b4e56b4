"""Tests of genwsgi.generations.counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
import webtest

from genwsgi.generations import counts
from genwsgi.generations.counts import BOUNDS, ERROR, RAISED, WELL, Meter, Tally, counted
from genwsgi.generations.middleware import Middleware
from genwsgi.generations.switch import Switch
from tests.generations import in_thread, ready

PLAIN = [("Content-Type", "text/plain")]


class Host:
    """An application behind the middleware whose requests are counted."""

    def __init__(self, application: Any) -> None:
        self.meter = Meter()
        self.switch = Switch(lambda generation: None)
        self.switch.swap(ready(1, counted(application, self.meter)))
        self.call = Middleware(self.switch)

    def get(self, environ: dict[str, Any] | None = None) -> Any:
        """The body of one request."""
        return self.call(environ if environ is not None else {}, self.start_response)

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """The server's own."""
        return lambda block: None

    @property
    def seen(self) -> tuple[int, int, int]:
        """Requests, errors, exceptions."""
        tally = self.meter.tally()
        return tally.requests, tally.errors, tally.exceptions


def answering(status: str, make: Any = lambda: [b"x"]) -> Any:
    """An application that answers ``status`` with a body that ``make`` makes."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response(status, PLAIN)
        return make()

    return application


def drained(body: Any) -> bytes:
    """Read a body to its end and close it."""
    try:
        return b"".join(body)
    finally:
        body.close()


@pytest.mark.parametrize(
    ("status", "errors"), [("200 OK", 0), ("404 No", 0), ("500 Oh", 1), ("503 No", 1)]
)
def test_status_decides(status: str, errors: int) -> None:
    """A request is an error if its status says 500 or more, and only then."""
    host = Host(answering(status))
    assert drained(host.get()) == b"x"
    assert host.seen == (1, errors, 0)


def test_last_status_decides() -> None:
    """An application that fails as it answers sends another status: that one counts."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        try:
            raise KeyError
        except KeyError as error:
            start_response("500 Oh", PLAIN, (KeyError, error, error.__traceback__))
        return [b"sorry"]

    host = Host(application)
    drained(host.get())
    assert host.seen == (1, 1, 0)


def test_call_that_raises() -> None:
    """What the application raises comes through, and counts once, whatever was sent before."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response("500 Oh", PLAIN)
        raise SystemExit(3)

    host = Host(application)
    with pytest.raises(SystemExit):
        host.get()
    assert host.seen == (1, 0, 1)


def test_body_that_raises() -> None:
    """A generator that raises half-way is an exception, entered when it is closed."""

    def body() -> Iterator[bytes]:
        yield b"x"
        raise LookupError

    host = Host(answering("200 OK", body))
    found = host.get()
    assert next(found) == b"x"
    with pytest.raises(LookupError):
        next(found)
    assert host.seen == (0, 0, 0)
    found.close()
    assert host.seen == (1, 0, 1)


def test_close_that_raises() -> None:
    """The close of a body is application code as well."""

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            raise LookupError

    host = Host(answering("200 OK", Body))
    with pytest.raises(LookupError):
        drained(host.get())
    assert host.seen == (1, 0, 1)


def test_client_that_leaves() -> None:
    """A body that is closed early, or never read, is no failure; it is closed as ever."""
    closed = []

    def body() -> Iterator[bytes]:
        try:
            yield b"x"
        finally:
            closed.append(True)

    host = Host(answering("200 OK", body))
    found = host.get()
    next(found)
    found.close()
    host.get().close()
    assert host.seen == (2, 0, 0)
    assert closed == [True]


def test_body_stays_what_servers_look_at() -> None:
    """A list stays a list, a file wrapper itself, a length is there, and no body is no body."""

    class Sized:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a", b"b"])

    class Nothing:
        pass

    host = Host(answering("200 OK"))
    assert len(host.get()) == 1
    sized = Host(answering("200 OK", Sized)).get()
    assert (len(sized), drained(sized)) == (2, b"ab")
    wrapped = FileWrapper(__import__("io").BytesIO(b"file"))
    files = Host(answering("200 OK", lambda: wrapped))
    assert files.get({"wsgi.file_wrapper": FileWrapper}) is wrapped
    nothing = Nothing()
    assert Host(answering("200 OK", lambda: nothing)).get() is nothing
    assert files.seen == (1, 0, 0)


@pytest.mark.parametrize("make", [lambda: [b"x"], lambda: (block for block in [b"x"])])
def test_protocol_is_kept(make: Any) -> None:
    """The counting is invisible to the protocol, on both sides of it."""
    host = Host(validator(answering("200 OK", make)))
    app: Any = webtest.TestApp(validator(host.call))
    assert app.get("/").body == b"x"
    assert host.seen == (1, 0, 0)


def test_durations() -> None:
    """Durations are counted by their range, its upper end included."""
    meter = Meter()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 100.0):
        meter.enter(seconds, WELL)
    tally = meter.tally()
    assert tally.durations == (2, 1, *[0] * (len(BOUNDS) - 2), 1)
    assert tally.seconds == pytest.approx(100.0 + 2.01 * BOUNDS[0])


def test_many_threads_count_exactly() -> None:
    """No request of any thread is lost or counted twice, whoever adds up meanwhile."""
    meter, stop = Meter(), threading.Event()

    def reading() -> None:
        while not stop.is_set():
            meter.tally()

    def entering() -> None:
        for number in range(20_000):
            meter.enter(0.0, number % 3)

    threads = [threading.Thread(target=entering) for _ in range(4)]
    reader = threading.Thread(target=reading)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()
    tally = meter.tally()
    assert (tally.requests, tally.errors, tally.exceptions) == (80_000, 26_668, 26_664)


def test_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody adds up takes no more memory than so many requests."""
    monkeypatch.setattr(counts, "MOST", 10)
    meter = Meter()
    for _ in range(25):
        meter.enter(0.0, ERROR)
    assert len(meter._ended) <= 11
    assert meter.tally().errors == 25


def test_finalizer_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that ends while its own thread adds up is entered and does not hang."""
    monkeypatch.setattr(counts, "MOST", 0)
    meter = Meter()
    with meter._lock:
        in_thread(lambda: meter.enter(0.0, RAISED))
    assert meter.tally().exceptions == 1


def test_tallies_add_and_subtract() -> None:
    """Tallies of several workers make one; the difference of two is what came between them."""
    one = Tally(3, 1, 1, 0.5, (3, *[0] * len(BOUNDS)))
    two = Tally(2, 0, 1, 0.25, (0, 2, *[0] * (len(BOUNDS) - 1)))
    both = one + two
    assert (both.requests, both.failed, both.seconds) == (5, 3, 0.75)
    assert both - two == one
    assert Tally() + one == one

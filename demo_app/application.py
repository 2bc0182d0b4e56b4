"""The application: a table of paths, and one function for each."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from demo_app import greeting
from demo_app.page import render
from demo_app.stream import Stream

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: The longest that a slow request or a limited stream may last, in seconds.
LONGEST_SLOW = 120.0
LONGEST_STREAM = 86_400.0

#: How much of an upload is read at once, in bytes.
BLOCK = 64 * 1024


@dataclass(frozen=True)
class Response:
    """An answer: its body is a list, whose length is then known, or anything WSGI allows."""

    status: HTTPStatus
    content_type: str
    body: Iterable[bytes]
    headers: tuple[tuple[str, str], ...] = ()


class BadRequest(Exception):
    """The request can't be answered; the text says why."""


def create_app() -> WSGIApplication:
    """Return the application."""
    return application


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request (PEP 3333)."""
    method = environ["REQUEST_METHOD"]
    response = _respond(method, environ)
    headers = [
        ("Content-Type", response.content_type),
        ("Cache-Control", "no-store"),
        *response.headers,
    ]
    body = response.body
    if isinstance(body, list):
        headers.append(("Content-Length", str(sum(map(len, body)))))
    start_response(f"{response.status.value} {response.status.phrase}", headers)
    return [] if method == "HEAD" else body


def state(environ: WSGIEnvironment) -> dict[str, Any]:
    """Return what the page shows: this code's greeting, and the generation that serves it."""
    return {
        "version": greeting.VERSION,
        "greeting": greeting.GREETING,
        "colour": greeting.COLOUR,
        "generation": environ.get("genwsgi.generation", "-"),
        "release": environ.get("genwsgi.release", "-"),
    }


def show_page(environ: WSGIEnvironment) -> Response:
    """The page for a browser."""
    base = environ.get("SCRIPT_NAME", "")
    page = render(state(environ), base).encode()
    return Response(HTTPStatus.OK, "text/html; charset=utf-8", [page])


def show_state(environ: WSGIEnvironment) -> Response:
    """The state as JSON."""
    return _json(state(environ))


def open_stream(environ: WSGIEnvironment) -> Response:
    """Server-sent events, one a second; ``?seconds=N`` ends them."""
    seconds = _seconds(environ, None, LONGEST_STREAM)
    # nginx would collect the events otherwise.
    unbuffered = (("X-Accel-Buffering", "no"),)
    stream = Stream(state(environ), seconds)
    return Response(HTTPStatus.OK, "text/event-stream; charset=utf-8", stream, unbuffered)


def answer_slowly(environ: WSGIEnvironment) -> Response:
    """The state, after ``?seconds=N`` (default 10)."""
    seconds = _seconds(environ, 10.0, LONGEST_SLOW)
    assert seconds is not None
    if environ["REQUEST_METHOD"] == "GET":
        time.sleep(seconds)
    # Imported only now, on purpose: however the file has changed meanwhile, this is the greeting
    # of the generation that the request began with.
    from demo_app.farewell import farewell

    return _json({**state(environ), "seconds": seconds, "farewell": farewell()})


def take_upload(environ: WSGIEnvironment) -> Response:
    """Read the request's body and tell its length."""
    length = 0
    for block in _blocks(environ):
        length += len(block)
    return _json({**state(environ), "length": length})


Handler = Callable[["WSGIEnvironment"], Response]

ROUTES: dict[str, tuple[tuple[str, ...], Handler]] = {
    "/": (("GET", "HEAD"), show_page),
    "/state": (("GET", "HEAD"), show_state),
    "/stream": (("GET", "HEAD"), open_stream),
    "/slow": (("GET", "HEAD"), answer_slowly),
    "/echo": (("POST",), take_upload),
}


def _respond(method: str, environ: WSGIEnvironment) -> Response:
    """Return the answer of the path's function, or the error that says why there is none."""
    # A request for the mount point itself has an empty path.
    path = environ.get("PATH_INFO", "") or "/"
    if path not in ROUTES:
        return _text(HTTPStatus.NOT_FOUND, f"there is no {path} here")
    methods, handler = ROUTES[path]
    if method not in methods:
        allow = ", ".join(methods)
        text = f"{path} takes {allow}, not {method}"
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, text, (("Allow", allow),))
    try:
        return handler(environ)
    except BadRequest as error:
        return _text(HTTPStatus.BAD_REQUEST, str(error))


def _json(data: object) -> Response:
    return Response(HTTPStatus.OK, "application/json", [json.dumps(data).encode() + b"\n"])


def _text(status: HTTPStatus, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    # A path arrives as bytes in latin-1 clothes (PEP 3333), and may be any bytes at all.
    body = f"{text}\n".encode("latin-1", "replace").decode("utf-8", "replace").encode()
    return Response(status, "text/plain; charset=utf-8", [body], headers)


def _seconds(environ: WSGIEnvironment, default: float | None, most: float) -> float | None:
    """Return the query's ``seconds``, at most ``most``."""
    given = parse_qs(environ.get("QUERY_STRING", "")).get("seconds")
    if given is None:
        return default
    try:
        seconds = float(given[-1])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise BadRequest("seconds must be a number, not negative; for example ?seconds=3")
    return min(seconds, most)


def _blocks(environ: WSGIEnvironment) -> Iterable[bytes]:
    """Yield the request's body, as far as the server says that there is one."""
    stream = environ["wsgi.input"]
    given = environ.get("CONTENT_LENGTH", "")
    if not given:
        # Without a length only a server that ends the input itself can be read to its end.
        while environ.get("wsgi.input_terminated") and (block := stream.read(BLOCK)):
            yield block
        return
    if not (given.isascii() and given.isdigit()):
        raise BadRequest("Content-Length must be a number of bytes")
    missing = int(given)
    while missing:
        block = stream.read(min(BLOCK, missing))
        if not block:
            raise BadRequest(f"the body ended {missing} bytes before its Content-Length")
        missing -= len(block)
        yield block

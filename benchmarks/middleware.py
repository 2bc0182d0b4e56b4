"""What the middleware costs a request: nanoseconds, against calling the application directly.

    python -m benchmarks.middleware

The time is the thread's own on the processor, so that it says the same on a busy machine; of many
rounds the fastest counts, since whatever disturbs one makes it slower.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Iterator
from time import thread_time_ns
from typing import Any
from wsgiref.util import FileWrapper

from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import Event
from genwsgi.generations.middleware import Middleware
from genwsgi.generations.switch import Switch

#: Requests in a round, and rounds.
REQUESTS, ROUNDS = 2000, 200


def listed(_environ: Any, start_response: Any) -> Any:
    """Answer with a list of one block."""
    start_response("200 OK", [])
    return [b"hello"]


def generated(_environ: Any, start_response: Any) -> Iterator[bytes]:
    """Answer with a generator of one block."""
    start_response("200 OK", [])
    yield b"hello"


def file(environ: Any, start_response: Any) -> Any:
    """Answer with the server's file wrapper."""
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"hello"))


APPLICATIONS = (listed, generated, file)


def through(application: Callable[..., Any]) -> Middleware:
    """Return the middleware in front of a generation that has ``application``."""
    generation = Generation(1, "1-benchmark")
    generation.application = application
    generation.advance(Event.BUILT)
    switch = Switch(lambda _: None)
    switch.swap(generation)
    return Middleware(switch)


def nanoseconds(application: Callable[..., Any]) -> float:
    """Return what one request takes that is made as a server makes it."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.file_wrapper": FileWrapper}

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        pass

    best = float("inf")
    for _ in range(ROUNDS):
        began = thread_time_ns()
        for _ in range(REQUESTS):
            body = application(environ, start_response)
            for _block in body:
                pass
            if hasattr(body, "close"):
                body.close()
        best = min(best, (thread_time_ns() - began) / REQUESTS)
    return best


def added() -> dict[str, tuple[float, float]]:
    """Return for each kind of body what a request takes, and what of it the middleware adds."""
    found = {}
    for application in APPLICATIONS:
        direct = nanoseconds(application)
        whole = nanoseconds(through(application))
        found[application.__name__] = whole, whole - direct
    return found


def main() -> None:
    """Print a line for each kind of body."""
    print(f"{platform.python_implementation()} {platform.python_version()}")
    for kind, (whole, more) in added().items():
        print(f"{kind:10} {whole:7.0f} ns a request, of which the middleware {more:5.0f} ns")


if __name__ == "__main__":
    main()

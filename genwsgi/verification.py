"""What a candidate has to show before it may serve: answers to requests, the application's checks.

A request is made as a server makes it, under :mod:`wsgiref.validate`, in the candidate's context,
and its body is read to the end: so this warms the candidate up as well.  Each check runs on a
thread of its own, as a request does, and whoever waits for it does so for a limited time.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

from genwsgi._version import __version__
from genwsgi.build import build_error
from genwsgi.errors import BuildAbandoned, OptionError, VerificationError
from genwsgi.generations.generation import Generation
from genwsgi.interrupt import Interruption, keep_trying, where
from genwsgi.isolation.asking import applications
from genwsgi.isolation.effects import effects_of
from genwsgi.isolation.effects.checks import Checks
from genwsgi.steps import step

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger("genwsgi")

#: How long one check may take unless somebody says otherwise, in seconds.
TIMEOUT = 10.0
#: The host that a request is for unless somebody says otherwise.
HOST = "localhost"
#: How much of a body is shown when its response is not what was expected, in bytes.
SHOWN = 2000
#: How often whoever waits for a check looks up, in seconds.
LOOK = 0.05


@dataclass(frozen=True)
class Expected:
    """A request that has to be answered well.

    :ivar path: what is asked for, with its query.
    :ivar status: what has to come; ``None``: anything below 400.
    """

    path: str
    status: int | None = None

    def __str__(self) -> str:
        return f"GET {self.path}"


def expected(text: str) -> Expected:
    """Return what ``PATH`` or ``PATH=STATUS`` means.

    :raises OptionError: it is neither.
    """
    found = re.fullmatch(r"(/[!-~]*?)(?:=([1-5]\d\d))?", text)
    if found is None or "#" in text:
        raise OptionError(
            f"{text!r} can't be verified: give PATH or PATH=STATUS, such as /health or /old=301"
        )
    return Expected(found[1], int(found[2]) if found[2] else None)


class Verification:
    """What every candidate of a process has to show.  Any thread may use it.

    :param requests: what has to be answered well, in this order; the application's own checks come
        after them.
    :param timeout: how long each may take, in seconds.
    :param host: the host that the requests are for: one that the application serves.
    """

    def __init__(
        self, requests: Sequence[Expected] = (), timeout: float = TIMEOUT, host: str = HOST
    ) -> None:
        self._requests = tuple(requests)
        self._timeout = timeout
        self._host = host

    def run(
        self, generation: Generation, on_check: Callable[[int, int], None] | None = None
    ) -> None:
        """Verify ``generation``, which is built and not ready; wait for that.

        :param on_check: called with how many checks are done, and of how many, again and again; it
            may raise :class:`~genwsgi.errors.BuildAbandoned`.
        :raises VerificationError: one of them has failed; the rest is not tried.
        """
        checks: list[tuple[str, Callable[[], None]]] = [
            (str(one), _ask(generation, one, self._environ(generation, one)))
            for one in self._requests
        ]
        effects = effects_of(generation)
        for own in effects.of(Checks).own if effects is not None else ():
            name = f"the check {getattr(own, '__qualname__', own)}"
            checks.append((name, _own(generation, own, name)))
        for done, (name, check) in enumerate(checks):
            on_look = partial(on_check, done, len(checks)) if on_check is not None else None
            seconds = self._wait_for(name, check, on_look)
            extra = step(
                "verified",
                release=generation.release,
                generation=generation.number,
                seconds=seconds,
            )
            log.info("%s passed %s in %.3f s", generation.name, name, seconds, extra=extra)

    def _wait_for(
        self, name: str, check: Callable[[], None], on_look: Callable[[], None] | None
    ) -> float:
        """Run one check and wait for its end; return how many seconds it took."""
        started = time.monotonic()
        ended = threading.Event()
        failure: list[VerificationError] = []

        def run() -> None:
            try:
                try:
                    check()
                except VerificationError as error:
                    failure.append(error)
                finally:
                    ended.set()
            except BuildAbandoned:  # nobody waits any more
                pass

        thread = threading.Thread(target=run, name=f"genwsgi-verify {name}", daemon=True)
        thread.start()
        try:
            while not ended.wait(LOOK):
                if on_look is not None:
                    on_look()
                if time.monotonic() >= started + self._timeout:
                    reason = f"has not ended within {self._timeout:g} s"
                    raise VerificationError(name, reason, f"It is at\n{where(thread)}")
        finally:
            if not ended.is_set():
                keep_trying(Interruption(thread, BuildAbandoned, applications).step, thread.name)
        if failure:
            raise failure[0].with_traceback(None)
        return time.monotonic() - started

    def _environ(self, generation: Generation, asked: Expected) -> WSGIEnvironment:
        """Return a complete environ (PEP 3333) of a request from this machine."""
        url = urlsplit(asked.path)
        host, _, port = self._host.partition(":")
        return {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(url.path).decode("latin-1"),
            "QUERY_STRING": url.query,
            "RAW_URI": asked.path,
            "SERVER_NAME": host,
            "SERVER_PORT": port or "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": f"genwsgi/{__version__}",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": self._host,
            "HTTP_USER_AGENT": "genwsgi-verify",
            "HTTP_ACCEPT": "*/*",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "genwsgi.generation": generation.number,
            "genwsgi.release": generation.release,
            "genwsgi.verify": True,
        }


class _Response:
    """What the application has answered: the server's side of one request."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()

    def start(self, status: str, headers: list[tuple[str, str]], *_exc_info: Any) -> Any:
        """The server's ``start_response``."""
        self.status, self.headers = status, headers
        return self.write

    def write(self, block: bytes) -> None:
        """Keep as much as will be shown."""
        self.body += block[: SHOWN - len(self.body)]

    def __str__(self) -> str:
        lines = [self.status, *(f"{name}: {value}" for name, value in self.headers), ""]
        return "\n".join([*lines, self.body.decode("utf-8", "replace")])


def _ask(generation: Generation, asked: Expected, environ: WSGIEnvironment) -> Callable[[], None]:
    """Return what makes the request and raises what is wrong with its answer."""

    def answer(response: _Response) -> None:
        assert generation.application is not None, "only what is built is verified"
        body = validator(generation.application)(environ, response.start)
        try:
            for block in body:
                response.write(block)
        finally:
            body.close()  # type: ignore[attr-defined]  # the validator's own has it

    def check() -> None:
        response = _Response()
        try:
            generation.run(answer, response)
        except BaseException as error:  # noqa: BLE001 -- it is raised as what it means
            failed = build_error(error, str(asked))
            raise VerificationError(
                str(asked), f"has raised {failed.reason}", failed.traceback
            ) from None
        status = int(response.status[:3] or 0)
        if asked.status is None:
            good, wanted = 0 < status < 400, "below 400"
        else:
            good, wanted = status == asked.status, f"{asked.status}"
        if not good:
            reason = f"was answered {response.status!r} and not with a status that is {wanted}"
            raise VerificationError(str(asked), reason, f"{asked}\n{response}")

    return check


def _own(generation: Generation, own: Callable[[], object], name: str) -> Callable[[], None]:
    """Return what calls the application's own check and raises what it says."""

    def check() -> None:
        try:
            answer = generation.run(own)
        except BaseException as error:  # noqa: BLE001 -- it is raised as what it means
            failed = build_error(error, name)
            raise VerificationError(name, f"has raised {failed.reason}", failed.traceback) from None
        if answer is False or isinstance(answer, str):
            raise VerificationError(name, f"says {answer or 'no'}", "")

    return check

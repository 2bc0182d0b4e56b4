"""The WSGI callable: one request, one generation (PEP 3333).

The application is called with the server's own ``start_response``, so ``write()``, ``exc_info`` and
everything else about it is between those two.  Only the body is touched, as little as its kind
allows: application code that runs while the body is iterated and closed has to run in the
generation's context, and the lease has to end when the body is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from genwsgi.generations.switch import Switch

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from genwsgi.generations.leases import Lease


class Hold:
    """The open end of a request: closes the application's body, then ends the lease, once.

    Closing again does nothing: some servers close a body twice.  A hold that is dropped without
    having been closed (a server that breaks the rule, a client thread that died) closes itself, so
    that no generation is kept for ever by somebody else's mistake.
    """

    __slots__ = ("_close", "_lease", "_switch")

    def __init__(self, switch: Switch, lease: Lease, close: Callable[[], object] | None) -> None:
        self._switch = switch
        self._lease: Lease | None = lease
        self._close = close

    def __call__(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        close, self._close = self._close, None
        try:
            if close is not None:
                lease.generation.run(close)
        finally:
            self._switch.end(lease)

    def give_back(self) -> None:
        """Have nothing to do with the lease any more: somebody else ends it."""
        self._lease = None

    def __del__(self) -> None:
        if self._lease is not None:
            self()


class ListBody(list[bytes]):
    """A list body: still a list, so that a server can see its length, and closed like any body."""

    __slots__ = ("close",)
    close: Hold


class LazyBody:
    """A body whose iteration runs application code: a generator, a response object, anything."""

    __slots__ = ("_body", "_iterator", "_run", "close")

    def __init__(self, body: Iterable[bytes], lease: Lease, close: Hold) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._run = lease.generation.run
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        iterator = self._iterator
        if iterator is None:
            iterator = self._iterator = self._run(iter, self._body)
        return self._run(next, iterator)


class SizedBody(LazyBody):
    """A lazy body that knows its length in blocks, which PEP 3333 lets a server use."""

    __slots__ = ("_size",)

    def __init__(self, body: Iterable[bytes], lease: Lease, close: Hold) -> None:
        super().__init__(body, lease, close)
        self._size: int = lease.generation.run(len, body)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self._size


class Middleware:
    """The one stable WSGI callable in front of all generations.  Any thread may call it.

    The environ gets ``genwsgi.generation`` (an int) and ``genwsgi.release`` (a string).

    :param switch: where requests get their generation.
    :param header: name of a response header that carries the generation's number, or ``None``.
    """

    def __init__(self, switch: Switch, header: str | None = None) -> None:
        self._switch = switch
        self._header = header

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        switch = self._switch
        lease = switch.lease()
        generation = lease.generation
        environ["genwsgi.generation"] = generation.number
        environ["genwsgi.release"] = generation.release
        if self._header is not None:
            start_response = _adding(self._header, str(generation.number), start_response)
        try:
            body: Any = generation.run(generation.application, environ, start_response)  # type: ignore[arg-type]
            return self._leased(environ, body, lease)
        except BaseException:
            # The lease is open unless the body took it over, and then nothing above raises.
            switch.end(lease)
            raise

    def _leased(self, environ: WSGIEnvironment, body: Any, lease: Lease) -> Iterable[bytes]:
        """Return what the server gets instead of ``body``; from then on that ends the lease."""
        kind = type(body)
        if kind is list or kind is tuple:
            listed = ListBody(body)
            listed.close = Hold(self._switch, lease, None)
            return listed
        if not hasattr(body, "__iter__") and not hasattr(body, "__getitem__"):
            # Not a body: gevent's ALREADY_HANDLED, which no server closes, or a mistake that the
            # server will report.
            self._switch.end(lease)
            return body  # type: ignore[no-any-return]
        hold = Hold(self._switch, lease, getattr(body, "close", None))
        try:
            wrapper = environ.get("wsgi.file_wrapper")
            if isinstance(wrapper, type) and isinstance(body, wrapper):
                # Servers recognise their file wrapper by its class and send the file with
                # sendfile; so it stays the very same object and only its close is ours.
                with suppress(AttributeError):  # it may have no __dict__: then like any other body
                    body.close = hold
                    return body  # type: ignore[no-any-return]
            return (SizedBody if hasattr(body, "__len__") else LazyBody)(body, lease, hold)
        except BaseException:
            hold.give_back()
            raise


def _adding(name: str, value: str, start_response: StartResponse) -> StartResponse:
    """Return a ``start_response`` that adds one header to whatever the application sends."""

    def adding(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        return start_response(status, [*headers, (name, value)], *exc_info)

    return adding

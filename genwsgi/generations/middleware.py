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
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

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

    def close(self) -> None:
        """What the server calls when it is done with the body."""
        self._finish(self._switch.end)

    def __del__(self) -> None:
        self._finish(self._switch.drop)

    def _finish(self, end: Callable[[Lease], None]) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            self._let_go(lease)
        finally:
            end(lease)

    def _let_go(self, lease: Lease) -> None:
        """Close the application's body, in the generation's context."""
        close, self._close = self._close, None
        if close is not None:
            lease.generation.run(close)


class ListBody(list[bytes]):
    """A list body: still a list, so that a server can see its length, and closed like any body."""

    __slots__ = ("close",)
    close: Callable[[], None]


class LazyBody(Hold):
    """A body whose iteration runs application code: a generator, a response object, anything.

    Once closed it is at its end, and holds nothing of the application.
    """

    __slots__ = ("_body", "_iterator")

    def __init__(
        self,
        switch: Switch,
        lease: Lease,
        close: Callable[[], object] | None,
        body: Iterable[bytes],
    ) -> None:
        super().__init__(switch, lease, close)
        self._body: Any = body
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._lease is None:
            raise StopIteration
        return self._lease.generation.run(self._next)

    def _next(self) -> bytes:
        iterator = self._iterator
        if iterator is None:
            iterator = self._iterator = iter(self._body)
        return next(iterator)

    def _let_go(self, lease: Lease) -> None:
        try:
            super()._let_go(lease)
        finally:
            # Here and not with the object itself: an unfinished generator runs its `finally` now.
            lease.generation.run(self._forget)

    def _forget(self) -> None:
        self._body = self._iterator = None


class SizedBody(LazyBody):
    """A lazy body that knows its length in blocks, which PEP 3333 lets a server use."""

    __slots__ = ()

    def __len__(self) -> int:
        if self._lease is None:
            return 0
        # Only when the server asks: the length may be costly, or a mistake nobody would notice.
        return self._lease.generation.run(len, self._body)


class Middleware:
    """The one stable WSGI callable in front of all generations.  Any thread may call it.

    The environ gets ``genwsgi.generation`` (an int) and ``genwsgi.release`` (a string).

    :param switch: where requests get their generation.
    :param header: name of a response header that carries the generation's number, or ``None``.
    """

    def __init__(self, switch: Switch, header: str | None = None) -> None:
        self._switch = switch
        self._header = header

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request on the current generation; see PEP 3333."""
        switch = self._switch
        lease = switch.lease()
        generation = lease.generation
        environ["genwsgi.generation"] = generation.number
        environ["genwsgi.release"] = generation.release
        if self._header is not None:
            start_response = _adding(self._header, str(generation.number), start_response)
        try:
            body: Any = generation.run(generation.application, environ, start_response)  # type: ignore[arg-type]
            kind = type(body)
            plain = kind is list or kind is tuple
            close = None if plain else generation.run(getattr, body, "close", None)
        except BaseException:
            switch.end(lease)
            raise
        # From here on no application code runs: what a body is, its class says.
        if plain:
            listed = ListBody(body)
            listed.close = Hold(switch, lease, None).close
            return listed
        if not hasattr(kind, "__iter__") and not hasattr(kind, "__getitem__"):
            # Not a body: gevent's ALREADY_HANDLED, which no server closes, or a mistake that the
            # server will report.
            switch.end(lease)
            return body  # type: ignore[no-any-return]
        lazy = (SizedBody if hasattr(kind, "__len__") else LazyBody)(switch, lease, close, body)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and issubclass(kind, wrapper):
            # Servers recognise their file wrapper by its class and send the file with sendfile; so
            # it stays the very same object and only its close is ours.
            with suppress(AttributeError):  # it may have no __dict__: then like any other body
                body.close = lazy.close
                return body  # type: ignore[no-any-return]
        return lazy


def _adding(name: str, value: str, start_response: StartResponse) -> StartResponse:
    """Return a ``start_response`` that adds one header to whatever the application sends."""

    def adding(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        return start_response(status, [*headers, (name, value)], *exc_info)

    return adding

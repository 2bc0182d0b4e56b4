"""The WSGI callable: one request, one generation (PEP 3333).

The application is called with the server's own ``start_response``, so ``write()``, ``exc_info`` and
everything else about it is between those two.  Only the body is touched, as little as its kind
allows: application code that runs while the body is iterated and closed has to run in the
generation's context, and the lease has to end when the body is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from genwsgi.generations.switch import Switch

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from genwsgi.generations.leases import Lease


class ListBody(list[bytes]):
    """A list body, still a list whose length a server can see, and the open end of its request.

    Closing ends the lease, once: some servers close a body twice.  One that is dropped without
    having been closed (a server that breaks the rule, a client thread that died) closes itself, so
    that no generation is kept for ever by somebody else's mistake.
    """

    __slots__ = ("_lease", "_switch")
    _lease: Lease | None
    _switch: Switch

    def close(self) -> None:
        """What the server calls when it is done with the body."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._switch.end(lease)

    def __del__(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._switch.drop(lease)


class LazyBody:
    """A body whose iteration runs application code: a generator, a response object, anything.

    Closed once, and by itself when it is dropped, as :class:`ListBody` is; closed, it is at its end
    and holds nothing of the application.
    """

    __slots__ = ("_body", "_close", "_lease", "_next", "_switch")

    def __init__(
        self,
        switch: Switch,
        lease: Lease,
        close: Callable[[], object] | None,
        body: Iterable[bytes],
    ) -> None:
        self._switch = switch
        self._lease: Lease | None = lease
        self._close = close
        self._body: Any = body
        #: The iterator's own step, once there is an iterator.
        self._next: Callable[[], bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        lease = self._lease
        if lease is None:
            raise StopIteration
        return lease.generation.run(self._next or self._first)

    def close(self) -> None:
        """What the server calls when it is done with the body."""
        self._finish(self._switch.end)

    def __del__(self) -> None:
        self._finish(self._switch.drop)

    def _first(self) -> bytes:
        # Only when the server asks for a block: iter() may be application code.
        step: Callable[[], bytes] = iter(self._body).__next__
        self._next = step
        return step()

    def _finish(self, end: Callable[[Lease], None]) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            lease.generation.run(self._let_go)
        finally:
            end(lease)

    def _let_go(self) -> None:
        """Close the application's body, and let go of it here, in the generation's context.

        An unfinished generator runs its ``finally`` when it is let go of.
        """
        close, self._close = self._close, None
        try:
            if close is not None:
                close()
        finally:
            del close
            self._body = self._next = None


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
        lease = switch.lease(environ)
        generation = lease.generation
        environ["genwsgi.generation"] = generation.number
        environ["genwsgi.release"] = generation.release
        if self._header is not None:
            start_response = _adding(self._header, str(generation.number), start_response)
        try:
            body, close = generation.run(_answer, generation.application, environ, start_response)
        except BaseException:
            switch.end(lease)
            raise
        # From here on no application code runs: what a body is, its class says.
        kind = type(body)
        if kind is list or kind is tuple:
            listed = ListBody(body)
            listed._switch = switch
            listed._lease = lease
            return listed
        if kind is GeneratorType:
            return LazyBody(switch, lease, close, body)
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


def _answer(
    application: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> tuple[Any, Callable[[], object] | None]:
    """Call the application and look up how its body is closed; both may be application code."""
    body: Any = application(environ, start_response)
    kind = type(body)
    return body, None if kind is list or kind is tuple else getattr(body, "close", None)


def _adding(name: str, value: str, start_response: StartResponse) -> StartResponse:
    """Return a ``start_response`` that adds one header to whatever the application sends."""

    def adding(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        return start_response(status, [*headers, (name, value)], *exc_info)

    return adding

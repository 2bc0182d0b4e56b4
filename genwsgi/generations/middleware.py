"""The WSGI callable: one request, one generation (PEP 3333).

The application is called with the server's own ``start_response``, so ``write()``, ``exc_info`` and
everything else about it is between those two.  Only the body is touched, as little as its kind
allows: application code that runs while the body is iterated and closed has to run in the
generation's context, and the lease has to end when the body is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from types import GeneratorType
from typing import TYPE_CHECKING, Any, cast

from genwsgi.errors import GenwsgiError
from genwsgi.generations.generation import Generation
from genwsgi.generations.switch import DRAINING, NONE_CURRENT, Switch

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


#: What comes after the last block.
_END = cast("bytes", object())


class ListBody(list[bytes]):
    """A list body, still a list whose length a server can see, and the open end of its request.

    Closing ends the lease, once: some servers close a body twice.  One that is dropped without
    having been closed (a server that breaks the rule, a client thread that died) closes itself, so
    that no generation is kept for ever by somebody else's mistake.
    """

    __slots__ = ("_generation", "_since", "_switch")
    _generation: Generation | None
    _since: float
    _switch: Switch

    def close(self) -> None:
        """What the server calls when it is done with the body."""
        generation = self._generation
        if generation is not None:
            self._generation = None
            # As Switch.leave(), which the common case is too short for.
            try:
                del generation.leases.taken[self._since]
            except KeyError:
                generation.leases.end(self._since)  # says what is wrong
            if generation.state is DRAINING:
                self._switch.let_go(generation)

    def __del__(self) -> None:
        generation = self._generation
        if generation is not None:
            self._generation = None
            self._switch.drop(generation, self._since)


class LazyBody:
    """A body whose iteration runs application code: a response object, an iterator, anything.

    Closed once, and by itself when it is dropped, as :class:`ListBody` is; closed, it is at its end
    and holds nothing of the application.
    """

    __slots__ = ("_body", "_close", "_generation", "_next", "_since", "_switch")
    _switch: Switch
    _generation: Generation | None
    _since: float
    _body: Any
    #: The iterator's own step, once there is an iterator.
    _next: Callable[[], bytes] | None
    #: How the body is closed, where it is not to be asked for that.
    _close: Callable[[], object] | None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        generation = self._generation
        if generation is None:
            raise StopIteration
        return generation.run(self._next or self._first)

    def close(self) -> None:
        """What the server calls when it is done with the body."""
        generation = self._generation
        if generation is not None:
            self._generation = None
            try:
                generation.run(self._let_go)
            finally:
                self._switch.leave(generation, self._since)

    def __del__(self) -> None:
        generation = self._generation
        if generation is not None:
            self._generation = None
            try:
                generation.run(self._let_go)
            finally:
                self._switch.drop(generation, self._since)

    def _first(self) -> bytes:
        # Only when the server asks for a block: iter() may be application code.
        step: Callable[[], bytes] = iter(self._body).__next__
        self._next = step
        return step()

    def _let_go(self) -> None:
        """Close the application's body, and let go of it here, in the generation's context.

        An unfinished generator runs its ``finally`` when it is let go of.
        """
        try:
            close = self._close or getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            close = None
            self._body = self._next = self._close = None


class SizedBody(LazyBody):
    """A lazy body that knows its length in blocks, which PEP 3333 lets a server use."""

    __slots__ = ()

    def __len__(self) -> int:
        generation = self._generation
        if generation is None:
            return 0
        # Only when the server asks: the length may be costly, or a mistake nobody would notice.
        return generation.run(len, self._body)


class GeneratorBody(LazyBody):
    """A generator, as most lazy bodies are: at its end nothing is left of it to be closed."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        # An end that is a value costs a third of one that is an exception.
        return iter(self._step, _END)

    def __next__(self) -> bytes:
        return next(iter(self))

    def close(self) -> None:
        """What the server calls when it is done with the body."""
        generation = self._generation
        if generation is not None and self._body is None:
            self._generation = None
            self._switch.leave(generation, self._since)
        else:
            super().close()

    def _step(self) -> bytes:
        generation, body = self._generation, self._body
        if generation is None or body is None:
            return _END
        block: bytes = generation.run(next, body, _END)
        if block is _END:
            self._body = None
        return block


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
        # Every request runs this, so it is written out: leases, contexts and all.
        switch = self._switch
        while True:
            generation = switch._current
            if generation is None:
                raise GenwsgiError(NONE_CURRENT)
            leases = generation.leases
            try:
                free = generation.contexts.free
            except AttributeError:
                free = generation.begin_contexts()
            if free:
                since = monotonic()
                if leases.taken.setdefault(since, environ) is not environ:
                    continue  # another one has come at the same time
            else:
                # One that is made by another request's code may have that one's environ.
                since = leases.take(generation).since
            if switch._current is generation:
                break
            switch.leave(generation, since)  # a swap overtook it
        environ["genwsgi.generation"] = generation.number
        environ["genwsgi.release"] = generation.release
        if self._header is not None:
            start_response = _adding(self._header, str(generation.number), start_response)
        try:
            application: Any = generation.application
            if free:
                context = free.pop()
                try:
                    body = context.run(application, environ, start_response)
                finally:
                    free.append(context)
            else:
                body = generation.run(application, environ, start_response)
            # What a body is, its class says: so no application code runs from here on.
            kind = type(body)
            if kind is list or kind is tuple:
                listed = ListBody(body)
                listed._switch = switch
                listed._generation = generation
                listed._since = since
                return listed
            # Files are told from others by the server's class, which is not the application's code.
            wrapper = environ.get("wsgi.file_wrapper")
            is_file = isinstance(wrapper, type) and issubclass(kind, wrapper)
            # It won't be found any more when ours is in its place.
            close = generation.run(getattr, body, "close", None) if is_file else None
        except BaseException:
            switch.leave(generation, since)
            raise
        if kind is GeneratorType:
            lazy: LazyBody = GeneratorBody()
        elif hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"):
            lazy = SizedBody() if hasattr(kind, "__len__") else LazyBody()
        else:
            # Not a body: gevent's ALREADY_HANDLED, which no server closes, or a mistake that the
            # server will report.
            switch.leave(generation, since)
            return body  # type: ignore[no-any-return]
        lazy._body = body
        lazy._next = None
        lazy._close = close
        lazy._switch = switch
        lazy._since = since
        lazy._generation = generation
        if is_file:
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

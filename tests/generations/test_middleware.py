"""Tests of genwsgi.generations.middleware."""

from __future__ import annotations

import contextvars
import gc
import io
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import bottle
import flask
import pytest
import webtest

from genwsgi.errors import GenwsgiError, LeaseError
from genwsgi.generations import middleware
from genwsgi.generations.generation import Generation, active
from genwsgi.generations.middleware import Middleware
from genwsgi.generations.switch import Switch
from tests.generations import DEADLINE, TrickLock, in_thread, ready

left: contextvars.ContextVar[str] = contextvars.ContextVar("left", default="nothing")


class GreenletExit(BaseException):
    """What a killed greenlet raises is no Exception."""


class Host:
    """A middleware with generations, called as a server calls it."""

    def __init__(self, application: Any = None, header: str | None = None) -> None:
        self.retired: list[int] = []
        self.switch = Switch(lambda generation: self.retired.append(generation.number))
        self.middleware = Middleware(self.switch, header)
        self.sent: list[Any] = []
        self.written: list[bytes] = []
        self.number = 0
        if application is not None:
            self.swap(application)

    def swap(self, application: Any) -> Generation:
        """Make a generation with this application the current one."""
        self.number += 1
        generation = ready(self.number, application)
        self.switch.swap(generation)
        return generation

    def start_response(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        """The server's own."""
        self.sent.append((status, headers, *exc_info))
        return self.written.append

    def call(self, **environ: Any) -> Any:
        """What a GET request gets as its body."""
        setup_testing_defaults(environ)
        return self.middleware(environ, self.start_response)

    @property
    def open(self) -> int:
        """How many leases are open, of all generations."""
        return sum(self.switch.statistics().leases.values())


def answering(body: Any) -> Callable[..., Any]:
    """An application that answers with ``body``."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    return application


class Steps(list[str]):
    """What an application's body went through, each step in the name of generation 1."""

    def __call__(self, step: str) -> None:
        generation = active.get()
        assert generation is not None, f"{step} outside of the generation"
        assert generation.number == 1, f"{step} in {generation}"
        self.append(step)


# -- bodies --------------------------------------------------------------------------------------


class Closing:
    """A body with a close."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def close(self) -> None:
        self.steps("close")


class Iterable(Closing):
    def __iter__(self) -> Iterator[bytes]:
        self.steps("iter")
        yield b"one"
        self.steps("next")
        yield b"two"


class Indexed(Closing):
    def __getitem__(self, index: int) -> bytes:
        self.steps(f"item {index}")
        return [b"one", b"two"][index]


class Sized(Iterable):
    def __len__(self) -> int:
        self.steps("len")
        return 2


class ClosedByProperty(Iterable):
    @property
    def close(self) -> Any:
        self.steps("close is looked up")
        return lambda: self.steps("close")


class ListWithClose(list[bytes]):
    steps: Steps

    def close(self) -> None:
        self.steps("close")


class NotClosing:
    """An iterator without close."""

    def __init__(self) -> None:
        self.blocks = iter([b"one", b"two"])

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.blocks)


class File(Closing):
    """A file whose close is a step."""

    def __init__(self, steps: Steps) -> None:
        super().__init__(steps)
        self.read = io.BytesIO(b"onetwo").read


class SlottedWrapper:
    """A server's file wrapper that takes no attributes."""

    __slots__ = ("file",)

    def __init__(self, file: File, size: int = 3) -> None:
        self.file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(3), b"")

    def close(self) -> None:
        self.file.close()


def generator(steps: Steps) -> Iterator[bytes]:
    """A body as most are."""
    try:
        steps("iter")
        yield b"one"
        yield b"two"
    finally:
        steps("close")


def list_with_close(steps: Steps) -> Any:
    """A list of a class of its own."""
    body = ListWithClose([b"one", b"two"])
    body.steps = steps
    return body


def file(steps: Steps, wrapper: Any = FileWrapper) -> Any:
    """A file in the server's wrapper."""
    return wrapper(File(steps), 3)


BODIES: dict[str, Callable[[Steps], Any]] = {
    "list": lambda steps: [b"one", b"two"],
    "tuple": lambda steps: (b"one", b"two"),
    "list with close": list_with_close,
    "generator": generator,
    "iterable": Iterable,
    "indexed": Indexed,
    "sized": Sized,
    "property": ClosedByProperty,
    "without close": lambda steps: NotClosing(),
    "file": file,
    "file in slots": lambda steps: file(steps, SlottedWrapper),
}
CLOSES = BODIES.keys() - {"list", "tuple", "without close"}
WRAPPERS = {"file": FileWrapper, "file in slots": SlottedWrapper}


def exhaust(body: Any) -> None:
    """Iterate to the end, and close."""
    assert b"".join(body) == b"onetwo"
    body.close()


def leave(body: Any) -> None:
    """Close in the middle: the client has left."""
    assert next(iter(body)) == b"one"
    body.close()


def never_iterate(body: Any) -> None:
    """Close at once: an answer to HEAD."""
    body.close()


def close_twice(body: Any) -> None:
    """Iterate, close and close again."""
    for _ in body:
        pass
    body.close()
    body.close()


def from_another_thread(body: Any) -> None:
    """Iterate and close on a thread that did not make the call."""
    in_thread(lambda: exhaust(body))


ENDS = [exhaust, leave, never_iterate, close_twice, from_another_thread]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("kind", BODIES)
def test_a_lease_lasts_until_the_body_is_closed(kind: str, end: Callable[[Any], None]) -> None:
    """Whatever the body is and however it ends, it is closed once and its lease ends then."""
    steps = Steps()
    host = Host(lambda environ, start_response: BODIES[kind](steps))
    body = host.call(**{"wsgi.file_wrapper": WRAPPERS.get(kind, FileWrapper)})
    host.swap(answering([]))
    assert (host.open, host.retired) == (1, [])
    end(body)
    assert (host.open, host.retired) == (0, [1])
    # A generator that was never started has nothing to close.
    started = kind != "generator" or end is not never_iterate
    assert steps.count("close") == (kind in CLOSES and started)


@pytest.mark.parametrize("kind", BODIES)
def test_a_lease_does_not_end_with_the_last_block(kind: str) -> None:
    """A body that has been iterated to its end keeps its lease until it is closed."""
    steps = Steps()
    host = Host(lambda environ, start_response: BODIES[kind](steps))
    body = host.call(**{"wsgi.file_wrapper": WRAPPERS.get(kind, FileWrapper)})
    for _ in body:
        assert host.open == 1
    assert host.open == 1
    body.close()
    assert host.open == 0


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_is_dropped_closes_itself(kind: str) -> None:
    """A server that never closes a body keeps no generation: a dropped body closes itself."""
    steps = Steps()
    host = Host(lambda environ, start_response: BODIES[kind](steps))
    body = host.call(**{"wsgi.file_wrapper": WRAPPERS.get(kind, FileWrapper)})
    next(iter(body))
    host.swap(answering([]))
    assert (host.open, host.retired) == (1, [])
    del body
    gc.collect()
    assert (host.open, host.retired) == (0, [1])
    assert steps.count("close") == (kind in CLOSES)


def test_a_body_dropped_by_the_collector_inside_the_lock_does_not_hang() -> None:
    """The collector may find a body while its own thread has the switch's lock."""
    steps = Steps()
    host = Host(lambda environ, start_response: file(steps))
    body = host.call(**{"wsgi.file_wrapper": FileWrapper})
    host.swap(answering([]))
    assert body.close is not None
    del body  # it is in a cycle with its close: only the collector frees it
    host.switch._lock = TrickLock(inside=gc.collect)  # type: ignore[assignment]
    in_thread(host.switch.statistics)
    assert (host.open, host.retired) == (0, [1])


def test_an_unfinished_iterator_ends_in_its_generation() -> None:
    """What a lazy body's iterator still has to do when the client leaves is part of the request."""
    steps = Steps()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            try:
                yield b"one"
            finally:
                steps("cleaned up")
                assert host.open == 1

    host = Host(answering(Body()))
    body = host.call()
    next(body)
    body.close()
    assert steps == ["cleaned up"]


def test_a_closed_body_is_at_its_end() -> None:
    """After close no application code runs for the request: there are no more blocks."""
    steps = Steps()
    body = Host(answering(Sized(steps))).call()
    next(body)
    body.close()
    assert list(body) == []
    assert len(body) == 0
    assert steps == ["iter", "close"]


def test_a_generator_stays_at_its_end() -> None:
    """A generator that has ended, or was closed, gives no further block."""
    host = Host(lambda environ, start_response: (block for block in (b"one", b"two")))
    ended, closed = host.call(), host.call()
    assert list(ended) == [b"one", b"two"]
    assert next(closed) == b"one"
    closed.close()
    for body in (ended, closed):
        assert list(body) == []
        with pytest.raises(StopIteration):
            next(body)
    ended.close()
    assert host.open == 0


def test_an_unbounded_body_is_sent_as_it_comes() -> None:
    """No block is asked for before the server wants it, nor is the length."""
    steps = Steps()
    body = Host(answering(Sized(steps))).call()
    assert steps == []
    assert iter(body) is body
    assert next(body) == b"one"
    assert steps == ["iter"]
    body.close()


# -- exceptions ----------------------------------------------------------------------------------

RAISED = [ValueError, SystemExit, KeyboardInterrupt, GreenletExit, StopIteration]


class Raising(Closing):
    """A body that raises in one place."""

    def __init__(self, steps: Steps, where: str, error: type[BaseException]) -> None:
        super().__init__(steps)
        self.where, self.error = where, error

    def _at(self, where: str) -> None:
        if where == self.where:
            raise self.error(where)

    def __iter__(self) -> Iterator[bytes]:
        self._at("iter")
        return self

    def __next__(self) -> bytes:
        self._at("next")
        raise StopIteration

    def close(self) -> None:
        super().close()
        self._at("close")


@pytest.mark.parametrize("error", RAISED)
def test_an_exception_in_the_call_ends_the_lease(error: type[BaseException]) -> None:
    """What the application raises comes through, and its lease ends."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        host.swap(answering([]))
        raise error("call")

    host = Host(application)
    with pytest.raises(error, match="call"):
        host.call()
    assert (host.open, host.retired) == (0, [1])


@pytest.mark.parametrize("error", RAISED[:-1])
@pytest.mark.parametrize("where", ["iter", "next", "close"])
def test_an_exception_in_the_body_ends_the_lease(where: str, error: type[BaseException]) -> None:
    """What a body raises comes through; the lease ends when it is closed, once."""
    steps = Steps()
    host = Host(answering(Raising(steps, where, error)))
    body = host.call()
    host.swap(answering([]))

    def serve() -> None:
        try:
            list(body)
        finally:
            assert (host.open, host.retired) == (1, [])
            body.close()

    with pytest.raises(error, match=where):
        serve()
    body.close()
    assert (host.open, host.retired) == (0, [1])
    assert steps == ["close"]


def test_an_exception_in_the_generator_ends_the_lease() -> None:
    """A generator that raises is at its end, and its lease ends with close."""

    def blocks() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("in the middle")

    host = Host(answering(blocks()))
    body = host.call()
    assert next(body) == b"one"
    with pytest.raises(ValueError, match="in the middle"):
        next(body)
    assert host.open == 1
    body.close()
    assert host.open == 0


def test_an_exception_from_a_body_without_close_to_be_found_ends_the_lease() -> None:
    """A body that raises when its close is looked up is the application's mistake, and no leak."""

    class Body(NotClosing):
        @property
        def close(self) -> Any:
            raise ValueError("looked up")

    host = Host(answering(Body()))
    body = host.call()
    with pytest.raises(ValueError, match="looked up"):
        body.close()
    assert host.open == 0


def test_a_file_without_close_to_be_found_ends_the_lease() -> None:
    """In a server's file wrapper it is looked up at once, and what it raises ends the request."""

    class Wrapper(FileWrapper):
        @property
        def close(self) -> Any:
            raise ValueError("looked up")

        @close.setter
        def close(self, close: Any) -> None:
            pass

    host = Host(lambda environ, start_response: file(Steps(), Wrapper))
    with pytest.raises(ValueError, match="looked up"):
        host.call(**{"wsgi.file_wrapper": Wrapper})
    assert host.open == 0


def test_a_length_that_raises_is_the_servers_to_see() -> None:
    """``len()`` is the application's own, when it is asked, with what it raises."""

    class Body(Iterable):
        def __len__(self) -> int:
            raise NotImplementedError("no idea")

    steps = Steps()
    host = Host(answering(Body(steps)))
    body = host.call()
    with pytest.raises(NotImplementedError, match="no idea"):
        len(body)
    assert next(body) == b"one"
    body.close()
    assert host.open == 0


def test_a_file_wrapper_that_takes_no_close_at_all_leaves_no_lease() -> None:
    """What a server's wrapper raises when it gets its close comes through; no lease stays."""

    class Refusing(FileWrapper):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "close" and "close" in vars(self):
                raise TypeError("refused")
            super().__setattr__(name, value)

    steps = Steps()
    host = Host(lambda environ, start_response: file(steps, Refusing))
    with pytest.raises(TypeError, match="refused"):
        host.call(**{"wsgi.file_wrapper": Refusing})
    gc.collect()
    assert host.open == 0
    assert steps == ["close"]


@pytest.mark.parametrize("answer", [None, object(), 7], ids=["None", "ALREADY_HANDLED", "int"])
def test_what_is_no_body_is_passed_through(answer: object) -> None:
    """An answer that no server closes comes back as it is, its lease ended at once."""
    host = Host(answering(answer))
    assert host.call() is answer
    assert host.open == 0


def test_without_a_generation_a_request_is_refused() -> None:
    """A call before the first swap raises and starts no response."""
    host = Host()
    with pytest.raises(GenwsgiError, match="no generation is current"):
        host.call()
    assert host.sent == []


# -- PEP 3333 ------------------------------------------------------------------------------------


def served_by_wsgiref(middleware: Any, method: str = "GET") -> bytes:
    """What wsgiref's handler sends for a request."""
    out = io.BytesIO()
    environ: dict[str, Any] = {"REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    handler = SimpleHandler(io.BytesIO(), out, io.StringIO(), environ)
    handler.run(middleware)
    return out.getvalue()


@pytest.mark.parametrize("kind", [list, tuple], ids=["list", "tuple"])
def test_one_block_has_a_content_length(kind: type) -> None:
    """A server sees that the body is one block, and sends its length."""
    host = Host(answering(kind([b"hello"])))
    body = host.call()
    assert len(body) == 1
    body.close()
    assert isinstance(body, list)
    sent = served_by_wsgiref(host.middleware)
    assert b"Content-Length: 5\r\n" in sent
    assert sent.endswith(b"\r\n\r\nhello")
    assert host.open == 0


def test_a_body_of_a_class_of_its_own_keeps_its_length() -> None:
    """``len()`` of a body that has one is the application's, asked in its name."""
    steps = Steps()
    body = Host(answering(Sized(steps))).call()
    assert len(body) == 2
    assert steps == ["len"]
    body.close()
    with pytest.raises(TypeError):
        len(Host(answering(Iterable(steps))).call())


def test_a_generator_has_no_length() -> None:
    """A body without length gets none: the server sends it in chunks."""
    assert not hasattr(Host(answering(iter([b"x"]))).call(), "__len__")
    assert b"Content-Length" not in served_by_wsgiref(Host(answering(iter([b"x"]))).middleware)


def test_write_is_the_servers() -> None:
    """``write()`` is what the server gave, and what is written goes out before the body."""

    def application(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written, ")
        return [b"returned"]

    host = Host(application)
    host.call().close()
    assert host.written == [b"written, "]
    assert served_by_wsgiref(host.middleware).endswith(b"written, returned")


@pytest.mark.parametrize("header", [None, "X-Generation"])
def test_start_response_takes_exc_info(header: str | None) -> None:
    """An application may change its mind before anything was sent, and the error is passed on."""

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            raise ValueError("half way")
        except ValueError:
            start_response("500 Sorry", [], sys.exc_info())
        return [b"sorry"]

    host = Host(application, header)
    host.call().close()
    assert [sent[0] for sent in host.sent] == ["200 OK", "500 Sorry"]
    assert host.sent[1][2][0] is ValueError
    assert len(host.sent[0]) == 2
    sent = served_by_wsgiref(host.middleware)
    assert b"500 Sorry" in sent
    assert sent.endswith(b"sorry")


def test_start_response_may_raise() -> None:
    """What the server's ``start_response`` raises comes through, and the lease ends."""
    host = Host(answering([b"never"]))

    def start_response(*args: Any) -> Any:
        raise AssertionError("headers sent twice")

    with pytest.raises(AssertionError, match="headers sent twice"):
        host.middleware({}, start_response)
    assert host.open == 0


def test_head_is_left_to_application_and_server() -> None:
    """A HEAD request is like any other: what the application answers is passed, its lease ends."""
    host = Host(answering([]))
    assert b"200 OK" in served_by_wsgiref(host.middleware, "HEAD")
    assert host.open == 0


def test_a_file_wrapper_stays_the_same_object() -> None:
    """The server finds its own wrapper, to send it with sendfile; closing it ends the lease."""
    steps = Steps()
    made = file(steps)
    host = Host(answering(made))
    body = host.call(**{"wsgi.file_wrapper": FileWrapper})
    assert body is made
    assert type(body) is FileWrapper
    host.swap(answering([]))
    assert host.open == 1
    body.close()
    assert steps == ["close"]
    assert (host.open, host.retired) == (0, [1])


@pytest.mark.parametrize("wrapper", [None, lambda file, size: None, SlottedWrapper])
def test_a_file_that_is_not_in_the_servers_wrapper_is_a_lazy_body(wrapper: Any) -> None:
    """Without a wrapper, with one that is no class or another, a file is like any body."""
    host = Host(lambda environ, start_response: file(Steps()))
    body = host.call(**({"wsgi.file_wrapper": wrapper} if wrapper else {}))
    assert type(body) is not FileWrapper
    exhaust(body)
    assert host.open == 0


def test_the_environ_tells_the_generation() -> None:
    """The application reads number and release of its generation in the environ."""
    seen: list[Any] = []

    def application(environ: Any, start_response: Any) -> Any:
        seen.append((environ["genwsgi.generation"], environ["genwsgi.release"]))
        return []

    host = Host(application)
    host.call().close()
    host.swap(application)
    host.call().close()
    assert seen == [(1, "release 1"), (2, "release 2")]


def test_the_header_is_an_option() -> None:
    """Only when asked for, the response has one more header, and the application's list stays."""
    own = [("Content-Type", "text/plain")]

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", own)
        return []

    plain, telling = Host(application), Host(application, "X-Generation")
    plain.call().close()
    telling.swap(application)
    telling.call().close()
    assert plain.sent == [("200 OK", [("Content-Type", "text/plain")])]
    assert plain.sent[0][1] is own
    assert telling.sent[0][1] == [("Content-Type", "text/plain"), ("X-Generation", "2")]
    assert len(own) == 1


# -- contexts ------------------------------------------------------------------------------------


def test_what_a_request_leaves_in_its_context_is_there_for_the_body_and_the_next_request() -> None:
    """Call, blocks and close of a request share the thread's context of their generation."""
    seen: list[str] = []

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        seen.append(left.get())
        left.set("by the call")
        return blocks()

    def blocks() -> Iterator[bytes]:
        try:
            seen.append(left.get())
            left.set("by the body")
            yield b"one"
        finally:
            seen.append(left.get())
            left.set("by the close")

    host = Host(application)
    leave(host.call())
    leave(host.call())
    expected = ["nothing", "by the call", "by the body"]
    assert seen == [*expected, "by the close", *expected[1:]]
    host.swap(application)
    seen.clear()
    leave(host.call())
    assert seen == expected
    assert left.get() == "nothing"


def test_requests_in_turn_on_one_thread_keep_to_their_generations() -> None:
    """Bodies of two generations that a thread serves in turn are each in their own context."""

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        left.set(f"generation {environ['genwsgi.generation']}")
        for _ in range(3):
            current = active.get()
            assert current is not None
            assert left.get() == current.name
            yield current.name.encode()

    host = Host(application)
    old = host.call()
    host.swap(application)
    new = host.call()
    assert list(zip(old, new, strict=True)) == [(b"generation 1", b"generation 2")] * 3
    old.close()
    assert host.retired == [1]
    new.close()


@pytest.mark.parametrize("own_switch", [True, False], ids=["one in another", "one calls itself"])
def test_a_nested_request_holds_a_lease_of_its_own(own_switch: bool) -> None:
    """A generation's code may call a middleware, its own or another, and stream what that gives."""

    def inner(environ: Any, start_response: Any) -> Iterator[bytes]:
        left.set("by the inner call")
        yield left.get().encode()
        yield left.get().encode()

    def outer(environ: Any, start_response: Any) -> Any:
        if environ.pop("inner", False):
            return inner(environ, start_response)
        environ["inner"] = True
        return nested.middleware(environ, start_response)

    host = Host(outer)
    nested = Host(inner) if own_switch else host
    body = host.call()
    assert host.open + nested.open == (2 if own_switch else 4)
    assert list(body) == [b"by the inner call"] * 2
    body.close()
    assert host.open == nested.open == 0


def test_a_request_that_hands_its_environ_on_at_once_is_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the clock stands still, a request and one that it makes with its environ are two."""

    def outer(environ: Any, start_response: Any) -> Any:
        if environ.pop("inner", False):
            return [b"inner"]
        environ["inner"] = True
        return host.middleware(environ, start_response)

    host = Host(outer)
    monkeypatch.setattr(middleware, "monotonic", lambda: 5.0)
    body = host.call()
    assert host.open == 1 + 1
    body.close()
    assert host.open == 0


# -- generations, threads and memory -------------------------------------------------------------


def test_each_request_ends_on_the_generation_it_began_on() -> None:
    """Old bodies go on over swaps; each generation retires with its own last one."""

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        for _ in range(2):
            yield b"%d" % environ["genwsgi.generation"]

    host = Host(application)
    bodies = [host.call()]
    for _ in range(3):
        host.swap(application)
        bodies.append(host.call())
    assert host.switch.statistics().leases == {1: 1, 2: 1, 3: 1, 4: 1}
    assert [b"".join(body) for body in reversed(bodies)] == [b"44", b"33", b"22", b"11"]
    assert host.retired == []
    for index in (1, 0, 3, 2):
        bodies[index].close()
    assert host.retired == [2, 1, 3]


class TrickDict(dict[float, Any]):
    """Leases that are overtaken, once, right before or after one is taken or ended."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def setdefault(self, since: float, whose: Any) -> Any:  # type: ignore[override]
        self._overtake("before")
        found = super().setdefault(since, whose)
        self._overtake("after")
        return found

    def __delitem__(self, since: float) -> None:
        self._overtake("before")
        super().__delitem__(since)
        self._overtake("after")

    def _overtake(self, when: str) -> None:
        trick = getattr(self, when)
        if trick is not None:
            setattr(self, when, None)
            in_thread(trick)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["taken", "ended"])
def test_a_swap_overtakes_a_request(step: str, when: str) -> None:
    """A request that a swap comes between leaves no lease behind, and never serves on what is gone.

    It is on the new generation where it had not begun; the old one retires once.
    """
    host = Host()
    generation = host.swap(answering([b"old"]))
    host.call().close()
    generation.leases.taken = taken = TrickDict()

    def swap() -> None:
        host.swap(answering([b"new"]))

    if step == "taken":
        setattr(taken, when, swap)
        body = host.call()
        assert list(body) == [b"new"]
    else:
        body = host.call()
        setattr(taken, when, swap)
    body.close()
    assert (host.open, host.retired) == (0, [1])


def test_requests_that_come_at_the_same_time_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still for a moment makes no two requests one."""
    clock = iter([5.0, 5.0, 5.0, 6.0])
    monkeypatch.setattr(middleware, "monotonic", lambda: next(clock))
    host = Host(answering([b"x"]))
    first, second = host.call(), host.call()
    assert host.open == 2
    second.close()
    assert host.open == 1
    first.close()
    assert host.open == 0


def test_a_lease_that_was_ended_by_others_is_an_error_with_a_name() -> None:
    """Closing a body whose lease is not there says what is wrong."""
    host = Host()
    generation = host.swap(answering([b"x"]))
    body = host.call()
    generation.leases.taken.clear()
    with pytest.raises(LeaseError, match="is not open: it was ended before"):
        body.close()


def test_a_swap_may_come_at_any_moment_of_a_call() -> None:
    """A generation that is replaced while its application is being called has its lease already."""

    def application(environ: Any, start_response: Any) -> Any:
        host.swap(answering([b"new"]))
        assert host.retired == []
        return [b"old"]

    host = Host(application)
    body = host.call()
    assert list(body) == [b"old"]
    assert host.retired == []
    body.close()
    assert host.retired == [1]


def test_threads_hammering() -> None:
    """Requests on many threads, ended in every way, over many swaps: no lease early, none left."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    wrong: list[object] = []

    def application(environ: Any, start_response: Any) -> Any:
        def blocks() -> Iterator[bytes]:
            for _ in range(3):
                mine = active.get()
                if (
                    mine is None
                    or mine.number != environ["genwsgi.generation"]
                    or mine.number in host.retired
                    or len(mine.leases) == 0
                ):
                    wrong.append(mine)
                yield b"x"

        return blocks() if environ["wanted"] else [b"xxx"]

    host = Host(application)
    over = threading.Event()
    done: list[int] = []

    def serve() -> None:
        count = 0
        while not (count and over.is_set()):
            for wanted in (False, True):
                with closing(host.call(wanted=wanted)) as body:
                    assert b"".join(body) == b"xxx"
                host.call(wanted=wanted).close()
                next(iter(host.call(wanted=wanted)))
            count += 1
        done.append(count)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(5)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(40):
            host.swap(application)
        over.set()
        for thread in threads:
            thread.join(DEADLINE)
    finally:
        sys.setswitchinterval(usual)
    assert len(done) == len(threads)
    assert wrong == []
    assert host.open == 0
    host.switch.close()
    assert sorted(host.retired) == list(range(1, 42))


@pytest.mark.parametrize("kind", BODIES)
def test_no_cycle_keeps_a_generation(kind: str) -> None:
    """After the close reference counts free a generation, even while the server has the body."""
    host = Host()

    def retire(generation: Generation) -> None:
        generation.application = None
        generation.forget_contexts()

    host.switch._on_retire = retire
    gone = weakref.ref(host.swap(lambda environ, start_response: BODIES[kind](Steps())))
    gc.collect()
    gc.disable()
    try:
        body = host.call(**{"wsgi.file_wrapper": WRAPPERS.get(kind, FileWrapper)})
        host.swap(answering([]))
        assert gone() is not None
        next(iter(body))
        body.close()
        assert gone() is None
        freed = weakref.ref(body) if type(body) is FileWrapper else None
        del body
        assert freed is None or freed() is None
    finally:
        gc.enable()


def test_no_exception_keeps_a_generation() -> None:
    """Once the server has dropped an application's exception, its generation is free."""

    def application(environ: Any, start_response: Any) -> Any:
        raise ValueError("call")

    host = Host()
    gone = weakref.ref(host.swap(application))
    host.switch._on_retire = lambda generation: generation.forget_contexts()
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="call") as caught:
            host.call()
        host.swap(answering([]))
        assert gone() is not None
        del caught
        assert gone() is None
    finally:
        gc.enable()


# -- other people's eyes -------------------------------------------------------------------------


def plain(environ: Any, start_response: Any) -> Any:
    """An application without a framework."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stream":
        return iter([b"one, ", b"two"])
    if environ["PATH_INFO"] == "/echo":
        return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"hello"]


def flask_application() -> Any:
    """A small Flask application."""
    application = flask.Flask("small")

    @application.route("/")
    def hello() -> Any:
        return "hello", {"Content-Type": "text/plain"}

    @application.route("/stream")
    def stream() -> Any:
        def blocks() -> Iterator[str]:
            yield "one, "
            assert flask.request.path == "/stream"
            yield "two"

        return flask.Response(flask.stream_with_context(blocks()), mimetype="text/plain")

    @application.route("/echo", methods=["POST"])
    def echo() -> Any:
        return flask.Response(flask.request.get_data(), mimetype="text/plain")

    return application


def bottle_application() -> Any:
    """A small Bottle application."""
    application = bottle.Bottle()

    @application.get("/")
    def hello() -> str:
        bottle.response.content_type = "text/plain"
        return "hello"

    @application.get("/stream")
    def stream() -> Iterator[str]:
        bottle.response.content_type = "text/plain"
        yield "one, "
        yield "two"

    @application.post("/echo")
    def echo() -> Any:
        bottle.response.content_type = "text/plain"
        return bottle.request.body.read()

    return application


APPLICATIONS = {"plain": lambda: plain, "flask": flask_application, "bottle": bottle_application}


@pytest.mark.parametrize("header", [None, "X-Generation"])
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "both sides"])
@pytest.mark.parametrize("framework", APPLICATIONS)
def test_validators_see_no_middleware(framework: str, inside: bool, header: str | None) -> None:
    """The validator of wsgiref, on one or both sides, and WebTest's lint have no complaint."""
    made = APPLICATIONS[framework]()
    host = Host(validator(made) if inside else made, header)
    client = webtest.TestApp(validator(host.middleware), lint=True)
    for number in (1, 2):
        assert client.get("/").text == "hello"
        assert client.get("/stream").text == "one, two"
        assert client.post("/echo", b"echo", {"Content-Type": "text/plain"}).text == "echo"
        assert client.head("/").body == b""
        if framework != "plain":
            assert client.get("/nowhere", status=404).status_int == 404
        if header:
            assert client.get("/").headers[header] == str(number)
        assert host.open == 0
        host.swap(validator(made) if inside else made)
    assert host.retired == [1, 2]


@pytest.mark.parametrize("framework", APPLICATIONS)
def test_a_stream_goes_on_over_a_swap(framework: str) -> None:
    """A framework's stream that began before a swap ends on its own generation after it."""
    host = Host(APPLICATIONS[framework]())
    body = host.call(PATH_INFO="/stream")
    assert next(iter(body)) == b"one, "
    host.swap(APPLICATIONS[framework]())
    assert b"".join(host.call(PATH_INFO="/")) == b"hello"
    assert host.retired == []
    assert b"".join(body) == b"two"
    body.close()
    assert host.retired == [1]

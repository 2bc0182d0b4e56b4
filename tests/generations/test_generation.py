"""Tests of genwsgi.generations.generation."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from genwsgi.generations.generation import Generation, active
from genwsgi.generations.lifecycle import State
from tests.generations import DEADLINE, in_thread, ready

left: contextvars.ContextVar[str] = contextvars.ContextVar("left", default="nothing")


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_new_generation_is_being_built() -> None:
    """A generation starts in building, without application, modules and leases."""
    generation = Generation(4, "deadbeef: a change")
    assert (generation.number, generation.name) == (4, "generation 4")
    assert generation.release == "deadbeef: a change"
    assert generation.state is State.BUILDING
    assert generation.application is generation.modules is None
    assert len(generation.leases) == 0


def test_the_repr_tells_state_and_leases() -> None:
    """A generation's repr tells its number, state and how many leases are open."""
    generation = ready(2)
    generation.leases.take(generation)
    assert repr(generation) == "<Generation 2 ready, 1 open leases>"


def test_run_is_in_the_name_of_the_generation() -> None:
    """The generation is active while its code runs, and not before or after."""
    generation = Generation(1)
    assert active.get() is None
    assert generation.run(active.get) is generation
    assert active.get() is None


def test_run_passes_arguments_and_result() -> None:
    """``run`` calls with the arguments and returns the result, an exception comes through."""
    generation = Generation(1)
    assert generation.run(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        generation.run(divmod, 7, 0)
    with pytest.raises(StopIteration):
        generation.run(next, iter(()))
    with pytest.raises(SystemExit):
        generation.run(exit_now)
    assert active.get() is None
    assert generation.run(active.get) is generation


def exit_now() -> None:
    """Leave as ``sys.exit`` does."""
    raise SystemExit(3)


def test_what_is_left_in_the_context_is_found_again_on_the_thread() -> None:
    """A context variable that one call set is there in the next, in this generation alone."""
    first, second = Generation(1), Generation(2)
    first.run(left.set, "by the first")
    assert first.run(left.get) == "by the first"
    assert second.run(left.get) == "nothing"
    assert left.get() == "nothing"


def test_what_the_caller_has_set_stays_outside() -> None:
    """A generation's context does not show what the server's thread has set."""

    def serve() -> str:
        left.set("by the server")
        return Generation(1).run(left.get)

    assert contextvars.copy_context().run(serve) == "nothing"


def test_each_thread_has_its_own_context() -> None:
    """Two threads may be in a generation at once, and see nothing of each other."""
    generation = Generation(1)
    meeting = threading.Barrier(2, timeout=DEADLINE)

    def meet(name: str) -> str:
        left.set(name)
        meeting.wait()
        return left.get()

    def there() -> None:
        assert generation.run(meet, "there") == "there"

    thread = threading.Thread(target=there)
    thread.start()
    assert generation.run(meet, "here") == "here"
    thread.join(DEADLINE)
    assert generation.run(left.get) == "here"


def test_a_generation_that_calls_itself_stays_in_its_context() -> None:
    """Inside of itself a generation has one context: what the inner call sets, the outer sees."""
    generation = Generation(1)
    generation.run(lambda: generation.run(left.set, "inside"))
    assert generation.run(left.get) == "inside"


def test_nested_generations_are_each_themselves() -> None:
    """One generation may call another; each has its own name and its thread's own context."""
    outer, inner = Generation(1), Generation(2)
    inner.run(left.set, "by the inner")

    def call() -> None:
        left.set("by the outer")
        assert inner.run(active.get) is inner
        assert inner.run(left.get) == "by the inner"
        inner.run(left.set, "by the inner, again")
        assert active.get() is outer
        assert left.get() == "by the outer"

    outer.run(call)
    assert inner.run(left.get) == "by the inner, again"


def test_a_call_back_into_a_generation_has_a_context_that_lasts() -> None:
    """First calls second calls first: no context is entered twice, and each depth finds its own."""
    first, second = Generation(1), Generation(2)

    def deep(value: str | None) -> str:
        assert active.get() is first
        if value is not None:
            left.set(value)
        return left.get()

    first.run(left.set, "shallow")
    assert first.run(second.run, first.run, deep, "deep") == "deep"
    assert first.run(left.get) == "shallow"
    assert first.run(second.run, first.run, deep, None) == "deep"


def test_a_context_of_the_applications_own_is_no_obstacle() -> None:
    """Code that runs in an empty context, inside a generation's, may call the generation."""
    generation = Generation(1)

    def call() -> object:
        return contextvars.Context().run(generation.run, active.get)

    assert generation.run(call) is generation


def test_a_new_context_is_empty_but_for_the_generation() -> None:
    """``new_context`` gives a context of its own, in which the generation is active."""
    generation = Generation(1)
    generation.run(left.set, "on the thread")
    context = generation.new_context()
    assert dict(context.items()) == {active: generation}
    assert context is not generation.new_context()


def test_forgotten_contexts_are_gone_on_every_thread(no_gc: None) -> None:
    """``forget_contexts`` drops what threads have left, of those that still run too."""

    class Left:
        pass

    kept: contextvars.ContextVar[object] = contextvars.ContextVar("kept")
    generation = Generation(1)
    here, there = Left(), Left()
    gone = [weakref.ref(here), weakref.ref(there)]
    generation.run(kept.set, here)
    forgotten = threading.Event()
    was_there = threading.Event()

    def other(what: list[object]) -> None:
        generation.run(kept.set, what.pop())
        was_there.set()
        forgotten.wait(DEADLINE)

    thread = threading.Thread(target=other, args=([there],))
    thread.start()
    assert was_there.wait(DEADLINE)
    del here, there
    generation.forget_contexts()
    try:
        assert [reference() for reference in gone] == [None, None]
    finally:
        forgotten.set()
        thread.join(DEADLINE)


def test_contexts_may_be_forgotten_from_inside() -> None:
    """A generation that is torn down while a call runs in it lets that call end."""
    generation = Generation(1)
    generation.run(left.set, "before")
    generation.run(generation.forget_contexts)
    assert generation.run(left.get) == "nothing"


def test_nothing_ties_a_generation_to_itself(no_gc: None) -> None:
    """After ``forget_contexts`` reference counts alone free a generation, whoever has run in it."""
    generation = Generation(1)
    nested = Generation(2)
    generation.run(nested.run, generation.run, left.get)
    in_thread(partial(generation.run, left.get))
    gone = weakref.ref(generation)
    generation.forget_contexts()
    nested.forget_contexts()
    del generation
    assert gone() is None

"""Versions whose code waits outside of any thread."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

from genwsgi import hotupdate
from tests.helpers import wait_until
from tests.hotupdate.conftest import Program

RULES = """
    import atexit
    from types import coroutine
    import greenlet
    import NAME
    from NAME.fields import VERSION
    atexit.register(NAME.ended.append, VERSION)
    @coroutine
    def nap():
        yield
    async def extract():
        await nap()
        return VERSION
    def pages():
        yield 0
        yield VERSION
    async def stream():
        yield 0
        yield VERSION
    def wait():
        greenlet.getcurrent().parent.switch()
        return VERSION
    COUNTER = pages()
    following = pages().__next__
    following()
    """


def step(coroutine: Any) -> Any:
    """Go on with a coroutine to its end, or until it waits; return what it came to."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value


def as_coroutine(rules: Any) -> Callable[[], int]:
    """Begin a coroutine; what is returned goes on with it to its end, as with all of these."""
    coroutine = rules.extract()
    step(coroutine)
    return lambda: step(coroutine)


def as_generator(rules: Any) -> Callable[[], int]:
    """Begin a generator."""
    generator = rules.pages()
    next(generator)
    return lambda: next(generator)


def as_async_generator(rules: Any) -> Callable[[], int]:
    """Begin an asynchronous generator."""
    generator = rules.stream()
    step(generator.asend(None))

    async def rest() -> list[int]:
        return [number async for number in generator]

    return lambda: step(rest())[0]


def as_greenlet(rules: Any) -> Callable[[], int]:
    """Begin a greenlet."""
    one = greenlet.greenlet(rules.wait)
    one.switch()
    return one.switch


@pytest.mark.parametrize("begin", [as_coroutine, as_generator, as_async_generator, as_greenlet])
def test_suspended_code_keeps_its_version(
    program: Program, begin: Callable[[Any], Callable[[], int]]
) -> None:
    """A version retires when the last of its code has ended, however that waits."""
    ended: list[int] = []
    program.write({"NAME/rules.py": RULES})
    vars(program.load("NAME"))["ended"] = ended
    rules = program.load("NAME.rules")
    for number in (2, 3, 4):
        program.write({"NAME/fields.py": f"VERSION = {number}\n"})
        assert program.update("NAME.fields").outcome == "committed"
        if number == 2:
            go_on = begin(rules)
    # What they keep themselves holds none: 3 was replaced after 2.
    wait_until(lambda: ended == [3], what="the end of version 3")
    assert hotupdate.status().in_use == ((2, 0),)
    where = hotupdate._updater.versions.where(2)
    assert where.startswith("suspended in ")
    assert "rules.py" in where
    assert go_on() == 2
    del go_on
    wait_until(lambda: ended == [3, 2], what="the end of version 2")
    atexit.unregister(ended.append)


LOOP = """
    import asyncio, atexit, threading
    import NAME
    from NAME.fields import VERSION
    async def nap():
        NAME.ended.append(-VERSION)
        await asyncio.Event().wait()
    async def work():
        await nap()
    loop = asyncio.new_event_loop()
    def run():
        task = loop.create_task(work())
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
    thread = threading.Thread(target=run)
    thread.start()
    @atexit.register
    def end():
        NAME.ended.append(VERSION)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    """


def test_loop_of_its_own_keeps_no_version(program: Program) -> None:
    """What waits in a loop on a thread that the version has started is ended by the version."""
    ended: list[int] = []
    vars(program.load("NAME"))["ended"] = ended
    program.load("NAME.rules")
    program.write({"NAME/rules.py": LOOP, "NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME.rules").outcome == "committed"
    wait_until(lambda: ended == [-2], what="the task of version 2")
    program.write({"NAME/rules.py": "VERSION = 3\n"})
    assert program.update("NAME.rules").outcome == "committed"
    wait_until(lambda: ended == [-2, 2], what="the end of version 2")
    wait_until(lambda: hotupdate.status().in_use == (), what="no version in use")

"""Units of work keep to one version."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from genwsgi import hotupdate
from tests.helpers import wait_until
from tests.hotupdate.conftest import Program


def renew(program: Program, number: int) -> None:
    """Make the version ``number``."""
    program.write({"NAME/fields.py": f"VERSION = {number}\n"})
    assert program.update("NAME.fields").version == number


def test_pin_keeps_one_version(program: Program) -> None:
    """In a pin every module is of the version that was current when it began; outside, no more."""
    rules, fields = program.load("NAME.rules"), program.load("NAME.fields")
    for number in (1, 2):
        with hotupdate.pin() as version:
            assert version == number
            renew(program, number + 1)
            assert (fields.VERSION, rules.parse()) == (number, (number, number))
        assert (fields.VERSION, rules.parse()) == (number + 1, (number + 1, number + 1))


def test_nested_pin_keeps_the_outer_one(program: Program) -> None:
    """A pin in a pin is of the same version, and goes on when the outer one has ended."""
    rules = program.load("NAME.rules")
    renew(program, 2)
    with contextlib.ExitStack() as outer, contextlib.ExitStack() as inner:
        outer.enter_context(hotupdate.pin())
        renew(program, 3)
        assert inner.enter_context(hotupdate.pin()) == 2
        outer.close()
        gc.collect()
        assert rules.parse() == (2, 2)
    assert rules.parse() == (3, 3)


def test_pin_goes_before_the_code_around_it(program: Program) -> None:
    """A pin in code that is itself of a version means the current one for all that it calls."""
    program.write(
        {
            "NAME/loop.py": """
                import NAME.rules
                from genwsgi import hotupdate
                def loop(wait):
                    while wait():
                        with hotupdate.pin():
                            yield NAME.rules.parse()
                """
        }
    )
    loop = program.load("NAME.loop").loop(lambda: True)
    program.load("NAME.rules")
    assert next(loop) == (1, 1)
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME.fields", "NAME.loop").version == 2
    # Still the first version's code, which was named.
    assert next(loop) == (2, 2)
    loop.close()


def test_threads_are_not_in_the_pin(program: Program) -> None:
    """Work handed to a pool in a pin is not pinned, and can take a pin of its own."""
    rules = program.load("NAME.rules")
    renew(program, 2)

    def pinned() -> tuple:
        with hotupdate.pin() as version:
            return version, rules.parse()

    with ThreadPoolExecutor(1) as pool:
        with hotupdate.pin():
            pool.submit(lambda: rules.parse()).result()
            renew(program, 3)
            assert pool.submit(lambda: rules.parse()).result() == (3, 3)
            assert pool.submit(pinned).result() == (3, (3, 3))
            assert rules.parse() == (2, 2)
        renew(program, 4)
        assert pool.submit(lambda: rules.parse()).result() == (4, 4)


def test_tasks(program: Program) -> None:
    """Tasks of one loop have each its own pin; one that outlives the pin it began in is free."""
    rules = program.load("NAME.rules")
    seen = []

    async def item(update: asyncio.Event, again: asyncio.Event) -> None:
        with hotupdate.pin():
            seen.append(rules.parse())
            update.set()
            await again.wait()
            seen.append(rules.parse())

    async def child(again: asyncio.Event) -> None:
        await again.wait()
        seen.append(rules.parse())

    async def main() -> None:
        update, again, free = asyncio.Event(), asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(item(update, again))
        await update.wait()
        with hotupdate.pin():
            second = asyncio.create_task(child(free))
        await asyncio.to_thread(renew, program, 2)
        await item(update, update)
        again.set()
        await first
        free.set()
        await second

    asyncio.run(main())
    assert seen == [(1, 1), (2, 2), (2, 2), (1, 1), (2, 2)]


def test_pin_ends_in_another_context(program: Program) -> None:
    """A generator that is closed from somewhere else ends its pin all the same."""
    program.load("NAME.rules")

    def work() -> Generator[int, None, None]:
        with hotupdate.pin() as version:
            yield version

    unit = work()
    next(unit)
    import contextvars

    contextvars.Context().run(unit.close)
    renew(program, 2)
    wait_until(lambda: hotupdate.status().in_use == (), what="version 1 has retired")


def test_versioned(program: Program) -> None:
    """Results are stamped with the version of their rules, whatever becomes current meanwhile."""
    rules = program.load("NAME.rules")
    renew(program, 2)

    @hotupdate.versioned
    def work(then: int) -> tuple:
        renew(program, then)
        return rules.parse()

    @hotupdate.versioned(key="rules")
    def item() -> dict:
        return {"parsed": rules.parse()}

    @hotupdate.versioned
    async def later() -> tuple:
        return rules.parse()

    assert work(3) == hotupdate.Stamped((2, 2), 2)
    assert item() == {"parsed": (3, 3), "rules": 3}
    assert asyncio.run(later()) == ((3, 3), 3)


def test_versioned_code_is_stamped_as_what_it_is(program: Program) -> None:
    """A stamped function in a module with versions bears its own, not the current one."""
    rules = program.load("NAME.rules")
    text = """
        from genwsgi import hotupdate
        @hotupdate.versioned
        def parse():
            return 1
        """
    program.write({"NAME/rules.py": text})
    assert program.update("NAME.rules").version == 2
    old = rules.parse
    program.write({"NAME/rules.py": text + "# changed\n"})
    assert program.update("NAME.rules").version == 3
    assert (old(), rules.parse()) == ((1, 2), (1, 3))


def test_versioned_mistakes() -> None:
    """A generator, and a result that has no place for the stamp, are told plainly."""
    with pytest.raises(TypeError, match="is a generator: stamp the function that uses"):

        @hotupdate.versioned
        def numbers() -> Iterator[int]:
            yield 1

    with pytest.raises(TypeError, match="a result of int has no place for 'rules'"):
        hotupdate.versioned(key="rules")(lambda: 1)()


def test_pin_without_any_update() -> None:
    """In a program that takes no updates a pin is of version 1."""
    with hotupdate.pin() as version:
        assert version == 1
    assert hotupdate.status().in_use == ()
    assert threading.active_count() >= 1


def test_greenlets(program: Program) -> None:
    """Each greenlet of a thread has its own pin."""
    import gevent
    from gevent.event import Event

    rules = program.load("NAME.rules")
    renew(program, 2)
    seen = []
    renewed = Event()

    def item() -> None:
        with hotupdate.pin():
            assert renewed.wait(30)
            seen.append(rules.parse())

    def other() -> None:
        renew(program, 3)
        seen.append(rules.parse())
        renewed.set()

    gevent.joinall([gevent.spawn(item), gevent.spawn(other)], raise_error=True)
    assert seen == [(3, 3), (2, 2)]


def test_pickle(program: Program) -> None:
    """In a pin the objects of its version are pickled and copied, whatever is current."""
    import copy
    import pickle

    program.write(
        {"NAME/rules.py": "from NAME.fields import VERSION\nclass Rule:\n    V = VERSION\n"}
    )
    rules = program.load("NAME.rules")
    renew(program, 2)
    with hotupdate.pin():
        rule = rules.Rule()
        renew(program, 3)
        assert pickle.loads(pickle.dumps(rule)).V == 2
        assert type(copy.deepcopy(rule)) is type(rule)
    rule = rules.Rule()
    assert pickle.loads(pickle.dumps(rule)).V == 3

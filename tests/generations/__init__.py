"""Tests of genwsgi.generations, and what they share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import Event
from genwsgi.generations.switch import Switch

#: Longer than anything here takes, in seconds: a thread that is not back by then hangs.
DEADLINE = 10.0


def ready(number: int, application: Callable[..., Any] | None = None) -> Generation:
    """A generation that waits to be swapped in."""
    generation = Generation(number, f"release {number}")
    generation.application = application
    generation.advance(Event.BUILT)
    return generation


def in_thread(function: Callable[[], object]) -> None:
    """Run ``function`` to its end on another thread; raise what it raises, or if it hangs."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive(), f"{function!r} hangs"
    if raised:
        raise raised[0]


class TrickLock:
    """A lock that does something, once, at the moment that a race needs."""

    def __init__(
        self,
        before: Callable[[], object] | None = None,
        inside: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._before, self._inside, self._after = before, inside, after

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()

    def acquire(self, blocking: bool = True) -> bool:
        """Take it without any trick."""
        return self._lock.acquire(blocking)

    def release(self) -> None:
        """Give it back without any trick."""
        self._lock.release()

    def __enter__(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            in_thread(before)
        self._lock.acquire()
        inside, self._inside = self._inside, None
        if inside is not None:
            inside()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()
        after, self._after = self._after, None
        if after is not None:
            in_thread(after)


def trick(
    switch: Switch,
    before: Callable[[], object] | None = None,
    inside: Callable[[], object] | None = None,
    after: Callable[[], object] | None = None,
) -> None:
    """Have the next one that takes the switch's lock be overtaken.

    :param before: runs on another thread before the lock is taken.
    :param inside: runs on the same thread while it is held, as a finalizer may.
    :param after: runs on another thread right after it was released.
    """
    switch._lock = TrickLock(before, inside, after)  # type: ignore[assignment]

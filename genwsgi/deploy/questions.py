"""What other threads ask of the thread that owns the coordinator's state."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Questions:
    """Functions that wait to be called on the owner's thread.

    :param wake: called by any thread when one waits.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]]]
        self._waiting = queue.SimpleQueue()

    def ask(self, function: Callable[[], T], timeout: float) -> T:
        """Have ``function`` called on the owner's thread, and return what it returns.

        Any thread but the owner's.  What it raises is the owner's to see.

        :param timeout: how long to wait, in seconds.
        :raises TimeoutError: the owner has not answered by then.
        """
        answer: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._waiting.put((function, answer))
        self._wake()
        try:
            return answer.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no answer within {timeout:g} s") from None

    def answer(self) -> None:
        """Answer what waits.  The owner's thread."""
        while True:
            try:
                function, answer = self._waiting.get_nowait()
            except queue.Empty:
                return
            answer.put(function())

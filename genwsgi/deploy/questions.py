"""What other threads ask of the thread that owns the coordinator's state."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # another one until 3.11
from typing import Any, TypeVar

T = TypeVar("T")


class Questions:
    """Functions that wait to be called on the owner's thread.

    :param wake: called by any thread when one waits.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]
        self._waiting = queue.SimpleQueue()

    def ask(self, function: Callable[[], T], timeout: float) -> T:
        """Have ``function`` called on the owner's thread, and return what it returns.

        Any thread but the owner's.  What it raises is raised here, and does not disturb the owner.

        :param timeout: how long to wait, in seconds.
        :raises TimeoutError: the owner has not answered by then.
        """
        answer: Future[T] = Future()
        self._waiting.put((function, answer))
        self._wake()
        try:
            return answer.result(timeout)
        except FutureTimeout:
            raise TimeoutError(f"no answer within {timeout:g} s") from None

    def answer(self) -> None:
        """Answer what waits.  The owner's thread."""
        while True:
            try:
                function, answer = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answer.set_result(function())
            except Exception as error:  # noqa: BLE001 -- it is raised where it was asked for
                answer.set_exception(error)

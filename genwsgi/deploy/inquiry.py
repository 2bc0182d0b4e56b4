"""Questions to several workers at once: who has answered, and until when to wait for the others.

Pure: the time comes with each call, in seconds of a monotonic clock.  One thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Inquiry:
    kind: type
    waiting: set[int]
    deadline: float
    then: Callable[[dict[int, Any]], None]
    answers: dict[int, object] = field(default_factory=dict)


class Inquiries:
    """The questions that are not answered by all."""

    def __init__(self) -> None:
        self._open: list[_Inquiry] = []

    def ask(
        self,
        workers: Iterable[int],
        kind: type[T],
        deadline: float,
        then: Callable[[dict[int, T]], None],
    ) -> None:
        """Wait until each of ``workers`` has sent a message of ``kind``, or is gone.

        :param then: called once with the answers by their workers, when all are there or it is
            ``deadline``; at once, if nobody is to be waited for.
        """
        inquiry = _Inquiry(kind, set(workers), deadline, then)
        self._open.append(inquiry)
        self._conclude(lambda one: one is inquiry and not one.waiting)

    def hear(self, worker: int, message: object) -> None:
        """``worker`` has sent ``message``: perhaps an answer."""
        for inquiry in self._open:
            if worker in inquiry.waiting and type(message) is inquiry.kind:
                inquiry.waiting.remove(worker)
                inquiry.answers[worker] = message
        self._conclude(lambda one: not one.waiting)

    def lost(self, worker: int) -> None:
        """``worker`` is gone, and answers no more."""
        for inquiry in self._open:
            inquiry.waiting.discard(worker)
        self._conclude(lambda one: not one.waiting)

    def tick(self, now: float) -> None:
        """Wait no longer for what is due."""
        self._conclude(lambda one: now >= one.deadline)

    def next_deadline(self) -> float | None:
        """When :meth:`tick` will have something to do; None: not by itself."""
        return min((one.deadline for one in self._open), default=None)

    def _conclude(self, due: Callable[[_Inquiry], bool]) -> None:
        ended = [one for one in self._open if due(one)]
        self._open = [one for one in self._open if one not in ended]
        for one in ended:
            one.then(one.answers)

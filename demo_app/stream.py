"""A body that lasts: server-sent events, one each interval."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping


class Stream:
    """Yields one event each interval until its time is over or it is closed.

    An object and not a generator: a generator that waits can't be closed by another thread, and
    this ends at once when it is.

    :param state: what every event carries beside its number.
    :param seconds: how long it lasts; ``None``: until it is closed.
    :param interval: seconds from one event to the next.
    """

    def __init__(
        self, state: Mapping[str, object], seconds: float | None = None, interval: float = 1.0
    ) -> None:
        self._state = state
        self._seconds = seconds
        self._interval = interval
        self._begun: float | None = None
        self._count = 0
        self._over = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._over.is_set():
            raise StopIteration
        if self._begun is None:
            self._begun = time.monotonic()
        last = self._begun + self._seconds if self._seconds is not None else float("inf")
        due = self._begun + self._count * self._interval
        if self._over.wait(max(0.0, min(due, last) - time.monotonic())):
            raise StopIteration
        if due < last:
            event = "tick"
            self._count += 1
        else:
            # The last event tells a client that it has the whole stream.
            event = "end"
            self._over.set()
        data = json.dumps({"events": self._count, **self._state})
        return f"event: {event}\ndata: {data}\n\n".encode()

    def close(self) -> None:
        """End it, also while another thread waits for its next event.  Any thread, any number."""
        self._over.set()

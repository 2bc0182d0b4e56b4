"""The switch: which generation a request gets, and when a generation is let go.

One lock per switch guards the pointer to the current generation and, of every generation that
belongs to the switch, its state and its open leases.  It is held for a few pointer operations,
never while application code or a callback runs: a method decides under the lock what is to be torn
down and calls ``on_retire`` after releasing it.

The garbage collector may run finalizers anywhere, in this module's locked sections too.  So a
finalizer that finds the lock taken leaves its lease in a queue, which whoever has the lock empties
after it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from genwsgi.errors import GenwsgiError
from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Lease
from genwsgi.generations.lifecycle import Event, State


@dataclass(frozen=True)
class Statistics:
    """What a switch holds at one moment.

    :ivar current: number of the current generation, or ``None`` before the first swap.
    :ivar leases: open leases by generation number, of the current and of all draining generations.
    :ivar swaps: how many swaps there have been.
    """

    current: int | None
    leases: dict[int, int]
    swaps: int


class Switch:
    """Gives each request the current generation, and lets the others drain.

    :param on_retire: called once for each generation that has been replaced and has no open lease
        left, on the thread that ended the last lease or made the swap.  It must return quickly, not
        raise, and wait for no lock: a finalizer may be what ends a lease.
    """

    def __init__(self, on_retire: Callable[[Generation], None]) -> None:
        self._lock = threading.Lock()
        self._on_retire = on_retire
        self._current: Generation | None = None
        self._draining: set[Generation] = set()
        self._dropped: deque[Lease] = deque()
        self._swaps = 0

    def __repr__(self) -> str:
        return f"<Switch on {self._current!r}, {len(self._draining)} draining>"

    @property
    def current(self) -> Generation | None:
        """The generation that new requests get."""
        return self._current

    def draining(self) -> list[Generation]:
        """The replaced generations that still have leases, oldest first.  Any thread may ask."""
        with self._locked():
            return sorted(self._draining, key=lambda generation: generation.number)

    def lease(self) -> Lease:
        """Take a lease on the current generation.  Any thread may call this.

        :raises GenwsgiError: no generation has been swapped in yet.
        """
        # Every request comes through here: spelt out instead of _locked(), which costs 1.5 us.
        try:
            with self._lock:
                generation = self._current
                if generation is None:
                    raise GenwsgiError("no generation is current yet: swap one in before serving")
                return generation.leases.take(generation)
        finally:
            if self._dropped:
                self._end_dropped()

    def end(self, lease: Lease) -> None:
        """End ``lease``; a draining generation retires with its last one.  Any thread may call it.

        :raises LeaseError: the lease was ended before; nothing is changed.
        """
        try:
            with self._lock:
                retired = self._end(lease)
        finally:
            if self._dropped:
                self._end_dropped()
        if retired:
            self._on_retire(lease.generation)

    def drop(self, lease: Lease) -> None:
        """End ``lease`` from a finalizer: as :meth:`end`, but never waits for the lock."""
        self._dropped.append(lease)
        self._end_dropped()

    def swap(self, generation: Generation) -> Generation | None:
        """Make the ready ``generation`` the current one and return the one it replaces.

        :raises IllegalTransition: ``generation`` is not ready; nothing is changed.
        """
        with self._locked():
            generation.advance(Event.SWAPPED_IN)
            replaced, self._current = self._current, generation
            self._swaps += 1
            retired = replaced is not None and self._replace(replaced)
        if replaced is not None and retired:
            self._on_retire(replaced)
        return replaced

    def close(self) -> None:
        """Let the current generation go as well: it retires with its last lease, or at once."""
        with self._locked():
            replaced, self._current = self._current, None
            retired = replaced is not None and self._replace(replaced)
        if replaced is not None and retired:
            self._on_retire(replaced)

    def statistics(self) -> Statistics:
        """Return what the switch holds now.  Any thread may call this."""
        with self._locked():
            current = self._current
            held = [*self._draining, *([current] if current else [])]
            return Statistics(
                current=current.number if current else None,
                leases={generation.number: len(generation.leases) for generation in held},
                swaps=self._swaps,
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, and after it end what finalizers could not end meanwhile."""
        try:
            with self._lock:
                yield
        finally:
            self._end_dropped()

    def _end_dropped(self) -> None:
        # If somebody else has the lock, that thread (it may be this one) comes here after it.
        while self._dropped and self._lock.acquire(blocking=False):
            retired = []
            try:
                while self._dropped:
                    lease = self._dropped.popleft()
                    if self._end(lease):
                        retired.append(lease.generation)
            finally:
                self._lock.release()
            for generation in retired:
                self._on_retire(generation)

    def _end(self, lease: Lease) -> bool:
        """End ``lease``; say whether its generation has retired with it.  The lock is held."""
        generation = lease.generation
        retired = generation.leases.end(lease) and generation.state is State.DRAINING
        if retired:
            self._leave(generation)
        return retired

    def _replace(self, generation: Generation) -> bool:
        """Begin to drain; say whether there was nothing to wait for.  The lock is held."""
        generation.advance(Event.SWAPPED_OUT)
        self._draining.add(generation)
        if len(generation.leases):
            return False
        self._leave(generation)
        return True

    def _leave(self, generation: Generation) -> None:
        """Take a drained generation off the books.  The lock is held."""
        generation.advance(Event.DRAINED)
        self._draining.remove(generation)

"""The switch: which generation a request gets, and when a generation is let go.

One lock per switch guards the pointer to the current generation and, of every generation that
belongs to the switch, its state and its open leases.  It is held for a few pointer operations,
never while application code or a callback runs: a method decides under the lock what is to be torn
down and calls ``on_retire`` after releasing it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
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
        left, on the thread that ended the last lease or made the swap.  It must return quickly and
        not raise.
    """

    def __init__(self, on_retire: Callable[[Generation], None]) -> None:
        self._lock = threading.Lock()
        self._on_retire = on_retire
        self._current: Generation | None = None
        self._draining: set[Generation] = set()
        self._swaps = 0

    def __repr__(self) -> str:
        return f"<Switch on {self._current!r}, {len(self._draining)} draining>"

    @property
    def current(self) -> Generation | None:
        """The generation that new requests get."""
        return self._current

    def draining(self) -> list[Generation]:
        """The replaced generations that still have leases, oldest first.  Any thread may ask."""
        with self._lock:
            return sorted(self._draining, key=lambda generation: generation.number)

    def lease(self) -> Lease:
        """Take a lease on the current generation.  Any thread may call this.

        :raises GenwsgiError: no generation has been swapped in yet.
        """
        with self._lock:
            generation = self._current
            if generation is None:
                raise GenwsgiError("no generation is current yet: swap one in before serving")
            return generation.leases.take(generation)

    def end(self, lease: Lease) -> None:
        """End ``lease``; a draining generation retires with its last one.  Any thread may call this.

        :raises LeaseError: the lease was ended before; nothing is changed.
        """
        generation = lease.generation
        with self._lock:
            last = generation.leases.end(lease)
            retired = last and generation.state is State.DRAINING
            if retired:
                self._leave(generation)
        if retired:
            self._on_retire(generation)

    def swap(self, generation: Generation) -> Generation | None:
        """Make the ready ``generation`` the current one and return the one it replaces.

        :raises IllegalTransition: ``generation`` is not ready; nothing is changed.
        """
        with self._lock:
            generation.advance(Event.SWAPPED_IN)
            replaced, self._current = self._current, generation
            self._swaps += 1
            retired = replaced is not None and self._replace(replaced)
        if replaced is not None and retired:
            self._on_retire(replaced)
        return replaced

    def close(self) -> None:
        """Let the current generation go as well: it retires with its last lease, or at once."""
        with self._lock:
            replaced, self._current = self._current, None
            retired = replaced is not None and self._replace(replaced)
        if replaced is not None and retired:
            self._on_retire(replaced)

    def statistics(self) -> Statistics:
        """Return what the switch holds now.  Any thread may call this."""
        with self._lock:
            current = self._current
            held = [*self._draining, *([current] if current else [])]
            return Statistics(
                current=current.number if current else None,
                leases={generation.number: len(generation.leases) for generation in held},
                swaps=self._swaps,
            )

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

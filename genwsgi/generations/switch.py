"""The switch: which generation a request gets, and when a generation is let go.

Requests take no lock.  One lock per switch guards the pointer to the current generation, the states
of its generations and which of them drain; it is held for a few pointer operations, never while
application code or a callback runs: a method decides under the lock what is to be torn down and
calls ``on_retire`` after releasing it.

Why a request needs no lock: it first enters its lease and *then* looks whether its generation still
is the current one; a swap first moves the pointer and *then* looks for leases.  So at least one of
them sees the other: the request gives the lease back and takes the next generation, or the swap
leaves the generation to drain.  Likewise at the end: the lease is removed, *then* the state read;
a swap sets the state, *then* looks for leases.  Each of these is one step of an interpreter with a
global lock.

One that is parked is asked by nobody to retire: it drains first.

The garbage collector may run finalizers anywhere, in this module's locked sections too.  So a
finalizer that finds the lock taken leaves the generation in a queue, which whoever has the lock
empties after it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from genwsgi.errors import GenwsgiError
from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Lease
from genwsgi.generations.lifecycle import Event, State

#: Looking it up in its class costs a request 50 ns, up to CPython 3.11.
DRAINING = State.DRAINING

#: What a request is told when there is nothing to serve it with.
NONE_CURRENT = "no generation is current: the first is not ready yet, or all is closed"


@dataclass(frozen=True)
class Statistics:
    """What a switch holds at one moment.

    :ivar current: number of the current generation, or ``None`` before the first swap.
    :ivar leases: open leases by number, of the current, the parked and all draining generations.
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
        self._parked: Generation | None = None
        self._draining: set[Generation] = set()
        self._drained: deque[Generation] = deque()
        self._swaps = 0

    def __repr__(self) -> str:
        return f"<Switch on {self._current!r}, {len(self._draining)} draining>"

    @property
    def current(self) -> Generation | None:
        """The generation that new requests get."""
        return self._current

    @property
    def parked(self) -> Generation | None:
        """The replaced generation that is kept ready to be current again."""
        return self._parked

    def draining(self) -> list[Generation]:
        """The replaced generations that still have leases, oldest first.  Any thread may ask."""
        with self._locked():
            return sorted(self._draining, key=lambda generation: generation.number)

    def held(self) -> list[Generation]:
        """Those that drain, the parked one and the current one.  Any thread may ask."""
        with self._locked():
            return self._held()

    def _held(self) -> list[Generation]:
        return [*self._draining, *(one for one in (self._parked, self._current) if one)]

    def lease(self) -> Lease:
        """Take a lease on the current generation.  Any thread may call this.

        :raises GenwsgiError: no generation has been swapped in yet.
        """
        while True:
            generation = self._current
            if generation is None:
                raise GenwsgiError(NONE_CURRENT)
            lease = generation.leases.take(generation)
            if self._current is generation:
                return lease
            self.end(lease)  # a swap overtook it

    def end(self, lease: Lease) -> None:
        """End ``lease``: see :meth:`leave`."""
        self.leave(lease.generation, lease.since)

    def leave(self, generation: Generation, since: float) -> None:
        """End the lease on ``generation`` that was taken at ``since``.  Any thread may call this.

        A draining generation retires with its last one.

        :raises LeaseError: the lease was ended before; nothing is changed.
        """
        generation.leases.end(since)
        if generation.state is DRAINING:
            self.let_go(generation)

    def let_go(self, generation: Generation) -> None:
        """A lease on ``generation``, which drains, has ended: it retires if that was the last."""
        with self._locked():
            retired = self._leave_if_drained(generation)
        if retired:
            self._on_retire(generation)

    def drop(self, generation: Generation, since: float) -> None:
        """End a lease from a finalizer: as :meth:`leave`, but never waits for the lock."""
        generation.leases.end(since)
        if generation.state is DRAINING:
            self._drained.append(generation)
            self._let_drained_go()

    def look_after(self, generation: Generation) -> None:
        """Let ``generation`` retire if it drains and has no lease left, should nobody have seen."""
        self._drained.append(generation)
        self._let_drained_go()

    def swap(self, generation: Generation, *, park: bool = False) -> Generation | None:
        """Make the ready, or parked, ``generation`` the current one; return the one it replaces.

        One that was parked and is not ``generation`` begins to drain.

        :param park: keep the replaced one ready to be swapped in again, until :meth:`unpark`.
        :raises IllegalTransition: ``generation`` is not ready; nothing is changed.
        """
        with self._locked():
            generation.advance(Event.SWAPPED_IN)
            generation.replaced = None
            parked, self._parked = self._parked, None
            replaced, self._current = self._current, generation
            self._swaps += 1
            leaving = [parked] if parked is not generation else []
            if park and replaced is not None:
                replaced.advance(Event.PARKED)
                replaced.replaced = monotonic()
                self._parked = replaced
            else:
                leaving.append(replaced)
            retired = self._replace(leaving)
        self._retire(retired)
        return replaced

    def unpark(self) -> None:
        """Let the parked generation go, if there is one: it drains."""
        with self._locked():
            parked, self._parked = self._parked, None
            retired = self._replace([parked])
        self._retire(retired)

    def close(self) -> None:
        """Let the current generation go as well: it retires with its last lease, or at once."""
        with self._locked():
            leaving = [self._parked, self._current]
            self._parked = self._current = None
            retired = self._replace(leaving)
        self._retire(retired)

    def statistics(self) -> Statistics:
        """Return what the switch holds now.  Any thread may call this."""
        with self._locked():
            current = self._current
            return Statistics(
                current=current.number if current else None,
                leases={one.number: len(one.leases) for one in self._held()},
                swaps=self._swaps,
            )

    def after_fork(self) -> None:
        """Go on in a child that was forked, where nobody is left who holds the lock.

        That thread may have been between two of the steps: then a generation may be left that never
        drains here.  Leases, and which generation is current, are right after each single step.
        """
        self._lock = threading.Lock()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, and after it end what finalizers could not let go meanwhile."""
        try:
            with self._lock:
                yield
        finally:
            self._let_drained_go()

    def _let_drained_go(self) -> None:
        # If somebody else has the lock, that thread (it may be this one) comes here after it.
        while self._drained and self._lock.acquire(blocking=False):
            retired = []
            try:
                while self._drained:
                    generation = self._drained.popleft()
                    if self._leave_if_drained(generation):
                        retired.append(generation)
            finally:
                self._lock.release()
            self._retire(retired)

    def _replace(self, leaving: list[Generation | None]) -> list[Generation]:
        """Have ``leaving`` begin to drain; return those that have drained.  The lock is held."""
        retired = []
        for generation in leaving:
            if generation is not None:
                generation.advance(Event.SWAPPED_OUT)
                generation.replaced = monotonic()
                self._draining.add(generation)
                if self._leave_if_drained(generation):
                    retired.append(generation)
        return retired

    def _retire(self, retired: Iterable[Generation]) -> None:
        for generation in retired:
            self._on_retire(generation)

    def _leave_if_drained(self, generation: Generation) -> bool:
        """Take a draining generation without leases off the books; say whether it was.

        The lock is held.  Of several ends that saw it drain, the first one here is the one.
        """
        if generation.state is not DRAINING or len(generation.leases):
            return False
        generation.advance(Event.DRAINED)
        self._draining.remove(generation)
        return True

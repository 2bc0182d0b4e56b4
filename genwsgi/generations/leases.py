"""Leases: who still needs a generation, each ended exactly once.

The holders are a set of identities and not a counter, so that ending a lease twice is an error with
a name instead of a generation that retires under a running request.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from genwsgi.errors import LeaseError

if TYPE_CHECKING:
    from genwsgi.generations.generation import Generation


class Lease:
    """One request's hold on a generation, from the call until its response body is closed.

    :ivar generation: what the request runs on.
    :ivar since: when the lease was taken, on the monotonic clock, in seconds.
    """

    __slots__ = ("generation", "since")

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.since = monotonic()

    def __repr__(self) -> str:
        return f"<Lease on {self.generation.name}, open for {monotonic() - self.since:.3f} s>"


class Leases:
    """The open leases of one generation.  Any thread may call every method, without a lock.

    Adding to a set, removing from it and asking for its length are each one step that no other
    thread comes between; :mod:`genwsgi.generations.switch` says why that is enough.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: set[Lease] = set()

    def take(self, generation: Generation) -> Lease:
        """Open a lease."""
        lease = Lease(generation)
        self._open.add(lease)
        return lease

    def end(self, lease: Lease) -> None:
        """End ``lease``.

        :raises LeaseError: it is not open here; nothing was changed.
        """
        try:
            self._open.remove(lease)
        except KeyError:
            raise LeaseError(
                f"{lease!r} is not open: it was ended before; end each lease once"
            ) from None

    def __len__(self) -> int:
        return len(self._open)

    def oldest(self) -> float | None:
        """When the oldest open lease was taken (monotonic seconds), or ``None``."""
        # A copy in one C call: requests come and go meanwhile.
        return min((lease.since for lease in self._open.copy()), default=None)

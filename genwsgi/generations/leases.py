"""Leases: who still needs a generation, each ended exactly once.

The holders are kept one by one and not counted, so that ending a lease twice is an error with a
name instead of a generation that retires under a running request.

A lease is named by its generation and by the time when it was taken.  A request has no object for
it: the two are variables of the middleware, and then in what the server gets as its body.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import compress, starmap
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from genwsgi.errors import LeaseError
from genwsgi.interrupt import without_finalizers

if TYPE_CHECKING:
    from genwsgi.generations.generation import Generation


class Lease:
    """A hold on a generation of what is no request: a unit of work, somebody who looks into it.

    :ivar generation: what it is on.
    :ivar since: when it was taken, on the monotonic clock, in seconds.
    """

    __slots__ = ("generation", "since")

    def __init__(self, generation: Generation, since: float) -> None:
        self.generation = generation
        self.since = since

    def __repr__(self) -> str:
        return f"<Lease on {self.generation.name}, open for {monotonic() - self.since:.3f} s>"


class Open(NamedTuple):
    """A lease that is open.

    :ivar since: when it was taken, on the monotonic clock, in seconds.
    :ivar environ: the request's (PEP 3333); ``None`` for what is no request.
    """

    since: float
    environ: Mapping[str, Any] | None

    @property
    def request(self) -> str:
        """The request's method and path as its first line had them, or nothing.

        Any thread may ask: the application may be changing the environ at this moment.
        """
        environ = self.environ
        if environ is None:
            return ""
        # Code that hands a request on moves parts of the path from the second into the first.
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        quoted = quote(path, safe="/:@!$&'()*+,;=~", encoding="latin-1", errors="replace")
        return f"{environ.get('REQUEST_METHOD', '')} {quoted}".strip()


class Leases:
    """The open leases of one generation.  Any thread may call every method, without a lock.

    Adding to a dict, removing from it and asking for its length are each one step that no other
    thread comes between; :mod:`genwsgi.generations.switch` says why that is enough.

    :ivar taken: the time at which each was taken, and whose it is: a request's environ, or any
        other object that holds no other lease.  The middleware writes here by itself, because a
        call more would cost each request as much as all that this does.
    """

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken: dict[float, object] = {}

    def take(self, generation: Generation) -> Lease:
        """Open a lease for what is no request."""
        lease = Lease(generation, monotonic())
        # Two may come at the same time: then the second one finds the first.
        while self.taken.setdefault(lease.since, lease) is not lease:
            lease.since = monotonic()
        return lease

    def end(self, since: float) -> None:
        """End the lease that was taken at ``since``.

        :raises LeaseError: it is not open here; nothing was changed.
        """
        try:
            del self.taken[since]
        except KeyError:
            raise LeaseError(
                f"the lease of {monotonic() - since:.3f} s ago is not open: it was ended before;"
                " end each lease once"
            ) from None

    def __len__(self) -> int:
        return len(self.taken)

    def open(self) -> list[Open]:
        """The leases that are open now."""
        # A copy in one C call: requests come and go meanwhile.
        taken = self.taken.copy()
        return [
            Open(since, whose if isinstance(whose, dict) else None)
            for since, whose in taken.items()
        ]

    def while_open(self, since: float, act: Callable[..., object], *args: object) -> None:
        """Call ``act(*args)`` if the lease taken at ``since`` is open, in one step with that look.

        That is so if ``act`` is a function in C: from the look to its beginning no Python code
        runs, and so no other thread comes between.
        """
        with without_finalizers():
            chosen = compress((args,), map(self.taken.__contains__, (since,)))
            deque(starmap(act, chosen), maxlen=0)

    def oldest(self) -> Open | None:
        """Return the open lease that was taken first, or ``None``."""
        return min(self.open(), key=lambda lease: lease.since, default=None)

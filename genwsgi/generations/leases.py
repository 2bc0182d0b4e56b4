"""Leases: who still needs a generation, each ended exactly once.

The holders are a set of identities and not a counter, so that ending a lease twice is an error with
a name instead of a generation that retires under a running request.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from genwsgi.errors import LeaseError

if TYPE_CHECKING:
    from genwsgi.generations.generation import Generation


class Lease:
    """One request's hold on a generation, from the call until its response body is closed.

    :ivar generation: what the request runs on.
    :ivar since: when the lease was taken, on the monotonic clock, in seconds.
    :ivar environ: the request's (PEP 3333); ``None`` for what is no request.
    """

    __slots__ = ("environ", "generation", "since")

    def __init__(self, generation: Generation, environ: Mapping[str, Any] | None = None) -> None:
        self.generation = generation
        self.environ = environ
        self.since = monotonic()

    def __repr__(self) -> str:
        return f"<Lease on {self.generation.name}, open for {monotonic() - self.since:.3f} s>"

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

    Adding to a set, removing from it and asking for its length are each one step that no other
    thread comes between; :mod:`genwsgi.generations.switch` says why that is enough.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: set[Lease] = set()

    def take(self, generation: Generation, environ: Mapping[str, Any] | None = None) -> Lease:
        """Open a lease, for the request with ``environ`` if there is one."""
        lease = Lease(generation, environ)
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

    def oldest(self) -> Lease | None:
        """The open lease that was taken first, or ``None``."""
        # A copy in one C call: requests come and go meanwhile.
        return min(self._open.copy(), key=lambda lease: lease.since, default=None)

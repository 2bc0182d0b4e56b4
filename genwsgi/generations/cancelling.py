"""How the requests of a replaced generation are ended before their time.

What is guaranteed: nothing happens to any other request.  A thread serves one request after the
other, so whatever is done to it, or to its connection, is done in one step with the look whether
the lease still is open (:meth:`~genwsgi.generations.leases.Leases.while_open`).  And it is done
once: what is raised just before the end of a lease may leave it open although its request is over.

What is not: that a request ends.  Code that is blocked in C raises when it comes back, code that
catches whatever is raised goes on, a thread is let alone where :mod:`genwsgi.interrupt` says that a
lock would stay taken, and a greenlet that never gives up the processor lets nobody come near it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from types import FrameType
from typing import Final

from genwsgi.errors import RequestCancelled
from genwsgi.generations import middleware
from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Open
from genwsgi.generations.switch import Switch
from genwsgi.interrupt import Own, may_raise, raise_if_at

log = logging.getLogger("genwsgi")

#: How long a request may take to end, in seconds.
WITHIN: Final = 2.0

#: What refers to the time of a lease if nobody can end it any more: the open leases, those of a
#: cancellation, and the argument of getrefcount().
_FORGOTTEN: Final = 3

#: Closes the connection of a request, or raises in whatever runs it.  Returns whether that is done,
#: or is to be tried again; the last argument is whether half of the time for that is over.
Means = Callable[[Generation, Open, bool], bool]


class Cancellation:
    """Ends the requests that hold ``generation`` now.

    One thread at a time, and one that serves no requests.

    :param means: used one after the other with each request.
    """

    def __init__(self, switch: Switch, generation: Generation, means: tuple[Means, ...]) -> None:
        self._switch = switch
        self._generation = generation
        self._left = generation.leases.open()
        self._count = len(self._left)
        self._deadline = monotonic() + WITHIN
        self._pending = [(lease, end) for lease in self._left for end in means]
        for lease in self._left:
            log.warning("%s of %s is cancelled", lease.request or "a call", generation.name)
        self._end()

    @property
    def generation(self) -> int:
        """The generation's number."""
        return self._generation.number

    @property
    def left(self) -> int:
        """How many of the requests go on."""
        return len(self._left)

    @property
    def ended(self) -> int:
        """How many of them have ended."""
        return self._count - len(self._left)

    def step(self) -> bool:
        """Look what has ended; return whether that is all.  To be called again soon if not."""
        leases, drop = self._generation.leases, self._switch.drop
        self._end()
        for lease in self._left:
            # What was raised may have come between the request and the end of its lease.
            if sys.getrefcount(lease.since) <= _FORGOTTEN:
                leases.while_open(lease.since, drop, self._generation, lease.since)
        self._left = [lease for lease in self._left if lease.since in leases.taken]
        # Or between that and the look whether it was the last one.
        self._switch.look_after(self._generation)
        return not self._left or monotonic() >= self._deadline

    def _end(self) -> None:
        """Use the means that have not done anything yet."""
        late = monotonic() >= self._deadline - WITHIN / 2
        self._pending = [
            (lease, end)
            for lease, end in self._pending
            if lease.since in self._generation.leases.taken
            and not end(self._generation, lease, late)
        ]


def raise_in_thread(own: Own, generation: Generation, lease: Open, late: bool) -> bool:
    """Raise :class:`~genwsgi.errors.RequestCancelled` in the application's code for ``lease``.

    :param own: what is the application's code.
    """
    frames = sys._current_frames()
    del frames[get_ident()]  # this one, which would hold itself, and the lease
    raised: list[int] = []
    for ident, frame in frames.items():
        if runs(frame, generation, lease) and may_raise(frame, own, late=late):
            found = raise_if_at(frame, ident, RequestCancelled)
            generation.leases.while_open(lease.since, raised.extend, found)
    return bool(raised)


def runs(frame: FrameType | None, generation: Generation, lease: Open) -> bool:
    """Whether the application's code for ``lease`` is on the stack that ends with ``frame``."""
    while frame is not None:
        if frame.f_code.co_filename == middleware.__file__:
            found = frame.f_locals
            body = found.get("self")
            since = found.get("since", getattr(body, "_since", None))
            if since == lease.since and found.get("generation") is generation:
                return True
        frame = frame.f_back
    return False

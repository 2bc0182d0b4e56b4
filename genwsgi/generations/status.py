"""How generations stand, for whoever looks at them: a status page, a log, a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GenerationStatus:
    """How one generation of a process stands.

    :ivar number, release: the generation's.
    :ivar state: "current", "parked", "draining" or, of one that is not gone yet, "retired"; of one
        that never served and is held, "discarded".
    :ivar leases: how many responses it owes.
    :ivar oldest: how long the oldest of these has been owed, in seconds; ``None`` if there is none.
    :ivar holder: what keeps a retired one alive, in words; empty while nothing is known to.
    :ivar request: the request that the oldest response is for, as in ``"GET /shop"``; else empty.
    :ivar age: how long ago it was replaced, in seconds; ``None`` for one that was not.
    """

    number: int
    release: str
    state: str
    leases: int
    oldest: float | None
    holder: str
    request: str = ""
    age: float | None = None

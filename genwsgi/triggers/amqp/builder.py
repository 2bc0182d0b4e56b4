"""What is asked of whoever builds, and what is heard of it.

Plain data, frozen, and the protocol of those who take it; any thread may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Request:
    """An order that is believed.

    :ivar detail: what it is about, for people.
    :ivar path: the real path of the folder to import from first, from now on; empty: as before.
    :ivar modules: what must be in the scope there.
    :ivar hold: hold it for so many seconds when it is ready, until it is requested again without.
    """

    id: str
    detail: str
    path: str = ""
    modules: tuple[str, ...] = ()
    hold: float = 0.0


@dataclass(frozen=True)
class Result:
    """How a request stands: prepared, or ended.

    :ivar outcome: one of :class:`~genwsgi.deploy.protocol.Outcome`.
    :ivar took: in seconds.
    :ivar error: why it failed or was refused, in one line; else what there is to add.
    """

    outcome: str
    release: int | None = None
    generation: int | None = None
    took: float = 0.0
    error: str = ""


class Builder(Protocol):
    """Whoever turns requests into generations: a server's coordinator, or a process by itself.

    :ivar target: what is served, ``MODULE[:NAME]``; empty: nothing, so that no order with a target
        is for it.
    """

    target: str

    def request(self, request: Request, tell: Callable[[Result], None]) -> None:
        """Take a request, and return soon; ``tell`` may be called from any thread.

        It is called with a result that is prepared, at most once, and then with the outcome.  A
        request with the id of one that is held is the word to go live.
        """

    def withdraw(self, order: str, reason: str) -> None:
        """Drop what is held, or being built, for this request."""

    def committed(self) -> int:
        """The number of what is served."""

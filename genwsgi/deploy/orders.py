"""Orders on their way to an outcome: one is served, at most one waits, each is reported once.

Pure, like the coordinator that owns it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from genwsgi.deploy.actions import Order, Report
from genwsgi.deploy.framing import clip
from genwsgi.deploy.protocol import OrderOutcome, Outcome

#: The trigger that orders on its own and so must not retry what failed.
WATCH: Final = "watch"
#: The trigger of the order to leave what has not passed its probation.
PROBATION: Final = "probation"

_MOST_STRETCH: Final = 1024.0


@dataclass(frozen=True)
class Pending:
    """An order without an outcome, with what it took over from those that it superseded.

    :ivar since: when it was given.
    :ivar force: deploy even if the code is the committed code.
    :ivar retry: deploy even if the code failed before.
    :ivar path: folders to import from first, the newest first.
    :ivar hold: how long to wait for the word when all are ready, in seconds.
    :ivar left: the digests that it leaves besides the committed one, if it goes back.
    """

    order: Order
    since: float
    force: bool
    retry: bool
    path: tuple[str, ...] = ()
    hold: float = 0.0
    left: frozenset[str] = frozenset()

    def after(self, older: Pending) -> Pending:
        """This order, now that it supersedes ``older``."""
        return replace(
            self,
            force=self.force or older.force,
            retry=self.retry or older.retry,
            path=ahead(self.path, older.path),
            left=self.left | older.left,
        )


def ahead(newer: tuple[str, ...], older: tuple[str, ...]) -> tuple[str, ...]:
    """The folders ``newer``, then those of ``older`` that are not among them."""
    return tuple(dict.fromkeys((*newer, *older)))


class OrderBook:
    """Which order is served, which one waits, and how the others ended.

    A deploy that holds up an order for longer than it may be expected to take is superseded: longer
    than ``patience``, and twice what the last committed deploy took.  Each deploy that is
    superseded doubles that for the next one, so that a build which takes longer than ever before
    still gets its chance, however many orders come.

    An order to go back supersedes the running deploy at once, and gives way to no order of the file
    watch: what that would deploy may be what is to be left.

    :param patience: in seconds, more than 0.
    """

    def __init__(self, patience: float) -> None:
        self.running: Pending | None = None
        self.waiting: Pending | None = None
        self.last: OrderOutcome | None = None
        self.count = 0
        self._patience = patience
        self._stretch = 1.0
        self._usual = 0.0
        self._waiting_since = 0.0

    def take(self, order: Order, now: float) -> list[Report]:
        """Accept ``order``: it is served next, in the place of an older one that waits.

        But one that is to be held takes the place of no other than such a one.
        """
        self.count += 1
        path = (order.path,) if order.path else ()
        pending = Pending(order, now, order.force, order.trigger != WATCH, path, order.hold)
        older = self.waiting
        if older is not None and pending.hold and not older.hold:
            # Were it called off, neither would be done.
            reason = (
                f"order {older.order.id!r} waits, and this one may be called off: prepare again"
            )
            return [self._report(pending, Outcome.SUPERSEDED, None, reason, now)]
        if older is not None and older.order.back_to and not pending.retry:
            reason = f"order {older.order.id!r} goes back to release {older.order.back_to}"
            return [self._report(pending, Outcome.SUPERSEDED, None, reason, now)]
        self.waiting = pending
        if older is None:
            self._waiting_since = now
            return []
        # The wait goes on: were it the newest order's own, a stream of orders would wait forever.
        self.waiting = pending.after(older)
        return [self._report(older, Outcome.SUPERSEDED, None, f"order {order.id!r} is newer", now)]

    def drop(self, order: str, reason: str, now: float) -> list[Report]:
        """End the order ``order`` if it waits: nobody wants it any more."""
        pending = self.waiting
        if pending is None or pending.order.id != order:
            return []
        self.waiting = None
        return [self._report(pending, Outcome.FAILED, None, reason, now)]

    def leave(self, digests: frozenset[str]) -> None:
        """The waiting order supersedes the deploy of ``digests``, and leaves them if it goes back.

        But what is on its way during a probation may be the mend.
        """
        waiting, running = self.waiting, self.running
        if waiting is None or not waiting.order.back_to or waiting.order.trigger == PROBATION:
            return
        if running is not None and running.order.back_to:
            digests = running.left  # and not what that one was going back to
        self.waiting = replace(waiting, left=waiting.left | digests)

    def let_go(self, order: str) -> None:
        """Have the order ``order`` not be held when it is ready."""
        if self.running is not None and self.running.order.id == order:
            self.running = replace(self.running, hold=0.0)
        if self.waiting is not None and self.waiting.order.id == order:
            self.waiting = replace(self.waiting, hold=0.0)

    def serve(self) -> Pending | None:
        """Make the waiting order the running one, and return it."""
        self.running, self.waiting = self.waiting, None
        return self.running

    def impatient_at(self) -> float | None:
        """When the waiting order may supersede the running one; None: no order waits that may."""
        if self.waiting is None or self.running is None:
            return None
        if self.waiting.order.back_to:
            # Away from what is served, and from what is on its way.
            return self._waiting_since
        if self.running.order.back_to and not self.waiting.retry:
            return None
        if self.waiting.hold and not self.running.hold:
            return None
        return self._waiting_since + self._stretch * max(self._patience, 2 * self._usual)

    def end(
        self,
        outcome: str,
        number: int | None,
        reason: str,
        now: float,
        traceback: str = "",
        seconds: float | None = None,
    ) -> Report:
        """Give the running order its outcome.

        :param seconds: how long its deploy took, if that tells how long deploys take.
        """
        ended, self.running = self.running, None
        assert ended is not None, "only a running order ends"
        if outcome == Outcome.SUPERSEDED:
            self._stretch = min(2 * self._stretch, _MOST_STRETCH)
            self.waiting = self.waiting and self.waiting.after(ended)
        else:
            self._stretch = 1.0
        if seconds is not None:
            self._usual = seconds
        return self._report(ended, outcome, number, reason, now, traceback)

    def _report(
        self,
        pending: Pending,
        outcome: str,
        number: int | None,
        reason: str,
        now: float,
        traceback: str = "",
    ) -> Report:
        order = pending.order
        self.last = OrderOutcome(
            order.id, outcome, number, clip(reason), clip(traceback), now - pending.since
        )
        return Report(order, self.last)

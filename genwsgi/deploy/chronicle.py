"""What the log says of the deploys of a host, step by step.

One thread, the coordinator's.  What each worker does is in the log by the worker itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from genwsgi.deploy.actions import Order
from genwsgi.deploy.protocol import OrderOutcome, Outcome, Release, label
from genwsgi.deploy.running import Deploy, in_words
from genwsgi.isolation.scope import Addition
from genwsgi.steps import step


class Chronicle:
    """Writes down what becomes of each order.

    Times are of a monotonic clock, in seconds.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        # The release that the deploy under way, or the last one, is about.
        self._release: Release | None = None

    def ordered(self, order: Order) -> None:
        """``order`` was given."""
        self._log.info(
            "order %s: %s by %s: %s",
            order.id,
            f"back to release {order.back_to}" if order.back_to else "deploy",
            order.trigger,
            order.detail,
            extra=step("ordered", order=order.id, trigger=order.trigger),
        )

    def grows(self, order: Order, additions: Iterable[Addition]) -> None:
        """The scope was too small for ``order``, and has grown."""
        self._log.info(
            "order %s begins anew, for its scope was too small: %s",
            order.id,
            "; ".join(map(in_words, additions)),
        )

    def read(self, deploy: Deploy | None, now: float) -> None:
        """The source is read for ``deploy``: it is new code, if that has a release now."""
        if deploy is not None and deploy.release is not None:
            self._release = deploy.release
            self._progress("read", "release %s is read after %.3f s", deploy, deploy.release, now)

    def held(self, order: Order) -> None:
        """All are ready for ``order``, which waits for the word."""
        self._log.info(
            "order %s by %s: prepared, and held for the word for %g s at most",
            order.id,
            order.trigger,
            order.hold,
        )

    def ready(self, deploy: Deploy | None, now: float) -> None:
        """All workers are ready to serve what ``deploy`` is about."""
        if deploy is not None and deploy.release is not None:
            text = "release %s is ready in all workers after %.3f s"
            self._progress("ready", text, deploy, deploy.release, now)

    def ended(self, order: Order, outcome: OrderOutcome, committed: Release) -> None:
        """``order`` has its outcome; ``committed`` is what serves now."""
        kind, serves = outcome.outcome, label(committed)
        about = [one for one in (self._release, committed) if one and one.number == outcome.release]
        extra = step(
            kind,
            order=order.id,
            trigger=order.trigger,
            release=label(about[0]) if about else "",
            seconds=outcome.seconds,
        )
        what = f"order {order.id} by {order.trigger}: {kind}"
        if kind == Outcome.COMMITTED:
            note = f"; {outcome.reason}" if outcome.reason else ""
            self._log.info(
                "%s: release %s is live after %.3f s%s",
                what,
                serves,
                outcome.seconds,
                note,
                extra=extra,
            )
        elif kind in (Outcome.FAILED, Outcome.REFUSED):
            trace = f"\n{outcome.traceback}" if outcome.traceback else ""
            self._log.error(
                "%s: %s; release %s serves on%s", what, outcome.reason, serves, trace, extra=extra
            )
        else:
            self._log.info("%s: %s", what, outcome.reason, extra=extra)

    def _progress(self, name: str, text: str, deploy: Deploy, release: Release, now: float) -> None:
        order, seconds = deploy.pending.order, now - deploy.started
        extra = step(
            name, order=order.id, trigger=order.trigger, release=label(release), seconds=seconds
        )
        self._log.info(text, label(release), seconds, extra=extra)

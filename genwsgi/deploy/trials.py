"""Probations: asks the rule as counts come in, and has the host go back from what it condemns.

Belongs to the coordinator's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from genwsgi.deploy.desk import Then
from genwsgi.deploy.orders import PROBATION
from genwsgi.deploy.probation import Probation, Verdict
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import Counts, OrderOutcome, Outcome, Release, label
from genwsgi.deploy.tallies import Tallies

#: After it was left, how long a release is given to end its requests before they are told, in
#: seconds.
SETTLED: Final = 2.0

#: Before the attempt to go back that has failed is made again, in seconds: first and longest.
AGAIN: Final = (2.0, 300.0)


@dataclass
class _Condemned:
    """A release that is to be left, and is served until that is done.

    :ivar to: the number of the release to go back to; None: the one before.
    :ivar ordered: when the order to go back was given, the last time.
    :ivar pause: how long to wait if it fails, in seconds.
    :ivar again_at: when to give it again; None: how it ends is not known, or it is of no use.
    """

    release: str
    to: int | None
    reason: str
    ordered: float
    pause: float
    again_at: float | None = None


class Trials:
    """Watches what becomes of the requests that the committed release gets.

    :param probation: the rule; ``None``: nothing is watched.
    :param tallies: what has become of the requests, as the workers have told.
    :param committed: the release that is committed.
    :param go_back: orders to go back to the release of a number, or the one before; the text says
        why, and the function is told how that ends.
    :param problems: where to note that it can't be done.
    :param idle: says whether no deploy runs: one that does may bring what mends the release.
    """

    def __init__(
        self,
        probation: Probation | None,
        tallies: Tallies,
        committed: Release,
        go_back: Callable[[int | None, str, Then], object],
        problems: ProblemBook,
        idle: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        self._probation = probation
        self._tallies = tallies
        self._release = committed
        self._before: int | None = None
        self._go_back = go_back
        self._problems = problems
        self._idle = idle
        self._log = log
        self._condemned: _Condemned | None = None
        # What was condemned and left, and when its failures will be told.
        self._left: tuple[str, float] | None = None

    @property
    def deadline(self) -> float | None:
        """When :meth:`tick` will have something to do, on the monotonic clock; None: not."""
        running = None if self._probation is None else self._probation.deadline
        moments = [
            running,
            None if self._left is None else self._left[1],
            None if self._condemned is None else self._condemned.again_at,
        ]
        return min((moment for moment in moments if moment is not None), default=None)

    def standing(self, now: float) -> str:
        """How the running probation stands, in one line; empty: none runs."""
        if self._probation is None or self._probation.deadline is None:
            return ""
        tally = self._tallies.of(self._probation.release)
        left = max(0.0, self._probation.deadline - now)
        return (
            f"release {self._probation.release} is on probation for {left:.0f} s more: it has"
            f" failed {tally.failed} of {tally.requests} requests"
        )

    def committed(self, release: Release, now: float) -> None:
        """``release`` is the committed one from now on."""
        before, self._release = self._release, release
        self._before = before.number
        self._condemned = None
        self._problems.end(PROBATION)
        if self._probation is None:
            return
        if release.back_to is None:
            self._probation.begin(label(release), label(before), now)
        else:
            self._probation.end(label(release), now)
            if release.trigger == PROBATION:
                self._left = label(before), now + SETTLED

    def heard(self, counts: Counts, now: float) -> None:
        """A worker has told what became of requests, and the tallies know."""
        if self._probation is not None and counts.left > 0:
            self._probation.resume(label(self._release), counts.left, now)
        self._judge(now)

    def tick(self, now: float) -> None:
        """Time has passed.  Due at :attr:`deadline`; more often does no harm."""
        if self._left is not None and now >= self._left[1]:
            release, self._left = self._left[0], None
            tally = self._tallies.of(release)
            self._log.warning(
                "release %s is left: in all it has failed %d of %d requests",
                release,
                tally.failed,
                tally.requests,
            )
        running = None if self._probation is None else self._probation.deadline
        if running is not None and now >= running:
            self._judge(now)
        condemned = self._condemned
        if condemned is None or condemned.again_at is None or now < condemned.again_at:
            return
        if self._idle():
            condemned.pause = min(2 * condemned.pause, AGAIN[1])
            self._leave(condemned, now)
        else:
            condemned.again_at = now + AGAIN[0]

    def _judge(self, now: float) -> None:
        if self._probation is None:
            return
        release = label(self._release)
        verdict = self._probation.hear(release, self._tallies.of(release), now)
        if verdict is not None:
            self._act_on(verdict, now)

    def _act_on(self, verdict: Verdict, now: float) -> None:
        if verdict.passed:
            self._log.info("%s", verdict.reason)
        else:
            self._log.error("%s", verdict.reason)
            self._condemned = _Condemned(
                verdict.release, self._before, verdict.reason, now, AGAIN[0]
            )
            self._leave(self._condemned, now)

    def _leave(self, condemned: _Condemned, now: float) -> None:
        condemned.ordered, condemned.again_at = now, None
        self._go_back(
            condemned.to, condemned.reason, lambda outcome: self._ended(condemned, outcome)
        )

    def _ended(self, condemned: _Condemned, outcome: OrderOutcome) -> None:
        """The order to leave ``condemned`` has ended."""
        if self._condemned is not condemned or outcome.outcome == Outcome.COMMITTED:
            return
        advice = "deploy what mends it"
        if outcome.outcome in (Outcome.FAILED, Outcome.SUPERSEDED):
            condemned.again_at = condemned.ordered + outcome.seconds + condemned.pause
            advice = f"it is tried again and again; or {advice}"
        self._problems.begin(
            PROBATION,
            f"release {condemned.release} has failed its probation and is served on, for to go back"
            f" is {outcome.outcome}: {outcome.reason}; {advice}",
            logged=True,
        )

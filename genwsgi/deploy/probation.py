"""Whether a release is kept: what becomes of its requests in the time after its commit.

Pure: no clock, no socket.  Inputs are method calls that carry the time, in seconds of a monotonic
clock.  One thread at a time.

The rule: of the requests that the new release got, on all workers together, more than a part
``rate`` have failed, and at least :data:`FEWEST` have; and the release before it had not done the
same in as much time before the commit.  Whatever makes both fail (a database that is away) is not
the new code's doing, and going back would not help.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from genwsgi.generations.counts import Tally

#: So many requests must have failed before a release is condemned.  One or two may be a strange
#: client's, or what a cold cache costs once; where nearly every request fails these come at once,
#: and where few requests come they need not wait for a number that would make a rate precise.
FEWEST: Final = 5

#: Of what a release comes to, no more is kept than twice in this time, in seconds.
SPACING: Final = 0.25


@dataclass(frozen=True)
class Verdict:
    """How a probation ended.

    :ivar release: the release, as its label.
    :ivar passed: whether it is kept.
    :ivar reason: one line with the counts.
    """

    release: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class _Trial:
    """A probation that runs.

    :ivar earlier: what the release ``before`` it had come to, in as much time before the commit.
    """

    release: str
    before: str
    earlier: Tally
    since: float


class Probation:
    """Watches the releases of one host.

    :param seconds: how long after its commit a release is watched.
    :param rate: which part of its requests may fail.
    """

    def __init__(self, seconds: float, rate: float) -> None:
        self._seconds = seconds
        self._rate = rate
        # What the committed release had come to, and when; the first is older than `seconds`, or
        # the first that is known.
        self._of = ""
        self._samples: deque[tuple[float, Tally]] = deque()
        # The release whose commit is known, and so whether it is to be watched.
        self._known = ""
        self._trial: _Trial | None = None

    @property
    def release(self) -> str:
        """The release that is watched; empty: none is."""
        return "" if self._trial is None else self._trial.release

    @property
    def deadline(self) -> float | None:
        """When the running probation is over; None: none runs."""
        return None if self._trial is None else self._trial.since + self._seconds

    def begin(self, release: str, before: str, now: float) -> None:
        """``release`` was committed in the place of ``before``, and is watched."""
        known = self._of == before and self._samples
        earlier = self._samples[-1][1] - self._samples[0][1] if known else Tally()
        self.end(release, now)
        self._trial = _Trial(release, before, earlier, now)

    def end(self, release: str, now: float) -> None:
        """``release`` was committed and is not watched, nor is the one before it any longer."""
        self._trial = None
        self._known = self._of = release
        self._samples = deque([(now, Tally())])

    def resume(self, release: str, left: float, now: float) -> None:
        """Watch ``release`` for the ``left`` seconds that are left of its probation.

        The coordinator that began it has died.  Nothing happens if this one knows of the commit.
        """
        if self._known != release:
            self.begin(release, "", now - max(0.0, self._seconds - left))

    def hear(self, release: str, tally: Tally, now: float) -> Verdict | None:
        """The committed ``release`` has come to ``tally``.

        :returns: how its probation ended, once; None: it goes on, or there is none.
        """
        if self._of != release:
            self._of, self._samples = release, deque()
        if len(self._samples) > 1 and now < self._samples[-2][0] + SPACING:
            self._samples.pop()
        self._samples.append((now, tally))
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._seconds:
            self._samples.popleft()
        if self._trial is None or self._trial.release != release:
            return None
        return self._judge(self._trial, tally, now)

    def _judge(self, trial: _Trial, tally: Tally, now: float) -> Verdict | None:
        seconds = now - trial.since
        bad, so_before = self._too_many(tally), self._too_many(trial.earlier)
        counts = f"{tally.failed} of the {tally.requests} requests of its first {seconds:.1f} s"
        earlier = f"{trial.before or 'the one before'} had failed {trial.earlier.failed} of"
        earlier += f" {trial.earlier.requests}"
        if bad and not so_before:
            self._trial = None
            reason = (
                f"release {trial.release} has failed {counts}, more than {100 * self._rate:.3g} %"
            )
            return Verdict(trial.release, False, f"{reason}; {earlier}")
        if seconds < self._seconds:
            return None
        self._trial = None
        reason = f"release {trial.release} has passed its probation: it has failed {counts}"
        return Verdict(trial.release, True, f"{reason}, but {earlier}" if bad else reason)

    def _too_many(self, tally: Tally) -> bool:
        return tally.failed >= FEWEST and tally.failed > self._rate * tally.requests

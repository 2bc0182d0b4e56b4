"""Times counted in buckets whose width grows with the time, so that one says as much of any."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

#: Buckets for each doubling of a time: a bucket is 2.2 % wide.
PER_OCTAVE = 32

#: The shortest time that is told from none, in seconds.
SHORTEST = 1e-6


class Histogram:
    """How many times were how long, to within 2.2 %; the longest is kept as it is.

    :ivar counts: bucket → how many.
    :ivar longest: in seconds.
    """

    def __init__(self, counts: Mapping[int, int] | None = None, longest: float = 0.0) -> None:
        self.counts: Counter[int] = Counter(counts or {})
        self.longest = longest

    def add(self, seconds: float) -> None:
        """Count one time."""
        bucket = round(math.log2(max(seconds, SHORTEST) / SHORTEST) * PER_OCTAVE)
        self.counts[bucket] += 1
        self.longest = max(self.longest, seconds)

    @property
    def total(self) -> int:
        """How many times were counted."""
        return self.counts.total()

    def quantile(self, share: float) -> float:
        """Return the time, in seconds, that ``share`` of all were not longer than.

        :param share: 0.5 for the median; 1 for the longest.
        :return: 0 if nothing was counted.
        """
        needed = share * self.total
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= needed and share < 1:
                return min(SHORTEST * 2 ** (bucket / PER_OCTAVE), self.longest)
        return self.longest

    def curve(self) -> list[tuple[float, float]]:
        """Return each bucket's time, in seconds, and the share of all that is no longer."""
        points, seen = [], 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            points.append((SHORTEST * 2 ** (bucket / PER_OCTAVE), seen / self.total))
        return points

    def to_json(self) -> dict[str, object]:
        """Return it as what JSON can hold."""
        counts = {str(bucket): count for bucket, count in sorted(self.counts.items())}
        return {"longest": self.longest, "counts": counts}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Histogram:
        """Return what :meth:`to_json` was called on."""
        counts, longest = data["counts"], data["longest"]
        assert isinstance(counts, Mapping)
        assert isinstance(longest, int | float)
        return cls({int(bucket): count for bucket, count in counts.items()}, longest)

    @classmethod
    def joined(cls, histograms: Iterable[Histogram]) -> Histogram:
        """Return what all of them have counted together."""
        whole = cls()
        for one in histograms:
            whole.counts += one.counts
            whole.longest = max(whole.longest, one.longest)
        return whole

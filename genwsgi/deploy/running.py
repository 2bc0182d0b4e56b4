"""The deploy that is under way, and what is remembered of the one that failed last.

Pure, like the coordinator that owns them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from genwsgi.deploy.framing import clip
from genwsgi.deploy.orders import Pending
from genwsgi.deploy.protocol import Release
from genwsgi.isolation.scope import Addition

#: How often one deploy may begin anew because its scope was too small.
GROWTHS: Final = 3


@dataclass
class Deploy:
    """The running deploy.  It has a release as soon as the source was read and is new.

    :ivar pending: the order that it serves.
    :ivar started: when it began.
    :ivar deadline: when its reading, its builds or its swaps must have ended.
    :ivar seconds: how long it took to the commit point.
    :ivar notes: what its outcome is to say.
    :ivar additions: what has joined the scope since it began.
    :ivar hold: how long it waits for the word when all are ready, in seconds; 0: it needs none.
    :ivar told: whether its order was told that it is prepared, which is told once.
    """

    pending: Pending
    started: float
    deadline: float
    release: Release | None = None
    seconds: float | None = None
    notes: list[str] = field(default_factory=list)
    additions: tuple[Addition, ...] = ()
    hold: float = 0.0
    told: bool = False
    _growths: int = 0
    _digests: set[str] = field(default_factory=set)

    def read(self, release: Release, deadline: float) -> None:
        """The source was read, and is to be built as ``release`` until ``deadline``."""
        self.release, self.deadline = release, deadline
        self._digests.add(release.digest)

    def grow(self, additions: Iterable[Addition], deadline: float) -> str:
        """Begin anew with ``additions``, if that can help: they are new, and it may still grow.

        :returns: the new ones in words; empty if it can't help, and nothing has changed.
        """
        known = {(one.name, one.folder): one for one in self.additions}
        for one in additions:
            known.setdefault((one.name, one.folder), one)
        new = tuple(known.values())[len(self.additions) :]
        if not new or self._growths == GROWTHS:
            return ""
        self._growths += 1
        self.additions += new
        self.release, self.deadline = None, deadline
        joined = clip("; ".join(map(in_words, new)))
        self.notes.append(joined)
        return joined

    @property
    def digests(self) -> frozenset[str]:
        """The snapshots that it has built or begun to build: one for each size of the scope."""
        return frozenset(self._digests)


def in_words(addition: Addition) -> str:
    """Say what joins the scope, and why."""
    return f"{addition.name or addition.folder} joins the scope: {addition.reason}"

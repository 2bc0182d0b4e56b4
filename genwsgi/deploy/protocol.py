"""What coordinator, agents and clients say to each other about deploys.

Plain data, frozen; any thread may use it.  How it becomes bytes is
:mod:`genwsgi.deploy.framing`'s; what else those who operate a server ask for is
:mod:`genwsgi.deploy.control`'s::

    worker -> coordinator    Hello, Building, Ready, Failed, Committed, Generations, Problems,
                             Counts, Cancelled, Leaving
    coordinator -> worker    Welcome, Prepare, Commit, Abort, Tell, Cancel
    client -> coordinator    OrderRequest, RollbackRequest
    coordinator -> client    Progress, OrderOutcome
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from genwsgi.generations.counts import GenerationCounts
from genwsgi.generations.status import GenerationStatus
from genwsgi.isolation.scope import Addition


class Outcome:
    """How an order ended: the values of :attr:`OrderOutcome.outcome`.

    ``PREPARED`` is no end: the release is built everywhere on this host and held, and whoever gave
    the order has the word.
    """

    COMMITTED: Final = "committed"
    FAILED: Final = "failed"
    SUPERSEDED: Final = "superseded"
    REFUSED: Final = "refused"
    UNCHANGED: Final = "unchanged"
    PREPARED: Final = "prepared"


class Step:
    """How far a deploy is: the values of :attr:`Progress.stage`, in their order."""

    READING: Final = "reading"
    COMPILING: Final = "compiling"
    BUILDING: Final = "building"
    VERIFYING: Final = "verifying"
    LOOKING: Final = "looking"
    READY: Final = "ready"
    COMMITTED: Final = "committed"


@dataclass(frozen=True)
class Release:
    """What a deploy is about.

    :ivar number: counts the deploys of this host; 1 is what the server started with.
    :ivar digest: names the snapshot.  The same digest comes again under a new number when a deploy
        was forced.
    :ivar trigger: what asked for it.
    :ivar detail: who, which paths or which message, for people.
    :ivar created: wall-clock seconds since the epoch, for people only.
    :ivar path: folders that orders have put before those the server was started with, the newest
        first; later releases are read from there too.
    :ivar back_to: the number of the release whose code this is again, if it is a rollback.
    :ivar aside: the digests that were rolled back from, which the file watch does not deploy again
        until the files change.
    """

    number: int
    digest: str
    trigger: str
    detail: str
    created: float
    path: tuple[str, ...] = ()
    back_to: int | None = None
    aside: tuple[str, ...] = ()


def label(release: Release) -> str:
    """A release in a few words, as people, the environ and the logs have it."""
    return f"{release.number}-{release.digest[:8]}"


@dataclass(frozen=True)
class Hello:
    """An agent's first message.

    It has given up what it was still building: a coordinator that was restarted may give the number
    of that release to another, and would take this one's :class:`Ready` for the other's.

    :ivar pid: the worker's process.
    :ivar current: what it serves; None while it has not served yet.
    :ivar prepared: what it has built and not swapped to.
    """

    pid: int
    current: Release | None
    prepared: Release | None


@dataclass(frozen=True)
class Building:
    """How far the worker is with release ``release``.

    Told before it begins, now and then, and when only the look at its scope is left (``LOOKING``).

    :ivar stage: one of :class:`Step`.
    :ivar done: how many modules are loaded, or paths verified.
    :ivar total: how many there will be, as far as that is known; 0 if it is not.
    """

    release: int
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Ready:
    """Release ``release`` is built and verified in this worker; that took ``seconds``."""

    release: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Release ``release`` can't be built in this worker: one line why, and the whole traceback.

    :ivar additions: what has to join the scope, if that is all that is wrong.
    :ivar blameless: whether the code has nothing to do with it, which may be tried again as it is.
    """

    release: int
    reason: str
    traceback: str
    additions: tuple[Addition, ...] = ()
    blameless: bool = False


@dataclass(frozen=True)
class Committed:
    """The worker serves release ``release`` now, as its generation ``generation``."""

    release: int
    generation: int


@dataclass(frozen=True)
class Generations:
    """How the worker's generations stand: sent when that changes, and while old ones are there.

    :ivar generations: oldest first; of very many the latest.
    """

    generations: tuple[GenerationStatus, ...]


@dataclass(frozen=True)
class Problem:
    """Something that is wrong now; serving goes on.

    :ivar name: what, in one word that is always the same, for programs.
    :ivar text: one line: what is wrong, what it costs, what to do.
    :ivar since: wall-clock seconds since the epoch, for people only.
    :ivar pid: the worker that has it; None if it is the host's.
    """

    name: str
    text: str
    since: float
    pid: int | None = None


@dataclass(frozen=True)
class Problems:
    """What is wrong in the worker: sent when that changes."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Counts:
    """What has become of the requests of the worker's generations: of those that had some lately.

    Sent about every second, in a probation more often, and only where requests are counted.

    :ivar pid: the worker's process: what it has told stays known when its connection is gone.
    :ivar generations: all that is known of each, not only what is new.
    :ivar left: what is left of the current release's probation, in seconds.
    :ivar drained: how long each of the generations that have retired since had still owed a
        response after it was replaced, in seconds.
    """

    pid: int
    generations: tuple[GenerationCounts, ...]
    left: float = 0.0
    drained: tuple[float, ...] = ()


@dataclass(frozen=True)
class Cancelled:
    """The answer to :class:`Cancel`.

    :ivar ended: how many requests it has ended.
    :ivar left: how many go on, because what they do can't be interrupted.
    """

    generation: int
    ended: int
    left: int


@dataclass(frozen=True)
class Leaving:
    """The worker ends because it was told to, or is recycled: not because of what it builds."""


@dataclass(frozen=True)
class Welcome:
    """The answer to :class:`Hello`: what this worker must run, whatever it runs or has prepared."""

    committed: Release


@dataclass(frozen=True)
class Prepare:
    """Build ``release`` beside what is served, and say :class:`Ready` or :class:`Failed`.

    :ivar look: whether to look for what its scope lacks: that is for the one that builds first, for
        the others build the same.
    """

    release: Release
    look: bool = True


@dataclass(frozen=True)
class Commit:
    """Swap to release ``release``, which is ready everywhere, and say :class:`Committed`."""

    release: int


@dataclass(frozen=True)
class Abort:
    """Discard release ``release``, built or half built, and serve on; ``reason`` is for the log."""

    release: int
    reason: str


@dataclass(frozen=True)
class Tell:
    """Say how your generations stand now: :class:`Generations`."""


@dataclass(frozen=True)
class Cancel:
    """End the requests of the replaced generation ``generation``, and say :class:`Cancelled`."""

    generation: int


@dataclass(frozen=True)
class OrderRequest:
    """A client asks for a deploy.

    :ivar id: the client's name for it; the outcome carries it back.
    :ivar trigger: what asked.
    :ivar force: deploy even if the code is the committed code.
    :ivar detail: who and why, for people.
    :ivar path: a folder to import from first, in this release and later ones; empty: as before.
    :ivar modules: what must be in the scope, or else the order is refused.
    :ivar follow: whether to tell of its :class:`Progress`.
    """

    id: str
    trigger: str
    force: bool
    detail: str
    path: str = ""
    modules: tuple[str, ...] = ()
    follow: bool = False


@dataclass(frozen=True)
class RollbackRequest:
    """A client asks for a deploy of code that was committed before, from its kept snapshot.

    :ivar id, detail, follow: as of an :class:`OrderRequest`.
    :ivar release: the number of the release; None: the one before the committed one.
    """

    id: str
    release: int | None
    detail: str
    follow: bool = False


@dataclass(frozen=True)
class Progress:
    """How far an order is that a client follows.

    :ivar id: the order.
    :ivar pid: the worker; None: it is the coordinator that works.
    :ivar stage: one of :class:`Step`.
    :ivar done, total: as of :class:`Building`.
    """

    id: str
    pid: int | None
    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class OrderOutcome:
    """How an order ended.

    :ivar id: the order.
    :ivar outcome: one of :class:`Outcome`.
    :ivar release: the number of the release it was about; None if there was none yet.
    :ivar reason: one line; empty when there is nothing to add.
    :ivar traceback: what the application raised, whole (see
        :func:`~genwsgi.deploy.framing.clip`); else empty.
    :ivar seconds: from the order to its outcome.
    :ivar generation: the highest number of a generation that serves the committed release, among
        the workers of this host; None if none has told.
    """

    id: str
    outcome: str
    release: int | None
    reason: str
    traceback: str
    seconds: float
    generation: int | None = None


FromWorker = (
    Hello
    | Building
    | Ready
    | Failed
    | Committed
    | Generations
    | Problems
    | Counts
    | Cancelled
    | Leaving
)
ToWorker = Welcome | Prepare | Commit | Abort | Tell | Cancel

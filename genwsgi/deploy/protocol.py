"""What coordinator, agents and clients say to each other.

Plain data, frozen; any thread may use it.  How it becomes bytes is
:mod:`genwsgi.deploy.framing`'s::

    worker -> coordinator    Hello, Ready, Failed, Committed, Generations, Problems, Leaving
    coordinator -> worker    Welcome, Prepare, Commit, Abort
    client -> coordinator    OrderRequest, StatusRequest
    coordinator -> client    OrderOutcome, Status
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
    """

    number: int
    digest: str
    trigger: str
    detail: str
    created: float
    path: tuple[str, ...] = ()


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
class Ready:
    """Release ``release`` is built and verified in this worker; that took ``seconds``."""

    release: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Release ``release`` can't be built in this worker: one line why, and the whole traceback.

    :ivar additions: what has to join the scope, if that is all that is wrong.
    """

    release: int
    reason: str
    traceback: str
    additions: tuple[Addition, ...] = ()


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
class Leaving:
    """The worker ends because it was told to, or is recycled: not because of what it builds."""


@dataclass(frozen=True)
class Welcome:
    """The answer to :class:`Hello`: what this worker must run, whatever it runs or has prepared."""

    committed: Release


@dataclass(frozen=True)
class Prepare:
    """Build ``release`` beside what is served, and say :class:`Ready` or :class:`Failed`."""

    release: Release


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
class OrderRequest:
    """A client asks for a deploy.

    :ivar id: the client's name for it; the outcome carries it back.
    :ivar trigger: what asked.
    :ivar force: deploy even if the code is the committed code.
    :ivar detail: who and why, for people.
    :ivar path: a folder to import from first, in this release and later ones; empty: as before.
    :ivar modules: what must be in the scope, or else the order is refused.
    """

    id: str
    trigger: str
    force: bool
    detail: str
    path: str = ""
    modules: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class StatusRequest:
    """A client asks how the deploys stand."""


@dataclass(frozen=True)
class WorkerStatus:
    """One connected worker in a :class:`Status`.

    :ivar pid: its process.
    :ivar release: the number of the release it serves; None if it has not served yet.
    :ivar generations: how its generations stood when it last said so, a second ago or less.
    """

    pid: int
    release: int | None
    generations: tuple[GenerationStatus, ...] = ()


@dataclass(frozen=True)
class Status:
    """The answer to :class:`StatusRequest`.

    :ivar release: the committed release.
    :ivar phase: what the coordinator is doing.
    :ivar workers: the connected workers.
    :ivar triggers: each trigger's own status, by its name; any JSON.
    :ivar last: the latest outcome of an order.
    :ivar problems: what is wrong now: the host's, then the workers'.
    """

    release: Release
    phase: str
    workers: tuple[WorkerStatus, ...]
    triggers: dict[str, object]
    last: OrderOutcome | None
    problems: tuple[Problem, ...] = ()


FromWorker = Hello | Ready | Failed | Committed | Generations | Problems | Leaving
ToWorker = Welcome | Prepare | Commit | Abort
FromClient = OrderRequest | StatusRequest
ToClient = OrderOutcome | Status
Message = FromWorker | ToWorker | FromClient | ToClient

#: What a message is called in its frame.
KINDS: Final[dict[str, type]] = {
    "hello": Hello,
    "ready": Ready,
    "failed": Failed,
    "committed": Committed,
    "generations": Generations,
    "problems": Problems,
    "leaving": Leaving,
    "welcome": Welcome,
    "prepare": Prepare,
    "commit": Commit,
    "abort": Abort,
    "order": OrderRequest,
    "outcome": OrderOutcome,
    "status-request": StatusRequest,
    "status": Status,
}

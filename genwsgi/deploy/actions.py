"""What goes into a coordinator and comes out of it, beside messages: orders, actions, its state.

Plain data, frozen; any thread may use it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from genwsgi.deploy.protocol import OrderOutcome, Release, ToWorker
from genwsgi.isolation.scope import Addition


class Phase(str, enum.Enum):
    """What a coordinator is doing; the legal moves stand at the top of ``coordinator``."""

    IDLE = "idle"
    READING = "reading"
    CANARY = "canary"
    PREPARING = "preparing"
    HOLDING = "holding"
    COMMITTING = "committing"


class Stage(str, enum.Enum):
    """How far one worker is in the running deploy.

    One that is told to build and has not begun has nothing to do with the release yet: if it dies,
    the code has not killed it.  One that is looking has built, and looks at the scope for all.
    """

    CONNECTED = "connected"
    TOLD = "told"
    BUILDING = "building"
    LOOKING = "looking"
    READY = "ready"
    SWAPPING = "swapping"


@dataclass(frozen=True)
class Order:
    """Somebody asks for a deploy.

    :ivar id: names it in its outcome and in the log.
    :ivar trigger: what asked; an order of the trigger ``watch`` does not retry code that failed.
    :ivar force: deploy even if the code is the committed code.
    :ivar detail: who and why, for people.
    :ivar path: a folder to import from first, in this release and later ones; empty: as before.
    :ivar modules: what must be in the scope, or else the order is refused.
    :ivar hold: when all are ready, wait for the word at most so many seconds; 0: don't wait.
    :ivar back_to: the number of the release whose code is wanted again; 0: what is on disk is.
    """

    id: str
    trigger: str
    force: bool
    detail: str
    path: str = ""
    modules: tuple[str, ...] = ()
    hold: float = 0.0
    back_to: int = 0


@dataclass(frozen=True)
class TakeSnapshot:
    """Read and compile the source now, or find what an order wants to go back to.

    Answer each of these once, in their order, with ``snapshot_taken`` or ``snapshot_failed``.

    :ivar additions: what belongs in the scope beside what the committed release's has, as builds
        of this deploy have shown.
    :ivar path: folders to read from before those that the server was started with.
    """

    order: Order
    additions: tuple[Addition, ...] = ()
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """Write durably, in one step, that ``release`` is committed.  From then on it is.

    If that fails, drop the rest of the list and call ``record_failed`` before anything else.
    """

    release: Release


@dataclass(frozen=True)
class Send:
    """Send ``message`` to the worker on connection ``worker``, if it is still there."""

    worker: int
    message: ToWorker


@dataclass(frozen=True)
class Report:
    """Tell whoever gave ``order``, and the log, how it ended.  Exactly one for each order."""

    order: Order
    outcome: OrderOutcome


@dataclass(frozen=True)
class Held:
    """Tell whoever gave ``order`` that release ``release`` is ready everywhere and is held.

    :ivar seconds: how long that took.
    """

    order: Order
    release: int
    seconds: float


Action = TakeSnapshot | Record | Send | Report | Held


@dataclass(frozen=True)
class Participant:
    """A connected worker, as the coordinator knows it.

    :ivar worker: its connection.
    :ivar pid: its process.
    :ivar release: the number of the release it serves; None if it has not served yet.
    :ivar stage: how far it is in the running deploy.
    :ivar problem: why it can't run the committed release, if it said so.
    """

    worker: int
    pid: int
    release: int | None
    stage: Stage
    problem: str


@dataclass(frozen=True)
class Statistics:
    """A coordinator at one moment.

    :ivar phase: what it is doing.
    :ivar release: the number of the committed release.
    :ivar in_progress: the number of the release being deployed.
    :ivar workers: how many are connected.
    :ivar running: the id of the order being served.
    :ivar waiting: the id of the order that waits for it.
    :ivar orders: how many were given, ever.
    :ivar ignored: how many inputs came that could not be meant for the present state.
    """

    phase: Phase
    release: int
    in_progress: int | None
    workers: int
    running: str | None
    waiting: str | None
    orders: int
    ignored: int

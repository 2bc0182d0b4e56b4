"""What those who operate a server ask its coordinator, beside orders, and what it answers.

Plain data, frozen; any thread may use it.  Each request has one answer::

    StatusRequest                                   Status
    HistoryRequest                                  History
    DiffRequest                                     Diff
    PauseRequest, RestartRequest, CancelRequest     Done
"""

from __future__ import annotations

from dataclasses import dataclass

from genwsgi.deploy.protocol import (
    OrderOutcome,
    OrderRequest,
    Problem,
    Progress,
    Release,
    RollbackRequest,
)
from genwsgi.generations.status import GenerationStatus


@dataclass(frozen=True)
class HistoryRequest:
    """A client asks how the latest ``count`` orders ended."""

    count: int


@dataclass(frozen=True)
class HistoryEntry:
    """How one order ended, or what a server was started with.

    :ivar time: when, in wall-clock seconds since the epoch.
    :ivar order: its id; empty for a start.
    :ivar trigger, detail: what asked for it, and who or why.
    :ivar outcome: one of :class:`~genwsgi.deploy.protocol.Outcome`.
    :ivar reason: one line; empty when there is nothing to add.
    :ivar seconds: from the order to its outcome.
    :ivar release: the number of the release it was about; None if there was none yet.  Each server
        counts its own, from 1.
    :ivar digest: names that release's snapshot; empty if there was none.
    :ivar path: the folders that orders have put before those the server was started with.
    :ivar generation: as of :class:`~genwsgi.deploy.protocol.OrderOutcome`.
    :ivar kept: whether the server that answers can go back to it.
    """

    time: float
    order: str
    trigger: str
    detail: str
    outcome: str
    reason: str
    seconds: float
    release: int | None
    digest: str
    path: tuple[str, ...]
    generation: int | None
    kept: bool = False


@dataclass(frozen=True)
class History:
    """The answer to :class:`HistoryRequest`.

    :ivar entries: the latest first; those of earlier servers of the same application too.
    """

    entries: tuple[HistoryEntry, ...]


@dataclass(frozen=True)
class DiffRequest:
    """A client asks what changed from release ``one`` to release ``other``.

    :ivar one: None: the release before ``other``.
    :ivar other: None: the committed release.
    """

    one: int | None
    other: int | None


@dataclass(frozen=True)
class Diff:
    """The answer to :class:`DiffRequest`.

    :ivar one, other: the releases; None if there is no such release, or it is not kept.
    :ivar added, removed, changed: the files, by their paths; of very many the first.
    :ivar more: how many files these leave out.
    :ivar text: a unified diff of the sources (as of ``diff -u``), clipped.
    :ivar reason: why there is no answer, in one line; else empty.
    """

    one: Release | None
    other: Release | None
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    more: int
    text: str
    reason: str


@dataclass(frozen=True)
class PauseRequest:
    """Take no automatic orders (``paused``), or take them again; ``detail`` says who and why."""

    paused: bool
    detail: str


@dataclass(frozen=True)
class RestartRequest:
    """Replace the workers by new ones, as gunicorn does it; ``detail`` says who and why."""

    detail: str


@dataclass(frozen=True)
class CancelRequest:
    """End the requests that the replaced generation ``generation`` still owes.

    :ivar pid: the worker; None: every worker that has a replaced generation of this number.
    """

    generation: int
    pid: int | None


@dataclass(frozen=True)
class Done:
    """The answer to what needs no other: whether it is done, and one line on what or why not."""

    ok: bool
    reason: str


@dataclass(frozen=True)
class StatusRequest:
    """A client asks how the server stands."""


@dataclass(frozen=True)
class WorkerStatus:
    """One connected worker in a :class:`Status`.

    :ivar pid: its process.
    :ivar release: the number of the release it serves; None if it has not served yet.
    :ivar generations: how its generations stand, oldest first.  The leases of all of them are the
        requests in flight.
    :ivar memory: what it holds in memory (RSS), in bytes; None if that can't be told.
    :ivar uptime: since its process began, in seconds; None if that can't be told.
    """

    pid: int
    release: int | None
    generations: tuple[GenerationStatus, ...] = ()
    memory: int | None = None
    uptime: float | None = None


@dataclass(frozen=True)
class Pause:
    """Automatic orders are not taken: ``by`` whom or why, and ``since`` when (wall clock)."""

    by: str
    since: float


@dataclass(frozen=True)
class Status:
    """The answer to :class:`StatusRequest`.

    :ivar release: the committed release.
    :ivar phase: what the coordinator is doing.
    :ivar workers: the connected workers.
    :ivar triggers: each trigger's own status, by its name; any JSON.
    :ivar last: the latest outcome of an order.
    :ivar problems: what is wrong now: the host's, then the workers'.
    :ivar recent: how the latest orders ended, the latest first.
    :ivar paused: why automatic orders are not taken; None: they are.
    :ivar quiet: why the file watch does not deploy what is on disk; empty: it does.
    :ivar trial: how the running probation stands; empty: none runs.
    """

    release: Release
    phase: str
    workers: tuple[WorkerStatus, ...]
    triggers: dict[str, object]
    last: OrderOutcome | None
    problems: tuple[Problem, ...] = ()
    recent: tuple[HistoryEntry, ...] = ()
    paused: Pause | None = None
    quiet: str = ""
    trial: str = ""


Question = (
    StatusRequest | HistoryRequest | DiffRequest | PauseRequest | RestartRequest | CancelRequest
)
FromClient = OrderRequest | RollbackRequest | Question
ToClient = OrderOutcome | Progress | Status | History | Diff | Done

"""The deploys of one process that nobody coordinates: reads, builds, swaps, one after the other."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from genwsgi.background import BackgroundBuild, BackgroundDiscard
from genwsgi.deploy.orders import ahead
from genwsgi.deploy.protocol import Outcome
from genwsgi.deploy.source import Source
from genwsgi.errors import GenwsgiError, OrderError, ScopeError
from genwsgi.isolation.growth import Verdict
from genwsgi.live import LiveApplication

log = logging.getLogger("genwsgi")

#: How often one deploy is built anew because its scope was too small.
ROUNDS = 4

#: An outcome, the reason and the traceback.
Ended = tuple[str, str, str]

_REFUSED: Ended = (Outcome.REFUSED, "the application is closed", "")

#: What a thread is told that would wait for itself.
_WITHIN = (
    "this thread is in the middle of a deploy; a signal handler, or code that a deploy runs, has to"
    " order one on a thread of its own"
)


@dataclass(frozen=True)
class Asked:
    """What a deploy is to be; see :meth:`genwsgi.app.GenerationalApp.deploy`.

    :ivar path: a folder to import from first, as an absolute path; empty: as before.
    :ivar confirm: called when all is ready; says why not to swap, if so.
    """

    force: bool = False
    path: str = ""
    modules: tuple[str, ...] = ()
    confirm: Callable[[], str] | None = None


class Deploys:
    """Deploys what a source has, in this process.  Any thread may call each method.

    ``_one`` is held by whoever deploys, and never by a request; under it ``_lock`` is taken, for a
    few operations: it guards ``_closed`` and ``_over``, and the swap against :meth:`stop`.

    :param build_timeout: how long a build may take, in seconds.
    :param moved: called with the folders and files that concern the code from now on.
    :ivar count: how many releases there have been.
    """

    def __init__(
        self,
        live: LiveApplication,
        source: Source,
        build_timeout: float,
        moved: Callable[[Sequence[str]], object],
    ) -> None:
        self.count = 1
        # Reentrant for a signal handler: it would wait for the thread that it has interrupted.
        self._one = threading.RLock()
        self._busy = False
        self._live = live
        self._source = source
        self._build_timeout = build_timeout
        self._moved = moved
        self._lock = threading.Lock()
        self._closed = False
        #: Ends the wait for the build under way.
        self._over: threading.Event | None = None
        self._digest = ""
        #: The folders that orders have put before all others.
        self._ahead: tuple[str, ...] = ()

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[bool]:
        """Wait until no other thread deploys; say whether this one doesn't do so already."""
        with self._one:
            alone, self._busy = not self._busy, True
            try:
                yield alone
            finally:
                self._busy = not alone

    def first(self) -> None:
        """Build the first generation, with a scope that grows by what a build finds missing.

        On the calling thread, in :meth:`one_at_a_time`.  It raises what a build does.
        """
        self._digest = self._source.take()
        for last in (*[False] * ROUNDS, True):
            try:
                name = f"1-{self._digest[:8]}"
                self._live.swap(self._live.build(self._digest, name, grow=not last))
                return
            except ScopeError as error:
                self._grow(error)
            self._digest = self._source.take()

    def deploy(self, asked: Asked) -> Ended:
        """Deploy what the source has now; wait for the outcome."""
        with self.one_at_a_time() as alone:
            return self._deploy(asked) if alone else (Outcome.REFUSED, _WITHIN, "")

    def explain(self) -> list[Verdict]:
        """Say of each package that is used whether it is in the scope, and why.

        :raises GenwsgiError: the release can't be built any more, the application is closed, or
            this thread is in the middle of a deploy.
        """
        verdicts: list[Verdict] = []
        with self.one_at_a_time() as alone:
            if not alone:
                raise GenwsgiError(_WITHIN)
            if self._closed:
                raise GenwsgiError("the application is closed; make another one to ask")
            built = self._live.build(self._digest, "explained", grow=False, verdicts=verdicts)
            BackgroundDiscard(self._live, built)
        return verdicts

    def stop(self) -> bool:
        """Refuse all further deploys, and give the one under way up; say whether it is the time."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            if self._over is not None:
                self._over.set()
            return True

    def wait(self, timeout: float) -> None:
        """Wait for the deploy under way, for at most ``timeout`` seconds."""
        if self._one.acquire(timeout=timeout):
            self._one.release()

    def _deploy(self, asked: Asked) -> Ended:
        path = ahead((asked.path,) if asked.path else (), self._ahead)
        for last in (*[False] * ROUNDS, True):
            if self._closed:
                return _REFUSED
            try:
                reading = self._source.read(self._digest, (), path, asked.modules, asked.path)
            except OrderError as error:
                return Outcome.REFUSED, str(error), ""
            except (GenwsgiError, OSError) as error:
                return Outcome.FAILED, str(error), getattr(error, "traceback", "")
            if (reading.digest, reading.path) == (self._digest, self._ahead) and not asked.force:
                break
            ended = self._replace(reading.digest, grow=not last, confirm=asked.confirm)
            if not isinstance(ended, ScopeError):
                if ended[0] == Outcome.COMMITTED:
                    self._move(reading.path)
                return ended
            self._grow(ended)
        return Outcome.UNCHANGED, "", ""

    def _grow(self, error: ScopeError) -> None:
        for item in error.additions:
            log.info("%s joins the scope: %s", item.name or item.folder, item.reason)
        self._source.grow(error.additions)

    def _move(self, path: tuple[str, ...]) -> None:
        if path != self._ahead:
            self._moved(self._source.scope(path).watched)
        self._ahead = path

    def _replace(
        self, digest: str, *, grow: bool, confirm: Callable[[], str] | None
    ) -> Ended | ScopeError:
        """Build and swap, unless it takes too long or :meth:`stop` is called meanwhile."""
        over = threading.Event()
        built: list[BackgroundBuild] = []

        def done(build: BackgroundBuild) -> None:
            with self._lock:
                wanted = self._over is over
                if wanted:
                    built.append(build)
            over.set()
            if not wanted and build.generation is not None:
                self._live.discard(build.generation)

        with self._lock:
            self._over = over
            if self._closed:
                over.set()
        release = f"{self.count + 1}-{digest[:8]}"
        build = BackgroundBuild(self._live, digest, release, done, grow=grow)
        over.wait(self._build_timeout)
        ready = confirm is not None and built and build.generation is not None
        off = confirm() if ready and confirm is not None else ""
        with self._lock:
            self._over = None
            closed, generation = self._closed, build.generation if built else None
            if generation is not None and not closed and not off:
                self._live.swap(generation)
        if not built:
            where = build.where()
            build.abandon()
            reason = f"the build took more than {self._build_timeout} s"
            return _REFUSED if closed else (Outcome.FAILED, reason, where)
        if generation is None:
            failure = build.error or GenwsgiError("the build ended without a result")
            if closed:
                return _REFUSED
            if isinstance(failure, ScopeError):
                return failure
            return Outcome.FAILED, str(failure), failure.traceback
        if closed or off:
            BackgroundDiscard(self._live, generation)
            return _REFUSED if closed else (Outcome.FAILED, off, "")
        self._digest = digest
        self.count += 1
        with contextlib.suppress(OSError):  # after the next deploy, then
            self._source.store.sweep([digest])
        return Outcome.COMMITTED, "", ""

"""One process, any WSGI server: the whole of genwsgi but the coordination of several workers."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genwsgi.background import BackgroundBuild, BackgroundDiscard
from genwsgi.deploy.orders import ahead
from genwsgi.deploy.protocol import OrderOutcome, Outcome
from genwsgi.deploy.rundir import hold
from genwsgi.deploy.source import Source
from genwsgi.errors import GenwsgiError, OrderError, ScopeError
from genwsgi.generations.generation import Generation
from genwsgi.generations.status import GenerationStatus
from genwsgi.isolation.growth import Verdict
from genwsgi.isolation.scope import ScopeRules
from genwsgi.isolation.snapshot import Store
from genwsgi.live import LiveApplication
from genwsgi.target import parse
from genwsgi.triggers.amqp.alone import Orders
from genwsgi.triggers.amqp.settings import from_options
from genwsgi.triggers.others import find_others
from genwsgi.triggers.sieve import DEFAULT_IGNORE
from genwsgi.triggers.watch import Change, WatchTrigger
from genwsgi.verification import HOST, TIMEOUT, Verification, expected

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger("genwsgi")

#: How long :meth:`GenerationalApp.close` waits for what is under way, in seconds.
CLOSE = 5.0

#: How often one deploy is built anew because its scope was too small.
ROUNDS = 4

_REFUSED = (Outcome.REFUSED, "the application is closed", "")

#: What is told in a process that has the application from the one it was forked from.
_FORKED = (
    "the application was made before this process was forked: no new code comes here; make it after"
    " the fork (gunicorn: without --preload, uWSGI: with lazy-apps)"
)


@dataclass(frozen=True)
class _Asked:
    """What a deploy is to be; see :meth:`GenerationalApp.deploy`."""

    force: bool
    path: str
    modules: tuple[str, ...]
    confirm: Callable[[], str] | None


class GenerationalApp:
    """A WSGI application (PEP 3333) that takes new code without missing a request.

    ::

        application = genwsgi.GenerationalApp("myapp:create_app", watch=True)

    The first generation is built at once, on the calling thread; what the application raises then
    is a :class:`~genwsgi.errors.BuildError`.  The object is the callable for the server; any thread
    may call it.

    A server with worker processes has to make it in each of them.  In a process that is forked from
    the one that made it there is no thread of its: it serves what was current, and nothing new.

    :param target: ``MODULE[:NAME]``, as on genwsgi's command line.
    :param watch: whether to deploy when a file of the application changes.
    :param path: folders to import the application from, before ``sys.path``.
    :param scope: further top-level packages that every generation imports afresh.
    :param share: top-level packages that all generations share.
    :param factory: whether the name is a factory; ``None``: told from its signature.
    :param generation_header: name of a response header for the generation's number.
    :param build_timeout: how long a build may take, in seconds.
    :param watch_paths, watch_patterns, watch_ignore: what else to watch, and what not.
    :param watch_polling: look at the files instead of being told.
    :param amqp: genwsgi's options for a broker by their names in a config file (``amqp``, its URL,
        ``amqp_key_file``, ``release_root`` ...): take deploy orders from there.  See docs/fleet.md.
    :param verify: what a generation must answer well before it serves, the first one too: each is
        ``PATH``, whose status must be below 400, or ``PATH=STATUS``.
    :param verify_timeout: how long each of these may take, in seconds.
    :param verify_host: the host that they are for: one that the application serves.
    """

    def __init__(
        self,
        target: str,
        *,
        watch: bool = False,
        path: Sequence[str] = (),
        scope: Iterable[str] = (),
        share: Iterable[str] = (),
        factory: bool | None = None,
        generation_header: str | None = None,
        build_timeout: float = 60.0,
        watch_paths: Sequence[str] = (),
        watch_patterns: Sequence[str] = (),
        watch_ignore: Sequence[str] = (),
        watch_polling: bool = False,
        amqp: Mapping[str, Any] | None = None,
        verify: Iterable[str] = (),
        verify_timeout: float = TIMEOUT,
        verify_host: str = HOST,
    ) -> None:
        parsed = parse(target)
        verification = Verification([*map(expected, verify)], verify_timeout, verify_host)
        broker = from_options(amqp) if amqp is not None else None
        own = tuple(os.path.abspath(folder) for folder in path)
        rules = ScopeRules(
            module=parsed.module,
            path=(*own, *(os.path.abspath(entry) for entry in sys.path)),
            own=own,
            scope=tuple(scope),
            share=tuple(share),
        )
        ignore = (*DEFAULT_IGNORE, *watch_ignore)
        self._pid = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="genwsgi-")
        self._hold = hold(self._folder)
        atexit.register(self.close)
        self._source = Source(
            rules, Store(self._folder), find_others(watch_paths, watch_patterns, ignore)
        )
        # One deploy at a time; never held by a request.
        self._deploying = threading.Lock()
        # Guards `_closed` and `_over`, and the swap against close(); held for a few operations.
        self._lock = threading.Lock()
        #: Ends the wait for the build under way.
        self._over: threading.Event | None = None
        self._build_timeout = build_timeout
        self._releases = 1
        self._watch: WatchTrigger | None = None
        self._orders: Orders | None = None
        #: The folders that orders have put before all others; ``_deploying`` guards it.
        self._ahead: tuple[str, ...] = ()
        self._closed = False
        self._live = LiveApplication(
            parsed,
            self._source.store,
            factory=factory,
            header=generation_header,
            verification=verification,
        )
        self._application: Callable[..., Iterable[bytes]] = self._live.application
        _made.add(self)
        # For what lies there and is shared: a package that ``share`` names, a C extension.
        self._path = [folder for folder in own if folder not in sys.path]
        sys.path[:0] = self._path
        try:
            with self._deploying:
                if watch:
                    # First, and its orders wait: an edit made during the build is not missed.
                    self._start_watch(watch_paths, watch_patterns, ignore, watch_polling)
                self._source.warn_of_left_out(log)
                self._digest = self._source.take()
                self._live.swap(self._first())
            if broker is not None:
                self._orders = Orders(broker, parsed.text, self._obey, self._committed, log)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<GenerationalApp {self._live!r}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request on the current generation."""
        return self._application(environ, start_response)

    def _serve_forked(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve the first request in a forked process, and say what is wrong there."""
        self._application = self._live.application
        log.warning(_FORKED)
        return self._application(environ, start_response)

    @property
    def generation(self) -> int | None:
        """The number of the current generation."""
        return self._live.statistics().current

    def status(self) -> tuple[GenerationStatus, ...]:
        """Return how every generation stands that serves, drains or is not gone yet.

        Oldest first; of one that has retired it says who holds it.  Any thread may ask.
        """
        return self._live.status()

    def deploy(
        self,
        *,
        force: bool = False,
        trigger: str = "deploy()",
        path: str = "",
        modules: Sequence[str] = (),
    ) -> OrderOutcome:
        """Build the code as it is on disk now and swap to it; wait for the outcome.

        Any thread may call this; deploys are done one after another.  Nothing is raised for code
        that doesn't build: the outcome says ``failed`` and why, and the old code serves on.  Once
        the application is closed, and in a process forked since it was made, every deploy is
        ``refused``.

        :param force: build anew even if no content has changed.
        :param path: a folder to import from first, in this deploy and in later ones; empty: as
            before.
        :param modules: what has to be in the scope, or else the deploy is ``refused``.
        """
        return self._obey(force=force, trigger=trigger, path=path, modules=tuple(modules))

    def _obey(
        self,
        *,
        force: bool = False,
        trigger: str,
        path: str = "",
        modules: tuple[str, ...] = (),
        confirm: Callable[[], str] | None = None,
    ) -> OrderOutcome:
        """Deploy; ``confirm`` is called when all is ready, and says why not to swap, if so."""
        started = time.monotonic()
        ask = _Asked(force, path and os.path.abspath(path), modules, confirm)
        if self._pid != os.getpid():  # whoever had a lock when it was forked has it for ever
            outcome, reason, trace = Outcome.REFUSED, _FORKED, ""
        else:
            with self._deploying:
                outcome, reason, trace = self._deploy(ask)
        result = OrderOutcome(
            id=uuid.uuid4().hex[:12],
            outcome=outcome,
            release=self._releases,
            reason=reason,
            traceback=trace,
            seconds=time.monotonic() - started,
            generation=self.generation,
        )
        if outcome == Outcome.FAILED:
            log.error("deploy by %s failed: %s\n%s", trigger, reason, trace)
        else:
            log.info("deploy by %s: %s", trigger, f"{outcome}, {reason}" if reason else outcome)
        return result

    def explain(self) -> list[Verdict]:
        """Say of each package that the application uses whether it is in the scope, and why.

        For that the release is built once more, and discarded.  Any thread, but not a request.

        :raises GenwsgiError: it can't be built any more, the application is closed, or was made
            before this process was forked.
        """
        if self._pid != os.getpid():
            raise GenwsgiError(_FORKED)
        verdicts: list[Verdict] = []
        with self._deploying:
            if self._closed:
                raise GenwsgiError("the application is closed; make another one to ask")
            built = self._live.build(self._digest, "explained", grow=False, verdicts=verdicts)
            BackgroundDiscard(self._live, built)
        return verdicts

    def close(self) -> None:
        """Stop watching, drop all generations and remove the snapshots.  Any thread, any often.

        In a process forked from the one that made it, nothing: all others import from there.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._over is not None:
                self._over.set()
        atexit.unregister(self.close)
        if self._orders is not None:
            self._orders.close(CLOSE)
        if self._watch is not None:
            self._watch.stop()
            self._watch.join(CLOSE)
        # A deploy under way gives up soon, and must not write into a folder that is removed.
        if self._deploying.acquire(timeout=CLOSE):
            self._deploying.release()
        self._live.close()
        for folder in self._path:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._hold)

    def __enter__(self) -> GenerationalApp:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _first(self) -> Generation:
        """Build the first generation, with a scope that grows by what a build finds missing."""
        for _ in range(ROUNDS):
            try:
                return self._live.build(self._digest, f"1-{self._digest[:8]}")
            except ScopeError as error:
                self._grow(error)
            self._digest = self._source.take()
        return self._live.build(self._digest, f"1-{self._digest[:8]}", grow=False)

    def _grow(self, error: ScopeError) -> None:
        for item in error.additions:
            log.info("%s joins the scope: %s", item.name or item.folder, item.reason)
        self._source.grow(error.additions)

    def _committed(self) -> int:
        return self._releases

    def _deploy(self, ask: _Asked) -> tuple[str, str, str]:
        """Return the outcome, the reason and the traceback.  ``_deploying`` is held."""
        path = ahead((ask.path,) if ask.path else (), self._ahead)
        for last in (*[False] * ROUNDS, True):
            if self._closed:
                return _REFUSED
            try:
                reading = self._source.read(self._digest, (), path, ask.modules, ask.path)
            except OrderError as error:
                return Outcome.REFUSED, str(error), ""
            except (GenwsgiError, OSError) as error:
                return Outcome.FAILED, str(error), getattr(error, "traceback", "")
            if (reading.digest, reading.path) == (self._digest, self._ahead) and not ask.force:
                break
            ended = self._replace(reading.digest, grow=not last, confirm=ask.confirm)
            if not isinstance(ended, ScopeError):
                if ended[0] == Outcome.COMMITTED:
                    self._moved(reading.path)
                return ended
            self._grow(ended)
        return Outcome.UNCHANGED, "", ""

    def _moved(self, path: tuple[str, ...]) -> None:
        if path != self._ahead and self._watch is not None:
            self._watch.follow(self._source.scope(path).watched)
        self._ahead = path

    def _replace(
        self, digest: str, *, grow: bool, confirm: Callable[[], str] | None
    ) -> tuple[str, str, str] | ScopeError:
        """Build and swap, unless it takes too long or :meth:`close` is called meanwhile."""
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
        release = f"{self._releases + 1}-{digest[:8]}"
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
        self._releases += 1
        with contextlib.suppress(OSError):  # after the next deploy, then
            self._source.store.sweep([digest])
        return Outcome.COMMITTED, "", ""

    def _start_watch(
        self,
        paths: Sequence[str],
        patterns: Sequence[str],
        ignore: Sequence[str],
        polling: bool,
    ) -> None:
        def order(_change: Change) -> None:
            self.deploy(trigger="watch")

        self._watch = WatchTrigger(
            self._source.scope().watched,
            order,
            extra=paths,
            patterns=patterns,
            ignore=ignore,
            polling=polling,
            log=log,
        )
        self._watch.start()


#: Those that are there, to be told of a fork.
_made: weakref.WeakSet[GenerationalApp] = weakref.WeakSet()


def _forked() -> None:
    for application in list(_made):
        application._application = application._serve_forked


os.register_at_fork(after_in_child=_forked)

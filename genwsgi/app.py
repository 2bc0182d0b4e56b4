"""One process, any WSGI server: the whole of genwsgi but the coordination of several workers."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from genwsgi.deploy.protocol import OrderOutcome, Outcome
from genwsgi.deploy.source import Source
from genwsgi.errors import GenwsgiError
from genwsgi.isolation.scope import ScopeRules
from genwsgi.isolation.snapshot import Store
from genwsgi.live import BackgroundBuild, LiveApplication
from genwsgi.target import parse
from genwsgi.triggers.others import find_others
from genwsgi.triggers.sieve import DEFAULT_IGNORE
from genwsgi.triggers.watch import Change, WatchTrigger

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger("genwsgi")


class GenerationalApp:
    """A WSGI application (PEP 3333) that takes new code without missing a request.

    ::

        application = genwsgi.GenerationalApp("myapp:create_app", watch=True)

    The first generation is built at once, on the calling thread; what the application raises then
    is a :class:`~genwsgi.errors.BuildError`.  The object is the callable for the server; any thread
    may call it.

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
    ) -> None:
        parsed = parse(target)
        own = tuple(os.path.abspath(folder) for folder in path)
        rules = ScopeRules(
            module=parsed.module,
            path=(*own, *(os.path.abspath(entry) for entry in sys.path)),
            own=own,
            scope=tuple(scope),
            share=tuple(share),
        )
        ignore = (*DEFAULT_IGNORE, *watch_ignore)
        self._folder = tempfile.mkdtemp(prefix="genwsgi-")
        atexit.register(self.close)
        self._source = Source(
            rules, Store(self._folder), find_others(watch_paths, watch_patterns, ignore)
        )
        # One deploy at a time; never held by a request.
        self._deploying = threading.Lock()
        self._build_timeout = build_timeout
        self._releases = 1
        self._watch: WatchTrigger | None = None
        self._closed = False
        self._live = LiveApplication(
            parsed, self._source.store, factory=factory, header=generation_header
        )
        try:
            self._digest = self._source.take()
            self._live.swap(self._live.build(self._digest, f"1-{self._digest[:8]}"))
            if watch:
                self._start_watch(watch_paths, watch_patterns, ignore, watch_polling)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<GenerationalApp {self._live!r}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request on the current generation."""
        return self._live.application(environ, start_response)

    @property
    def generation(self) -> int | None:
        """The number of the current generation."""
        return self._live.statistics().current

    def deploy(self, *, force: bool = False, trigger: str = "deploy()") -> OrderOutcome:
        """Build the code as it is on disk now and swap to it; wait for the outcome.

        Any thread may call this; deploys are done one after another.  Nothing is raised for code
        that doesn't build: the outcome says ``failed`` and why, and the old code serves on.

        :param force: build anew even if no content has changed.
        """
        started = time.monotonic()
        with self._deploying:
            outcome, reason, trace = self._deploy(force)
        result = OrderOutcome(
            id=uuid.uuid4().hex[:12],
            outcome=outcome,
            release=self._releases,
            reason=reason,
            traceback=trace,
            seconds=time.monotonic() - started,
        )
        if outcome == Outcome.FAILED:
            log.error("deploy by %s failed: %s\n%s", trigger, reason, trace)
        else:
            log.info("deploy by %s: %s %s", trigger, outcome, reason)
        return result

    def close(self) -> None:
        """Stop watching, drop all generations and remove the snapshots.  Any thread, any often."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self._watch is not None:
            self._watch.stop()
            self._watch.join(5.0)
        self._live.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> GenerationalApp:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _deploy(self, force: bool) -> tuple[str, str, str]:
        """Return the outcome, the reason and the traceback."""
        try:
            digest = self._source.take(self._digest)
        except GenwsgiError as error:
            return Outcome.FAILED, str(error), error.traceback
        if digest == self._digest and not force:
            return Outcome.UNCHANGED, "", ""
        ended = threading.Event()
        label = f"{self._releases + 1}-{digest[:8]}"
        build = BackgroundBuild(self._live, digest, label, lambda build: ended.set())
        if not ended.wait(self._build_timeout):
            build.abandon()
            where = build.where()
            return Outcome.FAILED, f"the build took more than {self._build_timeout} s", where
        if build.generation is None:
            error = build.error or GenwsgiError("the build ended without a result")
            return Outcome.FAILED, str(error), error.traceback
        self._live.swap(build.generation)
        self._digest = digest
        self._releases += 1
        self._source.store.sweep([digest])
        return Outcome.COMMITTED, "", ""

    def _start_watch(
        self,
        paths: Sequence[str],
        patterns: Sequence[str],
        ignore: Sequence[str],
        polling: bool,
    ) -> None:
        def order(change: Change) -> None:
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


"""One process, any WSGI server: the whole of genwsgi but the coordination of several workers."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genwsgi.alone import Asked, Deploys
from genwsgi.deploy.protocol import OrderOutcome, Outcome
from genwsgi.deploy.source import Source
from genwsgi.errors import GenwsgiError, TargetError
from genwsgi.folder import Folder
from genwsgi.generations.status import GenerationStatus
from genwsgi.isolation import lookup
from genwsgi.isolation.asking import asking
from genwsgi.isolation.byhand import being_loaded
from genwsgi.isolation.growth import Verdict
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.scope import ScopeRules
from genwsgi.isolation.store import Store
from genwsgi.live import LiveApplication
from genwsgi.target import Target, parse
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

#: What the names of the folders with its snapshots begin with.
PREFIX = "genwsgi-app-"

#: What is told in a process that has the application from the one it was forked from.
_FORKED = (
    "the application was made before this process was forked: no new code comes here; make it after"
    " the fork (gunicorn: without --preload, uWSGI: with lazy-apps)"
)


class GenerationalApp:
    """A WSGI application (PEP 3333) that takes new code without missing a request.

    ::

        application = genwsgi.GenerationalApp("myapp:create_app", watch=True)

    The first generation is built at once, on the calling thread; what the application raises then
    is a :class:`~genwsgi.errors.BuildError`.  The object is the callable for the server; any thread
    may call it.

    A server with worker processes has to make it in each of them.  In a process that is forked from
    the one that made it there is no thread of its: it serves what was current, and nothing new.
    uWSGI forks while threads run, without the interpreter's help: such a worker may hang at once,
    so it needs ``lazy-apps``.

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
        _refuse_circle(parsed)
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
        self._folder = Folder(PREFIX)
        atexit.register(self.close)
        self._source = Source(
            rules, Store(self._folder.path), find_others(watch_paths, watch_patterns, ignore)
        )
        self._watch: WatchTrigger | None = None
        self._orders: Orders | None = None
        self._live = LiveApplication(
            parsed,
            self._source.store,
            factory=factory,
            header=generation_header,
            verification=verification,
        )
        lookup.made()
        self._deploys = Deploys(self._live, self._source, build_timeout, self._follow)
        self._application: Callable[..., Iterable[bytes]] = self._live.application
        _made.add(self)
        # For what lies there and is shared: a package that ``share`` names, a C extension.
        self._path = [folder for folder in own if folder not in sys.path]
        sys.path[:0] = self._path
        try:
            with self._deploys.one_at_a_time():
                if watch:
                    # First, and its orders wait: an edit made during the build is not missed.
                    self._start_watch(watch_paths, watch_patterns, ignore, watch_polling)
                self._source.warn_of_left_out(log)
                self._deploys.first()
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
        ``refused``.  So is one by a thread in the middle of another, as in a signal handler.

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
        asked = Asked(force, path and os.path.abspath(path), modules, confirm)
        if self._pid != os.getpid():  # whoever had a lock when it was forked has it for ever
            outcome, reason, trace = Outcome.REFUSED, _FORKED, ""
        else:
            outcome, reason, trace = self._deploys.deploy(asked)
        result = OrderOutcome(
            id=uuid.uuid4().hex[:12],
            outcome=outcome,
            release=self._deploys.count,
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
        return self._deploys.explain()

    def close(self) -> None:
        """Stop watching, drop all generations and remove the snapshots.  Any thread, any often.

        In a process forked from the one that made it, nothing: all others import from there.
        """
        if self._pid != os.getpid() or not self._deploys.stop():
            return
        atexit.unregister(self.close)
        if self._orders is not None:
            self._orders.close(CLOSE)
        if self._watch is not None:
            self._watch.stop()
            self._watch.join(CLOSE)
        # A deploy under way gives up soon, and must not write into a folder that is removed.
        self._deploys.wait(CLOSE)
        self._live.close()
        for folder in self._path:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)
        self._folder.remove()

    def __enter__(self) -> GenerationalApp:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _committed(self) -> int:
        return self._deploys.count

    def _follow(self, places: Sequence[str]) -> None:
        if self._watch is not None:
            self._watch.follow(places)

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


def _refuse_circle(target: Target) -> None:
    """Refuse to be made by code that each generation of this application would load again.

    :raises TargetError: it is.
    """
    generation = asking()
    table = None if generation is None else generation.modules
    parts = target.module.split(".")
    for name in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
        if isinstance(table, ModuleTable) and being_loaded(name, table.modules.get(name)):
            reason = (
                "importing it makes the application that serves it; move that to another module"
            )
            raise TargetError(target.text, reason)


#: Those that are there, to be told of a fork.
_made: weakref.WeakSet[GenerationalApp] = weakref.WeakSet()


def _forked() -> None:
    for application in list(_made):
        application._application = application._serve_forked


os.register_at_fork(after_in_child=_forked)

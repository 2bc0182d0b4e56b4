"""The updater: takes requests for updates, one after another, on a thread of its own.

Everything but the queue belongs to that thread; what others read is replaced whole.  Requests come
from the broker, from the file watch and from :func:`genwsgi.hotupdate.update`; each has an outcome.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from genwsgi.background import BackgroundBuild
from genwsgi.deploy.protocol import Outcome
from genwsgi.errors import GenwsgiError, UpdateRefused
from genwsgi.generations.generation import Generation
from genwsgi.hotupdate.own import Module, Search, homes, loaded
from genwsgi.hotupdate.plan import Plan, Planner
from genwsgi.hotupdate.running import Running
from genwsgi.hotupdate.source import Sources
from genwsgi.hotupdate.versions import Version, Versions, is_live, served
from genwsgi.isolation import asking

log = logging.getLogger("genwsgi")

#: How long a build may take, in seconds.
BUILD_TIMEOUT = 60.0

#: How often the versions that are in use are looked at, in seconds.
TIDY = 0.2

#: After how many seconds a version that a thread is still in is named in the log.
LONG = 60.0

Callback = Callable[[Version, Version], object]


@dataclass(frozen=True)
class Update:
    """How an update ended.

    :ivar outcome: "committed", "failed", "refused" or "unchanged".
    :ivar version: the number of the version that is current now.
    :ivar modules: what was rebuilt, or would have been.
    :ivar reason: why it failed or was refused, in one line.
    :ivar traceback: what the module raised, whole.
    :ivar seconds: how long it took.
    """

    outcome: str
    version: int
    modules: tuple[str, ...] = ()
    reason: str = ""
    traceback: str = ""
    seconds: float = 0.0


@dataclass
class Request:
    """A wish for an update.

    :ivar modules: what is to be rebuilt; empty: whatever of the program has changed.
    :ivar path: a folder to look for the program's modules in first, from now on.
    :ivar touched: real paths of files that are known to have changed.
    :ivar source: who asks, for the log.
    :ivar tell: called with the outcome, on the updater's thread.
    """

    modules: tuple[str, ...] = ()
    path: str = ""
    touched: tuple[str, ...] = ()
    source: str = "update()"
    tell: Callable[[Update], object] = lambda _update: None
    begun: float = field(default_factory=time.monotonic)


class Wake(Enum):
    """What wakes the updater when there is no request."""

    UP = "up"


class Updater:
    """Makes updates of one process.

    :ivar homes: the folders that the program's modules were imported from when it began.
    :ivar last: how the last update ended; ``None``: there was none.
    """

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.last: Update | None = None
        self.homes: tuple[str, ...] = ()
        self.keep: frozenset[str] = frozenset()
        self.build_timeout = BUILD_TIMEOUT
        self._queue: queue.SimpleQueue[Request | Wake | None] = queue.SimpleQueue()
        versions.on_idle(self._wake)
        self._thread: threading.Thread | None = None
        # Guards the start of the thread.
        self._starting = threading.Lock()
        # Guards the list of those that want to know of updates.
        self._registering = threading.Lock()
        self._callbacks: list[tuple[Callback, weakref.ref[Generation] | None]] = []
        self._sources = Sources()
        self._search = Search()
        self._running = Running(self._sources)
        self._told: set[str] = set()
        self._since: dict[int, float] = {}
        self._changed_at = 0.0

    @property
    def is_updater(self) -> bool:
        """Whether this is the updater's own thread."""
        return threading.current_thread() is self._thread

    def begin(self) -> None:
        """Note what the program runs now: later changes are told by it.

        Before the first update, on the thread that calls it.
        """
        with self._starting:
            if not self.homes:
                self.homes = tuple(sorted(homes()))
            if self._thread is None:
                self._running.begin(loaded())
                self._start()

    def ask(self, request: Request) -> None:
        """Have an update made.  Any thread; returns at once."""
        with self._starting:
            self._start()
        self._queue.put(request)

    def on_update(self, callback: Callback) -> None:
        """Call ``callback`` after each update.  Any thread.

        One that a version registers goes with the version.
        """
        owner = asking.asking()
        with self._registering:
            self._callbacks.append((callback, None if owner is None else weakref.ref(owner)))

    def forget(self, callback: Callback) -> None:
        """Call ``callback``, this very object, no more.  Any thread."""
        with self._registering:
            self._callbacks[:] = [one for one in self._callbacks if one[0] is not callback]

    def _wake(self) -> None:
        self._queue.put(Wake.UP)

    def folders(self) -> list[str]:
        """Return the folders that the program's own modules are imported from now."""
        return sorted({*self._search.first, *homes()})

    def after_fork(self) -> None:
        """Go on in a child that was forked: it has none of the threads."""
        self._queue = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._registering = threading.Lock()
        self._thread = None
        self.versions.after_fork()

    def close(self, timeout: float = 5.0) -> None:
        """End the thread, and with it all versions but the first: the process is as it was before.

        :param timeout: how long to wait for each, in seconds.
        """
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout)
        self.versions.close(timeout)

    # The thread.

    def _start(self) -> None:
        """Start it, if it is not there.  ``_starting`` is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="genwsgi-hotupdate", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        in_use = False
        while True:
            try:
                # Pins wake it up when they end; what threads run has to be looked at.
                wait = TIDY if time.monotonic() < self._changed_at + LONG else LONG / 10
                request = self._queue.get(timeout=wait if in_use else None)
            except queue.Empty:
                pass
            else:
                if request is None:
                    return
                if isinstance(request, Request):
                    self._serve(request)
                    self._changed_at = time.monotonic()
                del request
            try:
                in_use = self.versions.tidy()
                self._tell_of_long_ones()
            except Exception:
                log.exception("looking after old versions failed; it is tried again")

    def _serve(self, request: Request) -> None:
        started = time.monotonic()
        modules: tuple[str, ...] = ()
        outcome, reason, trace = Outcome.FAILED, "", ""
        try:
            outcome, reason, modules = self._update(request)
        except UpdateRefused as error:
            outcome, reason = Outcome.REFUSED, error.reason
        except GenwsgiError as error:
            reason, trace = str(error), error.traceback
        except Exception as error:
            log.exception("an update by %s broke down", request.source)
            reason = f"the update broke down: {error!r}; see the log"
        seconds = time.monotonic() - started
        number = self.versions.current.number
        self.last = update = Update(outcome, number, modules, reason, trace, seconds)
        if outcome in (Outcome.FAILED, Outcome.REFUSED):
            what = f"{reason}\n{trace}" if trace else reason
            log.error(
                "hotupdate by %s %s; version %d goes on: %s", request.source, outcome, number, what
            )
        elif outcome == Outcome.UNCHANGED:
            log.info("hotupdate by %s: unchanged%s", request.source, reason and f", {reason}")
        try:
            request.tell(update)
        except Exception:
            log.exception("whoever asked for an update (%s) could not be told", request.source)

    def _update(self, request: Request) -> tuple[str, str, tuple[str, ...]]:
        """Make one update; return its outcome, a remark and what was rebuilt."""
        self._sources.begin()
        search = self._search.put_first(request.path) if request.path else self._search
        mine = loaded()
        self._running.note(mine, set(request.touched), request.modules)
        planner = Planner(self._sources, self.keep)
        before = self.versions.current.modules
        named = request.modules or self._changed(search, mine, planner)
        for name in request.modules:
            holds = planner.part_of_the_program(name, mine, named=True)
            if holds:
                raise UpdateRefused(f"{name} has modules in it, and {holds}: name what has changed")
        if not named:
            self._search = search
            return Outcome.UNCHANGED, "", ()
        plan = planner.plan(named, search, mine, before, self._running.has_changed)
        for name in plan.modules:
            if served(name):
                raise UpdateRefused(
                    f"genwsgi serves an application with {name}: deploy that instead"
                )
        modules = tuple(sorted(plan.modules))
        # Of a package only the snapshot tells whether something in it is new.
        same = not any(
            m.package or self._running.has_changed(m, new=True) for m in plan.modules.values()
        )
        digest = "" if same else self.versions.take(plan)
        if same or digest == self.versions.current.digest:
            self._search = search
            return Outcome.UNCHANGED, "", modules
        self.versions.adopt(plan)
        generation = self._build(digest, plan)
        old = self.versions.swap(generation, digest, plan.modules)
        del generation
        self._search = search.only(plan.modules.values())
        runs = (plan.modules.get(name) or search.find(name) for name in {*plan.modules, *mine})
        self._running.remember(filter(None, runs), self.versions.sources(digest))
        new = self.versions.current
        log.info("hotupdate by %s: version %d: %s", request.source, new.number, plan.describe())
        self._tell_of_stale(plan)
        self._call_back(old, new)
        return Outcome.COMMITTED, "", modules

    def _tell_of_stale(self, plan: Plan) -> None:
        for package, names in plan.stale.items():
            told = f"__init__ of {package}"
            if names and package not in plan.modules and told not in self._told:
                self._told.add(told)
                log.warning(
                    "code in the %s goes on with the old %s: move it to a module, or name %s in "
                    "updates",
                    told,
                    ", ".join(names),
                    package,
                )

    def _build(self, digest: str, plan: Plan) -> Generation:
        over = threading.Event()
        ended: list[BackgroundBuild] = []

        def done(build: BackgroundBuild) -> None:
            ended.append(build)
            over.set()

        build = BackgroundBuild(self.versions, digest, " ".join(plan.modules), done)
        if not over.wait(self.build_timeout):
            where = build.where()
            build.abandon()
            if not ended:
                error = GenwsgiError(f"the build took more than {self.build_timeout} s")
                error.traceback = where
                raise error
        if build.generation is None:
            raise build.error or GenwsgiError("the build ended without a result")
        return build.generation

    def _changed(self, search: Search, mine: dict[str, Module], planner: Planner) -> list[str]:
        """Return the modules whose source is another one than what runs."""
        changed = []
        for name in mine:
            module = search.find(name)
            if module is not None and self._running.has_changed(module):
                holds = planner.part_of_the_program(name, mine)
                if not holds:
                    changed.append(name)
                elif name not in self._told:
                    self._told.add(name)
                    log.warning("%s has changed, but %s; restart the program for it", name, holds)
        return changed

    # Those who want to know.

    def _call_back(self, old: Version, new: Version) -> None:
        with self._registering:
            self._callbacks[:] = [one for one in self._callbacks if _is_wanted(one[1])]
            callbacks = [callback for callback, _ in self._callbacks]
        for callback in callbacks:
            try:
                callback(old, new)
            except Exception:
                log.exception("a callback of on_update raised; the update stands")

    def _tell_of_long_ones(self) -> None:
        """Name versions that a thread has been in for long: it may be a loop without an end."""
        now = time.monotonic()
        in_use = dict(self.versions.in_use())
        self._since = {number: self._since.get(number, now) for number in in_use}
        for number, since in self._since.items():
            if since < now - LONG:
                self._since[number] = float("inf")
                log.warning(
                    "version %d is still in use after %d s, %s; a loop without an end belongs in "
                    "__main__ or in a module that uses genwsgi.hotupdate (see hotupdate.pin)",
                    number,
                    LONG,
                    self.versions.where(number),
                )


def _is_wanted(owner: weakref.ref[Generation] | None) -> bool:
    """Whether a callback of this owner is still called: the program's always, or the current."""
    generation = None if owner is None else owner()
    return owner is None or (generation is not None and is_live(generation))

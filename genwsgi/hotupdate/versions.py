"""The versions of a program's modules: each a generation, but for the first.

Version 1 is the program as it was started.  Every other one is built from a snapshot, beside the
one that is current, and goes live by one pointer assignment.

A version that was replaced *retires* when no unit of work is pinned to it, no thread is in its code
and none of that is suspended: what it did to the process is undone.  Its modules stay as long as
something can still call them (a function that the program took by ``from rules import parse``) and
are collected after that.
Nothing is torn from code that is still held: a program, unlike a server, may hold it for good.

One thread, the updater's, changes what is here; any may ask.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from genwsgi.build import at_once, build_error, tear_down
from genwsgi.errors import BuildAbandoned, GenwsgiError, SnapshotError, VerificationError
from genwsgi.folder import Folder
from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import Event, State
from genwsgi.generations.switch import Switch
from genwsgi.hotupdate.plan import Plan
from genwsgi.hotupdate.suspended import Suspended
from genwsgi.isolation import adopted, asking, effects, imports, lookup
from genwsgi.isolation.effects import Effects, effects_of
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.originals import OriginalTable
from genwsgi.isolation.store import Store
from genwsgi.isolation.view import real
from genwsgi.janitor import Held, Janitor
from genwsgi.verification import Verification

log = logging.getLogger("genwsgi")

#: What the names of the folders with versions' snapshots begin with.
PREFIX: Final = "genwsgi-hotupdate-"


@dataclass(frozen=True)
class Version:
    """One version of the program's modules.

    :ivar number: 1 for the program as it was started, and so on.
    :ivar digest: of the source it was built from; empty for version 1.
    :ivar modules: the modules that it has for itself.
    :ivar when: when it went live, in seconds since the epoch.
    """

    number: int
    digest: str
    modules: tuple[str, ...]
    when: float


class Versions:
    """All versions of one process."""

    def __init__(self) -> None:
        self._number = 1
        self._store: Store | None = None
        self._installed = self._closed = False
        # Who is at work in the process, builds that were given up and close(): the last one leaves
        # it as it was.
        self._at_work = 0
        self._nobody = threading.Condition()
        # Versions that no unit of work is pinned to, whose code threads may still be in.
        self._waiting: list[Generation] = []
        self._suspended = Suspended()
        self._wake: Callable[[], object] = lambda: None
        self._switch = Switch(self._on_idle)
        self._janitor = Janitor(self._busy, lambda: False, lambda: None, tear_down=_let_go)
        self._first = first = Generation(1, "as started")
        first.name = "version 1"
        first.modules = self._originals = OriginalTable(first)
        first.advance(Event.BUILT)
        self._switch.swap(first)
        self.current = Version(1, "", (), time.time())

    @property
    def switch(self) -> Switch:
        """Where units of work take their leases."""
        return self._switch

    def on_idle(self, wake: Callable[[], object]) -> None:
        """Call ``wake`` when the last unit of work of a replaced version has ended.

        From any thread, finalizers included: it must return at once and wait for nothing.
        """
        self._wake = wake

    def take(self, plan: Plan) -> str:
        """Take a snapshot of what ``plan`` names and return its digest.

        :raises SnapshotError: it can't be taken.
        """
        if self._store is None:
            self._store = Store(Folder(PREFIX).path)
        return self._store.take(plan.scope())

    def sources(self, digest: str) -> dict[str, bytes]:
        """Return the content of every source file of a snapshot, by its path."""
        assert self._store is not None, "take() comes first"
        snapshot = self._store.open(digest)
        try:
            return {path: snapshot.source(path) for path in snapshot.files}
        finally:
            snapshot.release()

    def adopt(self, plan: Plan) -> None:
        """Make handles of the modules that ``plan`` rebuilds, where the program has them already.

        For everybody they still mean what they meant.
        """
        if not self._installed:
            self._installed = True
            imports.install(self._provide)
            effects.install()
            self._janitor.start()
        names = set(plan.modules)
        for parent in sorted({name.rpartition(".")[0] for name in names} - {""}):
            if parent not in names and parent not in real:
                # As the program would: it is shared, and has to be there before its module.
                importlib.import_module(parent)
        current = self._switch.current or self._first
        for name in adopted.adopt(names, self._originals, current):
            log.warning("%s is no plain module in sys.modules; code that has it keeps it", name)
        for package, taken in plan.reexports.items():
            adopted.reexport(package, taken)

    def build(
        self,
        digest: str,
        release: str,
        on_module: Callable[[int], None] | None = None,
        *,
        grow: bool = True,  # noqa: ARG002 -- as LiveApplication.build
        look: bool = True,  # noqa: ARG002 -- the same
        strict: bool = True,  # noqa: ARG002 -- the same
        on_check: Callable[[int, int], None] | None = None,
        on_look: Callable[[], object] = lambda: None,  # noqa: ARG002 -- the same
        run: Callable[..., Any] = at_once,
    ) -> Generation:
        """Build a version from the snapshot ``digest``, on the calling thread, and check it.

        :param release: the names of the modules to import, separated by spaces.
        :param on_check: see :meth:`~genwsgi.verification.Verification.run`.
        :raises BuildError, VerificationError, SnapshotError: no trace is left and what is current
            is untouched.
        """
        with self._working():
            if self._closed:
                raise BuildAbandoned
            return self._build(digest, release, on_module, on_check, run)

    def _build(
        self,
        digest: str,
        release: str,
        on_module: Callable[[int], None] | None,
        on_check: Callable[[int, int], None] | None,
        run: Callable[..., Any],
    ) -> Generation:
        assert self._store is not None, "take() comes first"
        snapshot = self._store.open(digest)
        self._number += 1
        generation = Generation(self._number, release)
        generation.name = f"version {self._number}"
        table = ModuleTable(generation, snapshot)
        table.handles = True
        table.on_loaded = on_module
        # Held by nothing of its own: it goes when the last code that could use it has gone.
        weakref.finalize(table, snapshot.release).atexit = False
        generation.modules = table
        kept = Effects(generation)
        imports.opened(table)
        failure: GenwsgiError
        try:
            for name in release.split():
                run(generation.run, table.import_module, name)
            kept.built()
            Verification().run(generation, on_check)
        except (BuildAbandoned, KeyboardInterrupt):
            self._drop(generation, Event.FAILED, "has failed")
            raise
        except (SnapshotError, VerificationError) as error:
            failure = error.with_traceback(None)
        except BaseException as error:  # noqa: BLE001 -- SystemExit at import is a mistake as well
            failure = build_error(error, release)
        else:
            table.on_loaded = None
            generation.advance(Event.BUILT)
            return generation
        # Raised out here, so that no traceback keeps the failed version's modules.
        self._drop(generation, Event.FAILED, "has failed")
        failure.__context__ = failure.__cause__ = None
        raise failure

    def busy(self) -> bool:
        """A program is always at work."""
        return True

    def discard(self, generation: Generation) -> None:
        """Drop a ready version that will not go live."""
        self._drop(generation, Event.DISCARDED, "was discarded")

    def swap(self, generation: Generation, digest: str, names: Iterable[str]) -> Version:
        """Make a version the current one and return the one it replaces."""
        replaced = self.current
        made = Version(generation.number, digest, tuple(sorted(names)), time.time())
        self._switch.swap(generation)
        # Only now: whoever reads it and takes a pin then gets this one, or a later one.
        self.current = made
        if self._store is not None:
            try:
                self._store.sweep([digest])
            except OSError as error:  # after the next update, then
                log.debug("old snapshots are not removed: %s", error)
        return replaced

    def tidy(self) -> bool:
        """Let versions go that nobody uses any more; say whether some are still in use."""
        waiting = self._waiting[:]
        if waiting:
            busy = _in_use(waiting)
            # Of the first nothing is undone, so what of it is suspended is safe.
            others = [one for one in waiting if one not in busy and one is not self._first]
            suspended = self._places(others)
            for generation in waiting:
                if generation not in busy and generation not in suspended:
                    self._waiting.remove(generation)
                    if generation is not self._first:
                        self._janitor.retire(generation)
        return bool(self._waiting)

    def in_use(self) -> list[tuple[int, int]]:
        """Return the replaced versions that are in use, each with its number of pins."""
        draining = [(one.number, len(one.leases)) for one in self._switch.draining()]
        return sorted([*draining, *((one.number, 0) for one in self._waiting[:])])

    def where(self, number: int) -> str:
        """Say where code of a replaced version runs, for people."""
        for generation in [*self._waiting, *self._switch.draining()]:
            if generation.number == number:
                places = _in_use([generation]).get(generation, [])
                places = places or list(self._places([generation]).values())
                return ", ".join(places) or "by units of work that are pinned to it"
        return "no more"

    def held(self) -> tuple[Held, ...]:
        """Return the versions that have retired, and that something can still call."""
        return tuple(self._janitor.held())

    def after_fork(self) -> None:
        """Go on in a child that was forked: it has none of the threads, and not the folder."""
        # Another thread may have had its lock.
        self._switch.after_fork()
        self._nobody, self._at_work = threading.Condition(), 0
        self._store = None
        self._janitor = Janitor(self._busy, lambda: False, lambda: None, tear_down=_let_go)
        if self._installed:
            self._janitor.start()

    def close(self, timeout: float = 5.0) -> None:
        """Make version 1 the only one again, with everything as it was before the first update.

        A build that was given up and still runs keeps the process from that until it ends.

        :param timeout: how long to wait for the teardown, and for such builds, in seconds.
        """
        deadline = time.monotonic() + timeout
        with self._working():
            generation = self._switch.current
            self._switch.close()
            if generation is not None and generation is not self._first and not generation.leases:
                self._waiting.remove(generation)
                tear_down(generation)
            if self._installed:
                self._janitor.close(timeout)
            with self._nobody:
                self._closed = True
                left = max(0.0, deadline - time.monotonic())
                self._nobody.wait_for(lambda: self._at_work == 1, left)

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Keep the process from being left meanwhile, and leave it after the last work in it."""
        with self._nobody:
            self._at_work += 1
        try:
            yield
        finally:
            with self._nobody:
                self._at_work -= 1
                self._nobody.notify_all()
                over = self._closed and self._installed and not self._at_work
                self._installed = self._installed and not over
            if over:
                effects.uninstall()
                imports.uninstall(self._provide)
                adopted.release()

    def _drop(self, generation: Generation, event: Event, end: str) -> None:
        tear_down(generation, event)
        self._janitor.follow(generation, end)

    def _places(self, generations: Collection[Generation]) -> dict[Generation, str]:
        own = {thread.ident or 0 for one in generations for thread in _threads_of(one)}
        return self._suspended.places(generations, own)

    def _on_idle(self, generation: Generation) -> None:
        self._waiting.append(generation)
        self._wake()

    def _provide(self) -> Generation | None:
        return self._switch.current

    def _busy(self) -> int:
        return sum(self._switch.statistics().leases.values())


def _let_go(generation: Generation) -> None:
    """Undo what a version did to the process; its modules stay for whoever holds them."""
    kept = effects_of(generation)
    if kept is not None:
        kept.retire(generation.run)
    generation.forget_contexts()
    table = generation.modules
    if isinstance(table, ModuleTable):
        effects.forget(table.builtins, table.modules)


def _in_use(waiting: Collection[Generation]) -> dict[Generation, list[str]]:
    """Return those of ``waiting`` whose code some thread is in, and where.

    A thread that the version started itself does not count: it is the version's to end.
    """
    found: dict[Generation, list[str]] = {}
    own = {thread.ident: generation for generation in waiting for thread in _threads_of(generation)}
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        at: FrameType | None = frame
        while at is not None:
            generation = asking.generation_of(at)
            if (
                generation is not None
                and generation in waiting
                and own.get(ident) is not generation
            ):
                place = (
                    f"{names.get(ident, ident)} in {at.f_code.co_name} of {at.f_code.co_filename}"
                )
                found.setdefault(generation, []).append(place)
            at = at.f_back
    return found


def _threads_of(generation: Generation) -> list[threading.Thread]:
    kept = effects_of(generation)
    return [] if kept is None else kept.stragglers()


def served(name: str) -> bool:
    """Whether a module is of an application that genwsgi serves in this process."""
    return any(table.owns(name) for table in list(lookup.living) if not table.handles)


def is_live(generation: Generation) -> bool:
    """Whether a version is current."""
    return generation.state is State.CURRENT

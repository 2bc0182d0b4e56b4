"""The application of this process: builds generations, swaps them in, tears the old ones down.

Knows of no deploy protocol and no server.  ``_lock`` guards the numbering; it is taken by itself,
and never held while application code runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from genwsgi.build import build, build_error, tear_down
from genwsgi.errors import BuildAbandoned, GenwsgiError, VerificationError
from genwsgi.generations.counts import GenerationCounts, Meter, counted
from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import Event, State
from genwsgi.generations.middleware import Middleware
from genwsgi.generations.status import GenerationStatus
from genwsgi.generations.switch import Statistics, Switch
from genwsgi.hooks import hand_over
from genwsgi.interrupt import interrupt, where
from genwsgi.isolation import effects, imports
from genwsgi.isolation.growth import Verdict
from genwsgi.isolation.snapshot import Store
from genwsgi.janitor import Janitor
from genwsgi.keeping import kept
from genwsgi.target import Target
from genwsgi.verification import Verification

log = logging.getLogger("genwsgi")

#: After each module of a background build the builder lets requests run for this long, in seconds.
PAUSE = 0.001

#: The requests of how many generations are known, where they are counted: the latest of those that
#: have served.
COUNTED = 50


class LiveApplication:
    """One application in one process, in as many generations as still owe a response.

    :param target: what to serve.
    :param store: where the snapshots are.
    :param factory: see :func:`genwsgi.target.resolve`.
    :param header: name of a response header for the generation's number, or ``None``.
    :param folder: where to be for a build when the working directory has been deleted, as deploy
        tools do with old releases; may be or contain a symlink.
    :param verification: what a candidate has to show, besides the application's own checks.
    :param counting: whether to count the requests of each generation.
    :ivar counting: whether it does.
    :ivar application: the stable WSGI callable for the server.
    """

    def __init__(
        self,
        target: Target,
        store: Store,
        *,
        factory: bool | None = None,
        header: str | None = None,
        folder: str | None = None,
        verification: Verification | None = None,
        counting: bool = False,
    ) -> None:
        self._target = target
        self._folder = folder
        self._store = store
        self._factory = factory
        self._verification = verification or Verification()
        self._lock = threading.Lock()
        self._number = 0
        self._closed = False
        # Whether close() waits for the janitor, and whether that has nothing left to do.
        self._awaited = False
        self._drained = True
        self._janitor = Janitor(self._busy, self._draining, self._on_drained, kept)
        self._started = False
        self.counting = counting
        #: By the generation's number, with its release; written by whoever swaps.
        self._meters: dict[int, tuple[str, Meter]] = {}
        self._switch = Switch(self._janitor.retire)
        self.application = Middleware(self._switch, header)
        imports.install(self._current)
        effects.install()

    def __repr__(self) -> str:
        return f"<LiveApplication {self._target.text} {self._switch!r}>"

    @property
    def current(self) -> Generation | None:
        """The generation that new requests get."""
        return self._switch.current

    def _current(self) -> Generation | None:
        return self._switch.current

    def build(
        self,
        digest: str,
        release: str,
        on_module: Callable[[int], None] | None = None,
        *,
        grow: bool = True,
        look: bool = True,
        strict: bool = True,
        on_check: Callable[[int, int], None] | None = None,
        verdicts: list[Verdict] | None = None,
    ) -> Generation:
        """Build a generation from the snapshot ``digest`` on the calling thread, and verify it.

        :param release: the release in words, for the environ and the logs.
        :param grow: whether a scope that is too small ends the build; else it is only logged.
        :param look: whether to look for what the scope lacks when the build has ended well.
        :param strict: whether a verification that fails ends it; else it is only logged.
        :param on_check: see :meth:`~genwsgi.verification.Verification.run`.
        :param verdicts: gets what is in the scope and what is not, and why.
        :raises TargetError, ScopeError, BuildError, VerificationError, SnapshotError: as
            :func:`genwsgi.build.build`; no trace is left and what is served is untouched.
        """
        self._be_somewhere()
        snapshot = self._store.open(digest)
        with self._lock:
            self._number += 1
            generation = Generation(self._number, release)

        def verify(candidate: Generation) -> None:
            try:
                self._verification.run(candidate, on_check)
            except VerificationError as error:
                if strict:
                    raise
                log.warning(
                    "%s serves all the same: %s\n%s", candidate.name, error, error.traceback
                )

        try:
            build(
                generation,
                self._target,
                snapshot,
                self._factory,
                on_module,
                grow=grow,
                look=look,
                verdicts=verdicts,
                hand_over=self._hand_over,
                verify=verify,
            )
            return generation
        except BuildAbandoned:
            # It came when the build had just ended.
            if generation.state is State.READY:
                self.discard(generation)
            raise

    def _be_somewhere(self) -> None:
        """Leave a working directory that was deleted: there, ``os.getcwd()`` fails."""
        try:
            os.getcwd()
        except FileNotFoundError:
            if self._folder is not None:
                with contextlib.suppress(OSError):  # a build that needs it will say so
                    os.chdir(self._folder)
                    log.info("the working directory was deleted; it is %s now", self._folder)

    def swap(self, generation: Generation) -> None:
        """Make a ready generation the current one: one pointer assignment."""
        if not self._started:
            self._started, self._drained = True, False
            self._janitor.start()
        if self.counting:
            self._count(generation)
        self._switch.swap(generation)

    def discard(self, generation: Generation) -> None:
        """Drop a ready generation that will not be swapped in."""
        tear_down(generation, Event.DISCARDED)

    def draining(self) -> list[Generation]:
        """The replaced generations that still owe a response, oldest first."""
        return self._switch.draining()

    def statistics(self) -> Statistics:
        """What is current and what drains.  Any thread may ask."""
        return self._switch.statistics()

    def close(self, timeout: float = 5.0) -> None:
        """Take no more requests and tear down what has no lease open; the rest as leases end.

        With the last generation the process is as it was before.

        :param timeout: how long to wait for the teardown, in seconds.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = self._awaited = True
        self._switch.close()
        self._janitor.close(timeout)
        with self._lock:
            self._awaited = False
            drained = self._drained
        if drained:
            self._leave()

    def status(self) -> tuple[GenerationStatus, ...]:
        """Return how every generation stands that serves, drains or is not gone yet.

        Oldest first.  Any thread may ask.
        """
        # Those that serve first: one that retires meanwhile is seen twice rather than not at all.
        current = self._switch.current
        serving = [*self._switch.draining(), *([current] if current else [])]
        found = {one.number: one for one in map(_status, serving)}
        for held in self._janitor.held():
            found[held.number] = GenerationStatus(
                held.number,
                held.release,
                State.RETIRED.value,
                0,
                None,
                held.holder,
                age=_since(held.replaced),
            )
        return tuple(found[number] for number in sorted(found))

    def counts(self) -> tuple[GenerationCounts, ...]:
        """Return what has become of the requests of the latest generations, oldest first.

        Any thread may ask.  Empty unless they are counted.
        """
        return tuple(
            GenerationCounts(number, release, meter.tally())
            for number, (release, meter) in sorted(self._meters.copy().items())
        )

    def _count(self, generation: Generation) -> None:
        assert generation.application is not None, "only what is built can serve"
        meter = Meter()
        generation.application = counted(generation.application, meter)
        self._meters[generation.number] = generation.release, meter
        while len(self._meters) > COUNTED:
            del self._meters[min(self._meters)]

    def _hand_over(self, generation: Generation) -> None:
        """Offer a generation that is being built what the current one puts forward."""
        if self._switch.current is None:
            return
        # Not to be torn down while it is asked.
        lease = self._switch.lease()
        try:
            hand_over(lease.generation, generation)
        finally:
            self._switch.end(lease)

    def _busy(self) -> int:
        return sum(self._switch.statistics().leases.values())

    def _draining(self) -> bool:
        return bool(self._switch.draining())

    def _on_drained(self) -> None:
        """The janitor has nothing left to do."""
        with self._lock:
            self._drained = True
            alone = not self._awaited
        if alone:
            self._leave()

    def _leave(self) -> None:
        effects.uninstall()
        imports.uninstall(self._current)


def _status(generation: Generation) -> GenerationStatus:
    oldest = generation.leases.oldest()
    return GenerationStatus(
        generation.number,
        generation.release,
        generation.state.value,
        len(generation.leases),
        None if oldest is None else _since(oldest.since),
        "",
        "" if oldest is None else oldest.request,
        _since(generation.replaced),
    )


def _since(moment: float | None) -> float | None:
    return None if moment is None else time.monotonic() - moment


class Builds(Protocol):
    """What a build on a thread of its own needs of whoever builds."""

    def build(
        self,
        digest: str,
        release: str,
        on_module: Callable[[int], None] | None = None,
        *,
        grow: bool = True,
        look: bool = True,
        strict: bool = True,
        on_check: Callable[[int, int], None] | None = None,
    ) -> Generation:
        """Build a generation from the snapshot ``digest`` on the calling thread."""

    def discard(self, generation: Generation) -> None:
        """Drop a ready generation that will not be swapped in."""


class BackgroundBuild:
    """A build on a thread of its own, that can be given up.

    :param done: called on that thread when the build has ended, unless it was abandoned before.
    :param grow, look, strict: see :meth:`LiveApplication.build`.
    :ivar generation: the ready generation, or ``None``.
    :ivar error: why there is none.
    :ivar seconds: how long it took.
    """

    def __init__(
        self,
        live: Builds,
        digest: str,
        release: str,
        done: Callable[[BackgroundBuild], None],
        *,
        grow: bool = True,
        look: bool = True,
        strict: bool = True,
    ) -> None:
        self.generation: Generation | None = None
        self.error: GenwsgiError | None = None
        self.seconds = 0.0
        self._live = live
        self._digest = digest
        self._release = release
        self._done = done
        self._grow = grow
        self._look = look
        self._strict = strict
        # Guards the race between the end of the build and its abandonment.
        self._lock = threading.Lock()
        self._abandoned = False
        self._ended = False
        self._thread = threading.Thread(
            target=self._run, name=f"genwsgi-build {release}", daemon=True
        )
        self._thread.start()

    def abandon(self) -> None:
        """Give the build up: it stops as soon as it can and leaves nothing.  Any thread."""
        with self._lock:
            if self._abandoned:
                return
            self._abandoned = True
            # A build may hang in an endless loop; this makes it raise at its next instruction.
            # A thread blocked in C sees it when it comes back.
            if not self._ended:
                interrupt(self._thread)

    @property
    def running(self) -> bool:
        """Whether the build's thread is still at it."""
        return self._thread.is_alive()

    def where(self) -> str:
        """Where the build is now, as the last lines of its stack, for the log."""
        return where(self._thread)

    def _run(self) -> None:
        started = time.monotonic()
        with contextlib.suppress(BuildAbandoned):
            try:
                self.generation = self._live.build(
                    self._digest,
                    self._release,
                    self._breathe,
                    grow=self._grow,
                    look=self._look,
                    strict=self._strict,
                    on_check=self._breathe,
                )
            except GenwsgiError as error:
                self.error = error
            except KeyboardInterrupt as error:
                # Signals are for the main thread: it is the application that has raised this one.
                self.error = build_error(error, self._release)
            except Exception as error:
                # Nothing of the application's: but somebody waits for the end of this build.
                log.exception("a build of release %s broke down", self._release)
                self.error = GenwsgiError(f"the build broke down: {error!r}; see the log")
        self.seconds = time.monotonic() - started
        abandoned = self._end()
        if not abandoned:
            self._done(self)
        elif self.generation is not None:
            self._live.discard(self.generation)

    def _end(self) -> bool:
        """End the time in which :meth:`abandon` interrupts; say whether it did."""
        try:
            with self._lock:
                self._ended = True
                if not self._abandoned:
                    return False
            # What abandon() sent may not have arrived yet.  There is room for one such exception:
            # sent again and caught, none is left to come later, in the middle of something else.
            while interrupt(self._thread):
                time.sleep(PAUSE)
        except BuildAbandoned:
            pass
        return True

    def _breathe(self, *_how_far: int) -> None:
        if self._abandoned:
            raise BuildAbandoned
        time.sleep(PAUSE)

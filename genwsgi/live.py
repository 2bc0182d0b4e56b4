"""The application of this process: builds generations, swaps them in, tears the old ones down.

Knows of no deploy protocol and no server.  ``_lock`` guards the numbering, and who is at work in
the process; it is taken by itself, and never held while application code runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from genwsgi.build import at_once, build, tear_down
from genwsgi.errors import GenwsgiError, ScopeError, VerificationError
from genwsgi.generations.cancelling import Cancellation, Means
from genwsgi.generations.counts import GenerationCounts, Meters
from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import Event, State
from genwsgi.generations.middleware import Middleware
from genwsgi.generations.status import GenerationStatus
from genwsgi.generations.switch import Statistics, Switch
from genwsgi.hooks import hand_over
from genwsgi.isolation import effects, imports
from genwsgi.isolation.growth import Verdict
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.store import Store
from genwsgi.janitor import Held, Janitor
from genwsgi.keeping import kept
from genwsgi.steps import step
from genwsgi.target import Target
from genwsgi.verification import Verification

log = logging.getLogger("genwsgi")

_CLOSED = "the application is closed; make another one"

#: Of how many generations it is kept how long they drained, until somebody asks.
DRAINED = 1000

#: How long a build waits for the collection of what has retired before, in seconds.
CATCH_UP = 1.0


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
        self._closed = self._left = False
        # Who keeps the process from being left: builds and teardowns, close() and the janitor.
        self._at_work = 0
        self._nobody = threading.Condition(self._lock)
        # What is built and has not been swapped in.
        self._ready: set[Generation] = set()
        #: How long generations drained, for whoever asks next; of very many the latest.
        self._drained: deque[float] = deque(maxlen=DRAINED if counting else 0)
        self._janitor = Janitor(
            self._leases, self._draining, self._has_worked, kept, on_drained=self._drained.append
        )
        self._started = False
        self.counting = counting
        self._meters = Meters()
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

    @property
    def parked(self) -> Generation | None:
        """The replaced generation that is kept ready to be current again."""
        return self._switch.parked

    @property
    def size(self) -> int:
        """How many modules of its own the current generation has loaded."""
        current = self._switch.current
        table = current.modules if current is not None else None
        return len(table.modules) if isinstance(table, ModuleTable) else 0

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
        on_look: Callable[[], object] = lambda: None,
        run: Callable[..., Any] = at_once,
    ) -> Generation:
        """Build a generation from the snapshot ``digest`` on the calling thread, and verify it.

        :param release: the release in words, for the environ and the logs.
        :param grow: whether a scope that is too small ends the build; else it is only logged.
        :param look: whether to look for what the scope lacks when the build has ended well.
        :param strict: whether a verification that fails ends it; else it is only logged.
        :param on_check: see :meth:`~genwsgi.verification.Verification.run`.
        :param verdicts: gets what is in the scope and what is not, and why.
        :param on_look: called when it is built and verified, and only the look is left.
        :param run: calls the functions that run code of the application.
        :raises TargetError, ScopeError, BuildError, VerificationError, SnapshotError: as
            :func:`genwsgi.build.build`; no trace is left and what is served is untouched.
        :raises GenwsgiError: it is closed, or was closed meanwhile.
        """
        began = time.monotonic()
        with self._working():
            self._be_open()
            # Else each build of a quick series would add one more to those that are there.
            self._janitor.catch_up(CATCH_UP)
            self._be_somewhere()
            snapshot = self._store.open(digest)
            with self._lock:
                self._number += 1
                generation = Generation(self._number, release)

            def verify(candidate: Generation) -> None:
                if verdicts is None:  # else it is a look at the scope, and will not serve
                    _say_built(candidate, time.monotonic() - began)
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
                    on_look=on_look,
                    run=run,
                )
            except BaseException as error:
                self._janitor.follow(generation, "has failed")
                # It is built again, with a larger scope: that is this generation, then.
                if isinstance(error, ScopeError):
                    with self._lock:
                        if self._number == generation.number:
                            self._number -= 1
                raise
            with self._lock:
                if not self._closed:
                    self._ready.add(generation)
                    return generation
            self._drop(generation)
            raise GenwsgiError(_CLOSED)

    def _be_open(self) -> None:
        with self._lock:
            if self._closed:
                raise GenwsgiError(_CLOSED)

    def _be_somewhere(self) -> None:
        """Leave a working directory that was deleted: there, ``os.getcwd()`` fails."""
        try:
            os.getcwd()
        except FileNotFoundError:
            if self._folder is not None:
                with contextlib.suppress(OSError):  # a build that needs it will say so
                    os.chdir(self._folder)
                    log.info("the working directory was deleted; it is %s now", self._folder)

    def swap(self, generation: Generation, *, park: bool = False) -> None:
        """Make a ready, or parked, generation the current one: one pointer assignment.

        :param park: keep the one that it replaces ready to be swapped in again.
        """
        with self._lock:
            self._ready.discard(generation)
            first, self._started = not self._started, True
            self._at_work += first
        if first:
            self._janitor.start()
        if self.counting:
            self._meters.count(generation)
        self._switch.swap(generation, park=park)

    def unpark(self) -> None:
        """Let the parked generation drain, if there is one."""
        self._switch.unpark()

    def discard(self, generation: Generation) -> None:
        """Drop a ready generation that will not be swapped in; :meth:`close` may have done it.

        One that is parked stays so.
        """
        if generation.state is State.PARKED:
            return
        with self._working():
            with self._lock:
                if self._closed and generation not in self._ready:
                    return
                self._ready.discard(generation)
            self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        tear_down(generation, Event.DISCARDED)
        self._janitor.follow(generation, "was discarded")

    def draining(self) -> list[Generation]:
        """The replaced generations that still owe a response, oldest first."""
        return self._switch.draining()

    def cancel(self, number: int, means: tuple[Means, ...]) -> Cancellation | None:
        """Begin to end the requests of the replaced generation ``number``, if there is one."""
        for generation in self._switch.held():
            if generation.number == number and generation is not self._switch.current:
                return Cancellation(self._switch, generation, means)
        return None

    def statistics(self) -> Statistics:
        """What is current and what drains.  Any thread may ask."""
        return self._switch.statistics()

    def close(self, timeout: float = 5.0) -> None:
        """Take no more requests and tear down what has no lease open; the rest as leases end.

        With the last generation, and the last build that was abandoned and is being undone, the
        process is as it was before.

        :param timeout: how long to wait for that, in seconds.
        """
        deadline = time.monotonic() + timeout
        with self._working():
            with self._lock:
                if self._closed:
                    return
                self._closed = True
                ready, self._ready = self._ready, set()
            for generation in ready:
                self._drop(generation)
            del ready
            self._switch.close()
            self._janitor.close(timeout)
            with self._nobody:
                left = max(0.0, deadline - time.monotonic())
                self._nobody.wait_for(lambda: self._at_work == 1, left)

    def status(self) -> tuple[GenerationStatus, ...]:
        """Return how every generation stands that serves, drains or is not gone yet.

        Oldest first.  Any thread may ask.
        """
        # Those that serve first: one that retires meanwhile is seen twice rather than not at all.
        found = {one.number: one for one in map(_status, self._switch.held())}
        held = self._janitor.held()
        found.update({one.number: _status_of_held(one) for one in held if one.served})
        # The number of a build whose scope was too small is given once more.
        others = [_status_of_held(one) for one in held if not one.served]
        return tuple(sorted((*found.values(), *others), key=lambda one: one.number))

    def counts(self) -> tuple[GenerationCounts, ...]:
        """Return what has become of the requests of the latest generations, oldest first.

        Any thread may ask.  Empty unless they are counted.
        """
        return self._meters.counts()

    def drained(self) -> tuple[float, ...]:
        """Take how long each generation drained that has retired since the last call, in seconds.

        One thread may ask.  Empty unless requests are counted.
        """
        return tuple(self._drained.popleft() for _ in range(len(self._drained)))

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

    def busy(self) -> bool:
        """Whether a request is under way, or a response still owed.  Any thread may ask."""
        return bool(self._leases())

    def _leases(self) -> int:
        return sum(self._switch.statistics().leases.values())

    def _draining(self) -> bool:
        return bool(self._switch.draining())

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Keep the process from being left meanwhile."""
        with self._lock:
            self._at_work += 1
        try:
            yield
        finally:
            self._has_worked()

    def _has_worked(self) -> None:
        """Leave the process to others if this was the last work in it."""
        with self._lock:
            self._at_work -= 1
            self._nobody.notify_all()
            over = self._closed and not self._at_work and not self._left
            self._left = self._left or over
        if over:
            effects.uninstall()
            imports.uninstall(self._current)


def _say_built(generation: Generation, seconds: float) -> None:
    release, number = generation.release, generation.number
    log.info(
        "release %s is built as %s in %.3f s",
        release,
        generation.name,
        seconds,
        extra=step("built", release=release, generation=number, seconds=seconds),
    )


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


def _status_of_held(held: Held) -> GenerationStatus:
    state = State.RETIRED if held.served else State.DISCARDED
    age = _since(held.replaced)
    return GenerationStatus(held.number, held.release, state.value, 0, None, held.holder, age=age)


def _since(moment: float | None) -> float | None:
    return None if moment is None else time.monotonic() - moment

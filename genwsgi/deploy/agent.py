"""The agent: the thread in each worker that obeys the coordinator.

Everything it decides, it decides on its own thread; a build runs on a thread of its own and reports
through a queue and a socket pair.  So there is no lock, and a request never waits for a deploy.

When the coordinator is away the worker serves on.  What it must run is then what the run directory
says is committed: an agent that has prepared just that swaps to it, and one that has not builds it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from functools import partial

from genwsgi.background import BackgroundBuild
from genwsgi.deploy import framing, protocol
from genwsgi.deploy.framing import clip
from genwsgi.deploy.health import Health
from genwsgi.deploy.link import Link
from genwsgi.deploy.parking import Parking
from genwsgi.deploy.problems import NO_DESCRIPTORS
from genwsgi.deploy.protocol import Release, Step, label
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.telling import Teller
from genwsgi.deploy.workbench import Workbench
from genwsgi.errors import (
    NoThreadError,
    ProtocolError,
    RunDirectoryError,
    ScopeError,
    SnapshotError,
)
from genwsgi.generations.cancelling import Cancellation, Means, raise_in_thread
from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import applications
from genwsgi.live import LiveApplication
from genwsgi.steps import step

#: Between two attempts to reach a coordinator that is away, in seconds: first and longest.
RECONNECT = (0.05, 1.0)

#: Between two looks at how far a build is, and a cancellation, in seconds: of a build each is told
#: to the coordinator, and people see no more.
LOOK, GLANCE = 0.2, 0.05

#: Before a worker that could not build the committed release tries again, in seconds.
RETRY = 2.0


def same(one: Release, other: Release) -> bool:
    """Whether two releases are one: a number can come again when a coordinator has died."""
    return (one.number, one.digest) == (other.number, other.digest)


class Agent:
    """Obeys the coordinator in this worker.

    :param live: the application of this process.
    :param directory: the server's run directory.
    :param probation: how long the coordinator watches what becomes of requests after a swap, in
        seconds; 0: it doesn't.
    :param park: whether what is replaced is kept ready for that time.
    :param means: what ends a request.
    """

    def __init__(
        self,
        live: LiveApplication,
        directory: RunDirectory,
        log: logging.Logger,
        *,
        probation: float = 0.0,
        park: bool = False,
        means: tuple[Means, ...] = (partial(raise_in_thread, applications),),
    ) -> None:
        self._live = live
        self._probation = probation
        self._parking = Parking(live, probation if park else 0.0)
        self._directory = directory
        self._log = log
        self._current: Release | None = None
        self._retry_at: float | None = None
        self._health = Health(directory, log)
        self._teller = Teller(live, self._health)
        self._means = means
        self._cancelling: list[Cancellation] = []
        self._settled = threading.Event()
        self._leaving = threading.Event()
        self._forked = False
        self._link = Link(directory, self._fork)
        self._bench = Workbench(live, log, self._link.wake)
        self._left = threading.Event()

    def __repr__(self) -> str:
        serves = self._current and label(self._current)
        return f"<Agent of process {os.getpid()} on release {serves}>"

    def boot(self) -> None:
        """Build and serve the committed release, on the calling thread.

        What workers have served before has been verified; this one then only warms up.

        :raises BuildError, TargetError, SnapshotError, RunDirectoryError: it can't be done.
        """
        first = not self._directory.happened("served")
        while True:
            release = self._directory.committed()
            try:
                generation = self._live.build(
                    release.digest, label(release), grow=False, strict=first
                )
            except SnapshotError:
                # Another release was committed in the meantime, and this one swept away.
                if self._directory.committed().number == release.number:
                    raise
                continue
            self._live.swap(generation)
            self._current = release
            return

    def start(self, timeout: float = 5.0) -> None:
        """Start the thread, and wait until the coordinator has said that this release is current.

        :param timeout: how long to wait for a coordinator, in seconds; it may be away.
        """
        threading.Thread(target=self._run, name="genwsgi-agent", daemon=True).start()
        self._settled.wait(timeout)
        self._health.begin_serving()

    def leave(self, timeout: float = 5.0) -> None:
        """Tell the coordinator that this worker ends in good order, and stop the thread.

        A worker that vanishes while it builds fails the deploy; one that leaves does not.

        :param timeout: how long to wait for the thread, in seconds.
        """
        self._health.end_serving()
        self._leaving.set()
        self._link.wake()
        self._left.wait(timeout)

    def _run(self) -> None:
        pause = RECONNECT[0]
        while not self._leaving.is_set():
            try:
                self._health.look()
                self._attend()
                if self._connect():
                    pause = RECONNECT[0]
                    self._obey()
                if self._leaving.is_set():
                    for counts in self._teller.requests(last=True):
                        self._link.send(counts)
                    self._link.send(protocol.Leaving())
                    break
                with contextlib.suppress(RunDirectoryError):
                    self._follow(self._directory.committed())
            except RunDirectoryError as error:
                self._log.error("%s", error)
            except Exception as error:  # noqa: BLE001 (logged)
                # That there are no descriptors is known, and told once.
                if not isinstance(error, OSError) or error.errno not in NO_DESCRIPTORS:
                    self._log.exception("the agent stumbled and starts again")
            finally:
                self._link.disconnect()
            self._link.wait(pause)
            pause = min(2 * pause, RECONNECT[1])
        self._link.close()
        self._left.set()
        if self._forked:
            # A greenlet of gevent lives on in a forked process, but is no thread of it that could
            # end.
            threading.Event().wait()

    def _fork(self) -> None:
        """Called in a forked process, which is no worker."""
        self._forked = True
        self._leaving.set()

    def _connect(self) -> bool:
        if not self._link.connect():
            return False
        if self._bench.deploying is not None:
            # Its deploy died with the connection, and a new coordinator may give its number to
            # other code: this build must not be taken for that.
            self._bench.drop_build("the coordinator was away")
        prepared = self._bench.prepared[0] if self._bench.prepared else None
        if not self._link.send(protocol.Hello(os.getpid(), self._current, prepared)):
            return False
        problems = self._teller.begin()
        if problems is not None:
            self._link.send(problems)
        return True

    def _obey(self) -> None:
        """Do what the coordinator says until it is gone."""
        while self._link.up and not self._leaving.is_set():
            self._health.look()
            self._tell()
            self._go_on_cancelling()
            try:
                messages = self._link.receive(self._patience())
            except ProtocolError as error:
                self._log.error("the coordinator can't be understood: %s", error)
                return
            self._attend()
            if messages is None:
                return
            for message in messages:
                self._handle(message)

    def _handle(self, message: framing.Message) -> None:
        if isinstance(message, protocol.Welcome):
            self._follow(message.committed)
            if self._current and same(self._current, message.committed):
                self._settled.set()
        elif isinstance(message, protocol.Prepare):
            self._bench.drop("a newer one is to be prepared")
            self._build(message.release, catch_up=False, look=message.look)
        elif isinstance(message, protocol.Commit):
            if self._current is not None and self._current.number == message.release:
                self._acknowledge()
            else:
                self._follow(self._directory.committed())
        elif isinstance(message, protocol.Abort):
            held = self._bench.release
            if held is not None and held.number == message.release:
                self._bench.drop(message.reason)
                # It may be what this worker was to catch up with that made room for it.
                self._follow(self._directory.committed())
        elif isinstance(message, protocol.Tell):
            self._teller.asked()
        elif isinstance(message, protocol.Cancel):
            self._cancel(message.generation)
        else:
            self._log.error("the coordinator sent a %s, which is not for workers", message)

    def _follow(self, committed: Release) -> None:
        """See to it that this worker serves the committed release."""
        if self._current is not None and same(self._current, committed):
            return
        prepared, building = self._bench.prepared, self._bench.building
        if prepared is not None and same(prepared[0], committed):
            self._swap()
            return
        if building is not None and same(building.release, committed):
            building.catch_up = True
            return
        if prepared is not None and prepared[0].number > committed.number:
            # Its deploy is under way: the next word about it is Commit or Abort.
            return
        self._bench.drop(f"release {label(committed)} is committed")
        if self._retry_at is None or time.monotonic() >= self._retry_at:
            self._build(committed, catch_up=True, look=False)

    def _build(self, release: Release, *, catch_up: bool, look: bool) -> None:
        self._retry_at = None
        parked = self._parking.find(release)
        if parked is not None:
            self._ready(release, parked, 0.0, catch_up=catch_up)
            return
        size = self._live.size
        if not catch_up:
            # Sent before a line of the code runs: if that ends the process, it is known what did.
            self._link.send(protocol.Building(release.number, Step.BUILDING, 0, size))
        self._bench.build(release, catch_up=catch_up, look=look, size=size)

    def _attend(self) -> None:
        """Look after builds that ended, hang, or are to be tried again."""
        self._link.awake()
        for one in self._bench.ended():
            self._conclude(one.release, one.build, one.catch_up)
        now = time.monotonic()
        self._parking.attend(now, self._bench.prepared[1] if self._bench.prepared else None)
        self._bench.attend(now)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._follow(self._directory.committed())

    def _conclude(self, release: Release, build: BackgroundBuild, catch_up: bool) -> None:
        if build.generation is not None:
            self._ready(release, build.generation, build.seconds, catch_up=catch_up)
            return
        error = build.error
        trace = error.traceback if error is not None else ""
        additions = error.additions if isinstance(error, ScopeError) else ()
        if catch_up:
            self._retry_at = time.monotonic() + RETRY
            self._health.problems.begin(
                "release",
                f"the committed release {label(release)} can't be built here, and an older one is "
                f"served on; it is tried again and again: {error}",
                logged=True,
            )
            self._log.error(
                "the committed release %s can't be built here, and release %s is served on: %s\n%s",
                label(release),
                self._current and label(self._current),
                error,
                trace,
            )
        failed = protocol.Failed(
            release.number,
            clip(str(error)),
            clip(trace),
            tuple(additions),
            blameless=isinstance(error, NoThreadError),
        )
        self._link.send(failed)
        if not catch_up:
            self._follow(self._directory.committed())

    def _ready(
        self, release: Release, generation: Generation, seconds: float, *, catch_up: bool
    ) -> None:
        self._bench.prepared = (release, generation)
        if catch_up:
            self._swap()
        else:
            self._link.send(protocol.Ready(release.number, seconds))

    def _swap(self) -> None:
        prepared = self._bench.take()
        if prepared is None:
            return
        release, generation = prepared
        began = time.monotonic()
        self._parking.swap(release, generation, self._current)
        took = time.monotonic() - began
        self._teller.swapped(self._probation if release.back_to is None else 0.0)
        self._current = release
        self._health.problems.end("release")
        self._log.info(
            "release %s is live as %s",
            label(release),
            generation.name,
            extra=step(
                "swapped", release=label(release), generation=generation.number, seconds=took
            ),
        )
        self._acknowledge()
        self._settled.set()

    def _tell(self) -> None:
        """Tell the coordinator what is news."""
        for message in self._teller.news():
            self._link.send(message)
        building = self._bench.deploying
        if building is not None:
            for told in self._teller.progress(building.release.number, building.build.progress):
                self._link.send(told)

    def _cancel(self, number: int) -> None:
        """Begin to end the requests of a replaced generation."""
        cancellation = self._live.cancel(number, self._means)
        if cancellation is None:
            self._link.send(protocol.Cancelled(number, 0, 0))
        else:
            self._cancelling.append(cancellation)

    def _go_on_cancelling(self) -> None:
        for one in [one for one in self._cancelling if one.step()]:
            self._cancelling.remove(one)
            self._link.send(protocol.Cancelled(one.generation, one.ended, one.left))

    def _acknowledge(self) -> None:
        current = self._live.current
        if self._current is not None and current is not None:
            self._link.send(protocol.Committed(self._current.number, current.number))

    def _patience(self) -> float:
        """How long nothing needs looking after, in seconds."""
        moments = [self._health.due, *self._teller.due, *self._bench.due]
        if self._bench.deploying is not None:
            moments.append(time.monotonic() + LOOK)
        if self._cancelling:
            moments.append(time.monotonic() + GLANCE)
        if self._retry_at is not None:
            moments.append(self._retry_at)
        if self._parking.until is not None:
            moments.append(self._parking.until)
        return max(0.0, min(moments) - time.monotonic())

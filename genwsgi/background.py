"""A build on a thread of its own, that lets requests run and can be given up; and its undoing."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from genwsgi.build import at_once, build_error
from genwsgi.errors import BuildAbandoned, GenwsgiError, NoThreadError
from genwsgi.generations.generation import Generation
from genwsgi.interrupt import Interruption, keep_trying, raise_here, where
from genwsgi.isolation import imports
from genwsgi.isolation.asking import applications

log = logging.getLogger("genwsgi")

T = TypeVar("T")

#: After each module of a background build the builder lets requests run for this long, in seconds,
#: if there are any.  If not, it gives way for as little as lets a thread that begins to serve have
#: the processor, which no pause at all would not.
PAUSE, GIVE_WAY = 0.001, 0.00001

#: Where requests take all there is, a pause lasts as long as they like: under gevent, until each of
#: them has had its turn.  So after a pause the builder works for this part of what it took before
#: the next one, but not so long that a request would feel it, in seconds.
PART, WORK_MOST = 0.1, 0.01

#: How long a request waits, at most, until a build gives it the interpreter's lock, in seconds.  It
#: does so each time that it has waited for something else, and Python's own 5 ms add up.
SWITCH = 0.0005


class _Switching:
    """Has threads take turns more often as long as somebody builds.

    Its lock guards the count; it is held for nothing else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._usual = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(SWITCH, self._usual))

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._count -= 1
            # What the application has set meanwhile stays.
            if not self._count and sys.getswitchinterval() == min(SWITCH, self._usual):
                sys.setswitchinterval(self._usual)


_switching = _Switching()


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
        on_look: Callable[[], object] = lambda: None,
        run: Callable[..., Any] = at_once,
    ) -> Generation:
        """Build a generation from the snapshot ``digest`` on the calling thread."""

    def busy(self) -> bool:
        """Whether anybody is served at the moment."""

    def discard(self, generation: Generation) -> None:
        """Drop a ready generation that will not be swapped in."""


class BackgroundBuild:
    """A build on a thread of its own, that can be given up.

    It is interrupted in the application's code only: what has to be undone after that is undone
    whole.  The import of a shared package is whole as well: a part of one would stay in the process
    and could not be loaded again.

    :param done: called on that thread when the build has ended, unless it was abandoned before; or
        at once, if the system has no thread for it.
    :param on_look: called on that thread when it is built and verified, and only what ``look`` asks
        for is left.
    :param grow, look, strict: see :meth:`genwsgi.live.LiveApplication.build`.
    :param size: how many modules there will be, more or less; 0: unknown.
    :ivar generation: the ready generation, or ``None``.
    :ivar error: why there is none.
    :ivar seconds: how long it took.
    :ivar progress: what it is at, how much of that is done, and how much there is, or 0.
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
        size: int = 0,
        on_look: Callable[[], object] = lambda: None,
    ) -> None:
        self.generation: Generation | None = None
        self.error: GenwsgiError | None = None
        self.seconds = 0.0
        self.progress = ("building", 0, size)
        self._size = size
        self._live = live
        self._digest = digest
        self._release = release
        self._done = done
        self._grow = grow
        self._look = look
        self._strict = strict
        self._on_look = on_look
        # Guards the races of the abandonment with the end of the build, and with the application's
        # code being entered and left.
        self._lock = threading.Lock()
        self._abandoned = False
        self._inside = False
        # Whether a shared package is being imported; the build's thread alone asks.
        self._whole = False
        # When it is time for the next pause.
        self._pause_at = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"genwsgi-build {release}", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            self.error = NoThreadError(release, str(error))
            done(self)

    def abandon(self) -> None:
        """Give the build up: it stops as soon as it can and leaves nothing.  Any thread."""
        with self._lock:
            if self._abandoned:
                return
            self._abandoned = True
        # A build may hang in an endless loop; a thread blocked in C raises when it comes back.
        told = Interruption(self._thread, BuildAbandoned, applications)

        def tell() -> bool:
            with self._lock:
                return not self._inside or told.step()

        keep_trying(tell, self._thread.name)

    @property
    def running(self) -> bool:
        """Whether the build's thread is still at it."""
        return self._thread.is_alive()

    def where(self) -> str:
        """Where the build is now, as the last lines of its stack, for the log."""
        return where(self._thread)

    def _run(self) -> None:
        started = time.monotonic()
        imports.whole.guard = self._in_one_piece
        with _switching, contextlib.suppress(BuildAbandoned):
            try:
                self.generation = self._live.build(
                    self._digest,
                    self._release,
                    self._breathe,
                    grow=self._grow,
                    look=self._look,
                    strict=self._strict,
                    on_check=self._breathe,
                    on_look=self._looks,
                    run=self._inside_it,
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
        with self._lock:
            abandoned = self._abandoned
        if not abandoned:
            self._done(self)
        elif self.generation is not None:
            self._live.discard(self.generation)

    def _inside_it(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(*args)``, which runs the application's code and may be interrupted."""
        self._go_in()
        try:
            return function(*args)
        finally:
            self._come_out()

    @contextlib.contextmanager
    def _in_one_piece(self) -> Iterator[None]:
        """The time of a shared import, in which nothing is interrupted; raise after it if need be.

        What such an import imports is a part of it.
        """
        if self._whole or not self._inside:
            yield
            return
        self._come_out()
        self._whole = True
        try:
            yield
        finally:
            self._whole = False
            self._go_in()

    def _go_in(self) -> None:
        """Begin the time in which :meth:`abandon` interrupts; raise if it was called."""
        with self._lock:
            if self._abandoned:
                raise BuildAbandoned
            self._inside = True

    def _come_out(self) -> None:
        """End the time in which :meth:`abandon` interrupts; raise again if it did."""
        try:
            with self._lock:
                self._inside = False
                if not self._abandoned:
                    return
            # What abandon() sent may not have arrived yet.  There is room for one such exception:
            # sent again and caught, none is left to come later, in the middle of something else.
            while raise_here(BuildAbandoned):
                time.sleep(PAUSE)
        except BuildAbandoned:
            pass
        raise BuildAbandoned

    def _looks(self) -> None:
        if self._look:
            self.progress = ("looking", 0, 0)
            self._on_look()

    def _breathe(self, done: int, checks: int = 0) -> None:
        """Note how many modules are loaded, or of how many ``checks`` how many are made."""
        total = checks or (self._size and max(done, self._size))
        self.progress = ("verifying" if checks else "building", done, total)
        if self._abandoned and not self._whole:
            raise BuildAbandoned
        began = time.monotonic()
        if began < self._pause_at:
            return
        time.sleep(PAUSE if self._live.busy() else GIVE_WAY)
        ended = time.monotonic()
        self._pause_at = ended + min(PART * (ended - began), WORK_MOST)


class BackgroundDiscard:
    """A ready generation is dropped on a thread of its own.

    What the application has registered for its end may take its time, or never return.
    """

    def __init__(self, live: Builds, generation: Generation) -> None:
        self._thread = threading.Thread(
            target=_discard,
            args=(live, generation),
            name=f"genwsgi-discard {generation.release}",
            daemon=True,
        )
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread for it
            _discard(live, generation)

    @property
    def running(self) -> bool:
        """Whether the thread is still at it."""
        return self._thread.is_alive()

    def where(self) -> str:
        """Where it is now, as the last lines of its stack, for the log."""
        return where(self._thread)


def _discard(live: Builds, generation: Generation) -> None:
    try:
        live.discard(generation)
    except BaseException:  # what its finalizers raise, too: nobody waits for this thread
        log.exception("%s could not be torn down whole", generation.name)

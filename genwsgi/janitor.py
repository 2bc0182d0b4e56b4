"""The janitor: tears retired generations down, and sees to it that all that ended are gone.

A thread of its own, away from the requests.  A generation is gone when its module table has been
collected.  When it is not, whatever holds it is searched for and named, in the log and the status.

A teardown runs code of the application (exit callbacks, handlers that are closed), which may never
end.  So each has a thread of its own, and when its time is over the others have their turn.

What the janitor knows belongs to its thread.  Others put generations into its queue, and read what
it has written down for them, which is replaced as a whole.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from genwsgi.build import tear_down
from genwsgi.generations.generation import Generation
from genwsgi.heap import trim
from genwsgi.interrupt import where
from genwsgi.isolation.audit import PATIENCE, no_search
from genwsgi.isolation.roots import OUTSIDE, name_holder, thread_place
from genwsgi.remains import Remains, of_build, of_retired

log = logging.getLogger("genwsgi")

#: How long the next teardown waits for the end of one, in seconds.
DEADLINE = 10.0
#: Retired generations that come within this time are collected together, in seconds.
GATHER = 0.2
#: How long a collection is put off for a moment without requests, in seconds: as a rule, and when
#: somebody waits for it or the next generation has retired.
QUIET, HURRIED = 0.4, 0.05
#: Between two looks for such a moment, in seconds.
GLANCE = 0.002
#: What is not gone then is collected once more after this time, in seconds, and only then searched
#: for a holder: finalizers have run, and whoever was just looking at it has ended.
GRACE = 0.3
#: When a generation that is held is looked at again: first, and at most, after so many seconds.
#: Each time it is twice as long.
AGAIN = (5.0, 3600.0)


@dataclass(frozen=True)
class Held:
    """A generation that has ended and that something keeps alive.

    :ivar number, release: the generation's.
    :ivar holder: what holds it, in words; empty while it has not been looked for.
    :ivar replaced: when another one took its place, on the monotonic clock, in seconds.
    :ivar served: whether it has retired; else its build failed, or it was discarded.
    """

    number: int
    release: str
    holder: str
    replaced: float | None
    served: bool = True


class Janitor:
    """Takes retired generations, on a thread that ends after :meth:`close`.

    :param busy: how many leases are open now.
    :param draining: whether generations are still to come.
    :param kept: what outlives generations on purpose, each with what to call it.
    :param tear_down: what is done with each.
    :param on_drained: called on the janitor's thread with how long a generation was replaced before
        it retired, in seconds.
    :param on_end: called on the janitor's thread when it has nothing left to do.
    """

    def __init__(
        self,
        busy: Callable[[], int],
        draining: Callable[[], bool],
        on_end: Callable[[], None],
        kept: Callable[[], Iterable[tuple[str, object]]] = tuple,
        tear_down: Callable[[Generation], None] = tear_down,
        on_drained: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        self._coming: set[Generation] = set()
        self._held: tuple[Held, ...] = ()
        self._busy = busy
        self._draining = draining
        self._kept = kept
        self._on_end = on_end
        self._undo = tear_down
        self._on_drained = on_drained
        self._queue: queue.SimpleQueue[Generation | Remains | threading.Event | None] = (
            queue.SimpleQueue()
        )
        # Those whose teardown is not waited for any longer.
        self._hanging: list[Remains] = []
        # Set when what came before them has been collected.
        self._awaited: list[threading.Event] = []
        self._left: list[Remains] = []
        # How many objects somebody has frozen who was there before the application.
        self._frozen = gc.get_freeze_count()
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; before the first generation is swapped in."""
        self._thread = threading.Thread(target=self._run, name="genwsgi-janitor", daemon=True)
        self._thread.start()

    def retire(self, generation: Generation) -> None:
        """Hand over a generation that has retired.  Any thread; returns at once, never raises."""
        self._coming.add(generation)
        self._queue.put(generation)

    def follow(self, generation: Generation, end: str) -> None:
        """See to it that one is gone that never served, and is torn down.  Any thread.

        :param end: how it ended, as in "has failed".
        """
        self._queue.put(of_build(generation, end))

    def catch_up(self, timeout: float) -> None:
        """Have what has retired collected now, and wait for that; for what is held nobody waits.

        Any thread but the janitor's.

        :param timeout: how long to wait, in seconds.
        """
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._queue.put(done)
            done.wait(timeout)

    def held(self) -> list[Held]:
        """Return the generations that have retired but are not gone.  Any thread may ask."""
        coming = [Held(one.number, one.release, "", one.replaced) for one in self._coming.copy()]
        return [*coming, *self._held]

    def close(self, timeout: float) -> None:
        """End with nothing left to tear down; wait for that at most ``timeout`` seconds."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not (
            self._ended and not self._draining() and self._queue.empty() and not self._hanging
        ):
            came = self._gather()
            now = time.monotonic()
            look = self._next_look()
            if came or (look is not None and look <= now):
                self._left += came
                self._collect()
            while self._awaited:
                self._awaited.pop().set()
        self._on_end()

    def _gather(self) -> list[Remains]:
        """Tear down what comes until nothing has for a while, or there is something to look at."""
        came: list[Remains] = []
        deadline = self._next_look()
        while True:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                found = self._queue.get(timeout=wait)
            except queue.Empty:
                return came
            if found is None:
                self._ended = True
                return came
            if isinstance(found, threading.Event):
                self._awaited.append(found)
                return came
            if not came:
                deadline = time.monotonic() + GATHER
            if isinstance(found, Remains):
                came.append(self._torn_down(found))
            else:
                came += self._tear_down(found)
            self._tell(came)
            if isinstance(found, Generation):
                self._coming.discard(found)
            # Not to be kept alive by this frame while it waits.
            del found

    def _next_look(self) -> float | None:
        """When to look at those that are held; at the end of everything they are left alone."""
        return None if self._ended else min((one.again for one in self._left), default=None)

    def _tear_down(self, generation: Generation) -> list[Remains]:
        """Tear it down; return what is to be collected then: nothing, while that hangs."""
        known = of_retired(generation)
        if known.replaced is not None:
            self._on_drained(known.since - known.replaced)
        # Taken out of there, so that the thread does not hold it when it tells that it ends.
        given = [generation]
        thread = threading.Thread(
            target=self._undo_one,
            args=(given, known),
            name=f"genwsgi-teardown-{known.number}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # there are too many
            self._undo_one(given, known)
        else:
            thread.join(DEADLINE)
        if not known.over.acquire(blocking=False):
            return [self._torn_down(known)]
        place = thread_place(thread, getattr(generation.modules, "builtins", None))
        known.holder = f"its own teardown, which is at {place or 'its end'}"
        self._hanging.append(known)
        log.warning(
            "%s is not torn down after %g s, and waited for no longer. It hangs at\n%s",
            *(known.name, DEADLINE, where(thread)),
        )
        return []

    def _undo_one(self, given: list[Generation], known: Remains) -> None:
        """Tear one generation down; on a thread of its own."""
        generation = given.pop()
        try:
            self._undo(generation)
        except BaseException:  # whatever it was, it is over now
            log.exception("%s could not be torn down whole", generation.name)
        known.note_threads(generation)
        del generation
        if not known.over.acquire(blocking=False):
            self._queue.put(known)

    def _torn_down(self, known: Remains) -> Remains:
        if known in self._hanging:
            self._hanging.remove(known)
            known.holder = ""
        if known.served:
            extra = known.step("retired", known.replaced, known.since)
            log.info("%s has retired", known.name, extra=extra)
        return known

    def _collect(self) -> None:
        """Collect, see who is gone, and look for what holds the others."""
        self._wait_for_quiet()
        with no_search(PATIENCE):
            if gc.get_freeze_count() > self._frozen:
                # The application has frozen its own objects as well, which would stay for ever.
                gc.unfreeze()
                self._frozen = 0
            gc.collect()
            left = [one for one in self._left if not one.gone]
            gone = [one for one in self._left if one not in left]
            # At the end of everything nobody would do anything about it.
            holders = [None if self._ended else self._holder(one) for one in left]
        if gone:
            trim()
        for one in gone:
            self._is_gone(one)
        for one, holder in zip(left, holders, strict=True):
            if holder is not None:
                self._is_held(one, holder)
        self._left = left
        self._tell()

    def _wait_for_quiet(self) -> None:
        """Wait for a moment in which no request feels a collection, or as few as can be."""
        began = now = time.monotonic()
        least = self._busy()
        while True:
            patience = HURRIED if self._awaited or not self._queue.empty() else QUIET
            leases = self._busy()
            if leases == 0 or (leases <= least and now > began + patience / 2):
                return
            if now >= began + patience:
                return
            least = min(least, leases)
            time.sleep(GLANCE)
            now = time.monotonic()

    def _is_gone(self, one: Remains) -> None:
        now = time.monotonic()
        late = (
            f" at last, {now - one.since:.0f} s after it {one.end.split()[-1]}" if one.told else ""
        )
        # Of a build that failed all is said, unless something held it.
        level = logging.INFO if one.served or one.told else logging.DEBUG
        extra = one.step("collected", one.since, now) if one.served else None
        log.log(level, "%s is collected%s", one.name, late, extra=extra)
        left = [thread for thread in list(one.threads) if thread.is_alive()]
        if left and one.served and not one.told:
            places = ", ".join(f"{thread.name} at {thread_place(thread)}" for thread in left)
            log.warning("%s has retired but its threads still run: %s", one.name, places)

    def _holder(self, one: Remains) -> str | None:
        """Return what holds it; ``None``: it has only just been found not to be gone."""
        if not one.looked:
            one.looked, one.again = True, time.monotonic() + GRACE
            return None
        threads = frozenset(thread.ident or 0 for thread in list(one.threads))
        return name_holder(one.table, threads, self._kept()) if one.table is not None else ""

    def _is_held(self, one: Remains, holder: str) -> None:
        # What no path leads to may be a build on another thread that just looks through everything:
        # nobody is to be woken for that, so it has to be there at the next look as well.
        sure = holder and (one.holder or not holder.startswith(OUTSIDE))
        if sure and not one.told:
            one.told = True
            log.warning("%s %s but is held by %s", one.name, one.end, holder)
        one.holder = holder or one.holder
        pause = one.pause or AGAIN[0]
        one.again = time.monotonic() + pause
        one.pause = min(2 * pause, AGAIN[1])

    def _tell(self, came: Iterable[Remains] = ()) -> None:
        # A build that failed is nearly always gone at once, and news only if it is held.
        left = [one for one in (*self._left, *came) if not one.gone and (one.served or one.holder)]
        self._held = tuple(
            Held(one.number, one.release, one.holder, one.replaced, one.served)
            for one in (*self._hanging, *left)
        )

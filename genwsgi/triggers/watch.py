"""The file watch: one order for each change of the source, however it is written.

watchdog's threads put what they see into a queue.  The trigger's own thread takes it out, keeps the
watches in step with symlinks and vanished directories, and asks :class:`~genwsgi.triggers.settle.
Settle` when the change is complete.  Everything but the queue belongs to that thread, so there is
nothing to lock; :meth:`WatchTrigger.status` reads single attributes that are replaced whole.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from watchdog.events import FileSystemEvent

from genwsgi.triggers.flood import Flood
from genwsgi.triggers.looks import LookEvent, Looks
from genwsgi.triggers.paths import Kind, Plan, git_locks, make_plan, trace
from genwsgi.triggers.reading import Reader
from genwsgi.triggers.settle import Change, Obstacle, Pace, Settle
from genwsgi.triggers.sieve import DEFAULT_IGNORE, Sieve, relative
from genwsgi.triggers.watches import WatchError, Watches, events_kept

__all__ = ["DEFAULT_IGNORE", "Change", "WatchTrigger"]

#: Between two looks, in seconds, at what no event tells: an ancestor that was moved, a watch that
#: ended by itself.
CHECK = 2.0

#: Between two attempts to be told by the system again, where a limit has made the watch poll, in
#: seconds.  One costs about as much as the looks of that time.
AGAIN = 5.0

#: How often a plan is made again at once because the files moved on while it was put in place.
PASSES = 5

#: Seconds that git may hold its lock, and the silence that is enough after it.
GIT_PATIENCE = 30.0
GIT_AFTER = 0.05

#: Seconds after which an order is given though a polling observer still finds news, or has not
#: looked at everything; where two looks take longer, that is all that can be waited for.
LOOK_PATIENCE = 30.0

#: Seconds after which events are looked at although more arrive: no flood may put off the cap.
BATCH = 1.0

#: Seconds that the observer's threads have to end.
CLOSE = 5.0


class WatchTrigger:
    """Calls ``order`` once for each change of the files, when it is quiet.

    ``order`` is called from the trigger's thread.  It should return soon: what happens meanwhile is
    looked at afterwards.  What it raises is logged.  It may be called although no content changed
    (a file that was only touched), so the callee compares.

    :param roots: logical directories or files; they may be, or contain, symlinks and need not
        exist yet.  Python sources below a directory are relevant.
    :param order: called with each :class:`Change`.
    :param extra: more files and directories; all that is below them is relevant.
    :param patterns: what else is relevant below the roots: ``fnmatch`` patterns for the base name
        or for the path relative to the root.
    :param ignore: ``fnmatch`` patterns for one component of a relative path.
    :param polling: look at the files instead of being told, as network file systems need it.
    :param poll_interval: seconds between two looks.
    :param log: where problems are told.
    """

    name = "watch"

    def __init__(
        self,
        roots: Sequence[str],
        order: Callable[[Change], None],
        *,
        extra: Sequence[str] = (),
        patterns: Sequence[str] = (),
        ignore: Sequence[str] = DEFAULT_IGNORE,
        polling: bool = False,
        poll_interval: float = 1.0,
        log: logging.Logger,
    ) -> None:
        self._roots = tuple(roots)
        self._extra = tuple(extra)
        self._order = order
        self._sieve = Sieve(patterns, ignore)
        self._poll_interval = poll_interval
        self._log = log
        self._polling = polling
        self._limit: str | None = None
        self._plan = Plan()
        self._watches: Watches | None = None
        self._settle = Settle()
        self._reader = Reader(self._sieve, self._settle)
        self._flood = Flood(events_kept())
        self._looks = Looks()
        # The latest that the observer, if it polls, has to have looked after.
        self._heard = 0.0
        self._directories: set[str] = set()
        self._check_at = 0.0
        self._again_at = 0.0
        self._events: queue.SimpleQueue[tuple[float, FileSystemEvent] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="genwsgi-watch", daemon=True)

    def start(self) -> None:
        """Watch; what changes after the return gives an order.  Once, from any thread."""
        try:
            self._replan()
        except WatchError as error:
            self._log.error("the file watch: %s; it tries again in %s s", error, CHECK)
        self._thread.start()

    def stop(self) -> None:
        """End the watch, without waiting for it.  From any thread, any number of times."""
        self._stopping.set()
        self._events.put(None)

    def join(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for the threads to end.  From any thread but its own."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def follow(self, roots: Sequence[str]) -> None:
        """Watch ``roots`` instead, from the next look on.  From any thread."""
        self._roots = tuple(roots)

    def status(self) -> dict[str, object]:
        """Return the number of directories watched, how, and what is wrong.  From any thread."""
        watches = self._watches
        missing = [t for t in self._plan.roots if t.kind is Kind.MISSING]
        problem = self._limit
        if problem is None and missing:
            problem = f"{missing[0].path} does not exist; watching {missing[0].place} for it"
        return {
            "watching": 0 if watches is None else len(watches),
            "polling": self._polling,
            "problem": problem,
        }

    # The thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                batch = self._next_batch()
                try:
                    self._react(batch)
                except Exception:  # noqa: BLE001 (logged)
                    self._log.exception("the file watch failed; it tries again in %s s", CHECK)
                    self._stopping.wait(CHECK)
        finally:
            if self._watches is not None:
                self._watches.close(CLOSE)

    def _next_batch(self) -> list[tuple[float, FileSystemEvent]]:
        due = self._settle.due
        until = self._check_at if due is None else min(due, self._check_at)
        batch: list[tuple[float, FileSystemEvent]] = []
        end = until + BATCH
        try:
            item = self._events.get(timeout=max(0.0, until - time.monotonic()))
            while item is not None:
                batch.append(item)
                item = self._events.get_nowait() if time.monotonic() < end else None
        except queue.Empty:
            pass  # all is read, or it is time to look at something else
        return batch

    def _react(self, batch: list[tuple[float, FileSystemEvent]]) -> None:
        self._reader.closes = sys.platform == "linux" and not self._polling
        for at, event in batch:
            if isinstance(event, LookEvent):
                self._looks.over(event)
                continue
            self._reader.note(at, event, self._plan)
            self._flood.note(at)
            self._hear()
        if self._flood.over(time.monotonic()) and not self._polling:
            self._log.info("the file watch: a flood of events; looking at everything")
            self._reader.stale.add(os.sep)
        if self._reader.stale or time.monotonic() >= self._check_at:
            self._check()
        if self._settle.pending:
            self._hear()
            # One moment for both, or else a file that is open would be missed between them.
            now = time.monotonic()
            obstacles = self._obstacles(now)
            change = self._settle.decide(now, obstacles)
            if change is not None:
                for obstacle in obstacles:
                    self._log.warning("%s; going ahead without waiting longer", obstacle.what)
                self._give(change)

    def _hear(self) -> None:
        """Have an observer that polls look again if something is new."""
        if self._settle.latest != self._heard:
            self._heard = self._settle.latest
            self._looks.news(() if self._watches is None else self._watches.keys)

    def _give(self, change: Change) -> None:
        # Before the order: what changes while the watches are replaced is then read by the callee.
        moved, self._reader.moved = self._reader.moved, set()
        bases = {b for b in self._plan.recursive for m in moved if relative(m, b) is not None}
        try:
            if bases:
                self._guarded(lambda watches: watches.renew(bases))
        finally:
            try:
                self._order(change)
            except Exception:  # noqa: BLE001 (logged)
                self._log.exception("the order for a change of %s failed", ", ".join(change.paths))

    def _obstacles(self, now: float) -> list[Obstacle]:
        found = []
        locks = {lock for root in self._plan.roots for lock in git_locks(root.place)}
        for lock, made in sorted(locks):
            what = f"{lock} exists: git is at work, or died; remove the lock if no git runs"
            found.append(Obstacle(what, GIT_PATIENCE, GIT_AFTER, made))
        pace = self._settle.pace
        for path, since in self._reader.written.items():
            # A write that takes no time is no obstacle, after which others have to be waited for.
            if now >= since + pace.burst:
                what = f"{path} is still open for writing"
                found.append(Obstacle(what, pace.cap, pace.burst, int(since * 1e9)))
        for root in self._plan.roots:
            if root.kind is Kind.MISSING and root.path in self._directories:
                found.append(Obstacle(f"{root.path} is gone", pace.cap, pace.burst))
        if self._polling and self._watches is not None and self._looks.to_come(self._watches.keys):
            found.append(Obstacle("not everything was looked at without news", LOOK_PATIENCE, 0.0))
        return found

    # Keeping the watches in step.

    def _check(self) -> None:
        self._check_at = time.monotonic() + CHECK
        traces = tuple(trace(path) for path in (*self._roots, *self._extra))
        watches = self._watches
        if watches is not None and not watches.alive:
            self._log.error("the file watch: its observer has ended; another one begins")
            watches.close(CLOSE)
            watches = self._watches = None
            self._reader.stale.add(os.sep)
        if self._reader.stale or traces != self._plan.roots or watches is None or watches.broken():
            self._replan()
        if self._limit is not None and time.monotonic() >= self._again_at:
            self._stop_polling()

    def _stop_polling(self) -> None:
        """Be told by the system again, if its limit allows that now."""
        self._again_at = time.monotonic() + AGAIN
        try:
            watches = self._open(polling=False)
        except WatchError:
            return
        try:
            watches.apply(self._plan)
        except WatchError:
            watches.close(CLOSE)
            return
        before, self._watches = self._watches, watches
        if before is not None:
            before.close(CLOSE)
        self._polling, self._limit, self._settle.pace = False, None, Pace()
        self._log.info("the file watch: the system tells of changes again; polling has ended")
        self._touch_everything()

    def _touch_everything(self) -> None:
        """Something may have changed while nobody was watching."""
        for base in self._plan.recursive:
            self._settle.touch(base, time.monotonic())

    def _replan(self) -> None:
        before = self._plan
        stale, self._reader.stale = frozenset(self._reader.stale), set()
        replaced: set[str] = set()
        failed = os.sep in stale
        for attempt in range(PASSES):
            plan = make_plan(self._roots, self._extra, self._sieve)
            if attempt and plan == self._plan:
                break
            # First the plan: a polling observer takes its first look as the watch is made.
            self._plan = plan
            self._guarded(partial(_apply, plan, stale, replaced))
            stale = frozenset()
        self._directories.update(t.path for t in self._plan.roots if t.kind is Kind.DIRECTORY)
        self._check_at = time.monotonic() + CHECK
        skipped = set(self._plan.skipped) - set(before.skipped)
        if skipped:
            self._log.warning(
                "not watching what is behind %s: too much; name it as an extra path if it matters",
                ", ".join(sorted(skipped)),
            )
        if self._thread.ident is None:
            return  # the first plan is no change
        if failed:
            replaced |= self._plan.recursive
        now = time.monotonic()
        for path in replaced:
            self._settle.touch(path, now)
        for path, missing in _differences(before, self._plan):
            self._settle.touch(path, now, complete=not missing)

    def _guarded(self, act: Callable[[Watches], object]) -> None:
        """Do ``act`` with the watches; when the system can't tell, go on by polling."""
        watches = self._watches
        try:
            if watches is None:
                watches = self._watches = self._open(polling=self._polling)
            # What is closed while watches are replaced, nobody tells.
            self._reader.written.clear()
            act(watches)
            return
        except WatchError as error:
            if self._polling:
                self._reader.stale.add(os.sep)  # all of it again, at the next try
                raise
            self._limit = f"{error}, or use --watch-polling; polling every {self._poll_interval} s"
            self._log.error("the file watch: %s", self._limit)
            self._again_at = time.monotonic() + AGAIN
        self._polling = True
        if watches is not None:
            watches.close(CLOSE)
        self._watches = None
        self._guarded(lambda watches: watches.apply(self._plan))
        if self._thread.ident is not None:
            self._touch_everything()

    def _open(self, *, polling: bool) -> Watches:
        interval = self._poll_interval if polling else None
        if interval is not None:
            # The next look can't have ended before; then it is looked more often whether it has.
            self._settle.pace = Pace(
                single=interval, burst=interval, cap=max(10.0, 3 * interval), look=interval / 20
            )
        return Watches(
            lambda event: self._events.put((time.monotonic(), event)),
            lambda path: self._plan.admits(path, self._sieve),
            interval,
        )


def _apply(plan: Plan, stale: frozenset[str], replaced: set[str], watches: Watches) -> None:
    replaced |= watches.apply(plan, stale)


def _differences(before: Plan, after: Plan) -> Iterator[tuple[str, bool]]:
    """Yield each logical path that leads elsewhere now, and whether it leads nowhere."""
    old = {found.path: found for found in (*before.links, *before.roots)}
    new = {found.path: found for found in (*after.links, *after.roots)}
    for path in sorted(old.keys() | new.keys()):
        was = old[path].outcome if path in old else Kind.MISSING
        outcome = new[path].outcome if path in new else Kind.MISSING
        if was != outcome:
            yield path, outcome is Kind.MISSING


def in_words(change: Change) -> str:
    """Say what has changed: the first few names, with their folders where these tell them apart."""
    paths = change.paths[:3]
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) < len(names):
        names = [os.sep.join(path.split(os.sep)[-2:]) for path in paths]
    more = f" and {change.count - 3} more" if change.count > 3 else ""
    return f"changed: {', '.join(names)}{more}"


def make(
    options: Mapping[str, Any], submit: Callable[[str, str], object], log: logging.Logger
) -> WatchTrigger | None:
    """Make the file watch that genwsgi's options ask for (see :mod:`genwsgi.triggers.registry`)."""
    if not options["watch"]:
        return None

    def order(change: Change) -> None:
        submit(WatchTrigger.name, in_words(change))

    return WatchTrigger(
        options["roots"],
        order,
        extra=options["watch_path"],
        patterns=options["watch_pattern"],
        ignore=options["watch_ignore"],
        polling=options["watch_polling"],
        poll_interval=options["watch_interval"],
        log=log,
    )

"""An observer that polls, and says when a look has ended.

A change that is seen by polling is complete when all files have been looked at once more and
nothing was new.  The clock can't tell that: a look at a large tree on a network file system may
take longer than the time between two.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from watchdog.events import FileSystemEvent
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingEmitter

#: A watch: its directory, and whether what is below belongs to it.
Key = tuple[str, bool]

#: A look that is under way at the last news may have passed what comes next; the one after hasn't.
ENOUGH = 2

#: What lists a directory.
Listing = Callable[[str | None], Iterator[os.DirEntry[Any]]]


@dataclass(unsafe_hash=True)
class LookEvent(FileSystemEvent):
    """A watch has looked at everything, and what was new has been told.

    :ivar recursive: whether it looks at what is below ``src_path``.
    :ivar number: which look of it this was; watchdog drops an event that is like the one before.
    """

    recursive: bool = False
    number: int = 0
    event_type: str = field(default="look", init=False)

    @property
    def key(self) -> Key:
        """Which watch it was."""
        return os.fsdecode(self.src_path), self.recursive


class PollingObserver(BaseObserver):
    """Looks at the files every ``interval`` seconds, and emits a :class:`LookEvent` each time.

    It does not follow symlinks: one that flips is a change, and a loop of them has no end.
    """

    def __init__(self, listing: Listing, interval: float) -> None:
        emitter: Any = partial(_Emitter, stat=os.lstat, listdir=listing)
        super().__init__(emitter, timeout=interval)


class _Emitter(PollingEmitter):
    """Looks for one watch, on a thread of its own."""

    _number = 0

    def queue_events(self, timeout: float) -> None:
        before = self._snapshot
        super().queue_events(timeout)
        if self._snapshot is not before:  # else the look has failed, or is the end
            self._number += 1
            watch = self.watch
            self.queue_event(
                LookEvent(watch.path, recursive=watch.is_recursive, number=self._number)
            )


class Looks:
    """How many looks are still to come since the last news.  One thread at a time."""

    def __init__(self) -> None:
        self._left: dict[Key, int] = {}

    def news(self, watches: Iterable[Key]) -> None:
        """Something was new; each of ``watches`` has to look again."""
        self._left = dict.fromkeys(watches, ENOUGH)

    def over(self, event: LookEvent) -> None:
        """A look has ended."""
        left = self._left.pop(event.key, 0) - 1
        if left > 0:
            self._left[event.key] = left

    def to_come(self, watches: Iterable[Key]) -> bool:
        """Whether one of ``watches``, those that there are now, has not looked often enough."""
        return any(key in self._left for key in watches)

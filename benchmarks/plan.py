"""What the cases share: how long to measure, where, and what becomes of a part that fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import wait_until

#: Processor time that tells how much of a processor there is to have, in seconds: some turns.
SPELL = 0.25


@dataclass
class Plan:
    """How much is measured.

    :ivar base: an empty folder.
    :ivar rounds: how often each pair of servers is compared; other numbers follow from it.
    :ivar seconds: for each measurement under load.
    :ivar quick: only what shows gross mistakes.
    :ivar failures: the parts that failed, in words.
    """

    base: Path
    rounds: int = 10
    seconds: float = 5.0
    quick: bool = False
    failures: list[str] = field(default_factory=list)
    _rooms: int = 0

    def room(self) -> Path:
        """Return an empty folder."""
        self._rooms += 1
        place = self.base / str(self._rooms)
        place.mkdir()
        return place

    def say(self, line: str) -> None:
        """Tell how it goes."""
        sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
        sys.stdout.flush()

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Measure a part whose failure is written down, and ends no other part."""
        self.say(what)
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- written down, and shown in the report
            first = str(error).partition("\n")[0][:300]
            self.failures.append(f"{what}: {type(error).__name__}: {first}")
            self.say(f"FAILED: {self.failures[-1]}\n{error}")


def slowness() -> float:
    """Return how many times as long as it computes a computation takes; 1: nothing is in its way.

    Measured between the cases, when nothing of ours runs.
    """
    began, used = time.monotonic(), time.thread_time()
    while (computed := time.thread_time() - used) < SPELL:
        pass
    return (time.monotonic() - began) / computed


def pause(seconds: float) -> None:
    """Let so many seconds pass, in which only servers and clients do something."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, seconds + 10, "the time to pass")

"""What is remembered of a generation that has ended: nothing that keeps it alive."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass, field

from genwsgi.generations.generation import Generation
from genwsgi.isolation import effects
from genwsgi.isolation.modules import EndedTable, ModuleTable
from genwsgi.steps import step


@dataclass(eq=False)
class Remains:
    """A generation that is torn down.  It belongs to the janitor's thread.

    :ivar number, release, replaced: the generation's.
    :ivar served: whether it was ever swapped in.
    :ivar name, end: who it was and how it ended, as in "generation 3", "has retired".
    :ivar table: its module table.
    :ivar threads: those that it has started and that ran when its teardown had ended.
    :ivar since: when it ended, on the monotonic clock, in seconds.
    :ivar holder: what holds it, in words; empty while it has not been looked for.
    :ivar pause: how long it is left alone after the next look, in seconds; 0: as long as at first.
    :ivar again: when to look at it again, on the monotonic clock, in seconds.
    :ivar looked: whether it has been found once not to be gone.
    :ivar told: whether its holder is in the log.
    :ivar over: taken by its teardown at the end, or by the janitor when it waits no longer: whoever
        comes second knows that the other was there.
    """

    number: int
    release: str
    replaced: float | None
    served: bool
    name: str
    end: str
    table: weakref.ref[ModuleTable] | None
    threads: weakref.WeakSet[threading.Thread] = field(default_factory=weakref.WeakSet)
    since: float = field(default_factory=time.monotonic)
    holder: str = ""
    pause: float = 0.0
    again: float = 0.0
    looked: bool = False
    told: bool = False
    over: threading.Lock = field(default_factory=threading.Lock)

    @property
    def gone(self) -> bool:
        """Whether its module table has been collected."""
        return self.table is None or self.table() is None

    def note_threads(self, generation: Generation) -> None:
        """Remember which threads of it still run."""
        of_it = effects.effects_of(generation)
        self.threads.update(of_it.stragglers() if of_it is not None else ())

    def step(self, name: str, since: float | None, until: float) -> dict[str, object]:
        """The fields of a log record about it; the step took from ``since`` to ``until``."""
        seconds = None if since is None else until - since
        return step(name, release=self.release, generation=self.number, seconds=seconds)


def of_retired(generation: Generation) -> Remains:
    """Return what is remembered of one that has served and is to be torn down."""
    return _remains(generation, True, generation.name, "has retired")


def of_build(generation: Generation, end: str) -> Remains:
    """Return what is remembered of one that never served and has been torn down.

    :param end: how it ended, as in "has failed".
    """
    known = _remains(generation, False, f"the build of {generation.name}", end)
    known.note_threads(generation)
    return known


def _remains(generation: Generation, served: bool, name: str, end: str) -> Remains:
    table = generation.modules
    ref = table.ended if isinstance(table, EndedTable) else None
    if isinstance(table, ModuleTable):
        ref = weakref.ref(table)
    return Remains(
        generation.number, generation.release, generation.replaced, served, name, end, ref
    )

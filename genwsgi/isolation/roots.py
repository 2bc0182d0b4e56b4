"""Where a search through the whole process begins, and what it finds to hold a generation.

As :mod:`genwsgi.isolation.holders`, nothing here runs code of the objects that it finds.
"""

from __future__ import annotations

import gc
import inspect
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from types import FrameType

from genwsgi.isolation import holders, lookup, view
from genwsgi.isolation.holders import PAUSE, SLICE, belongs, direct, find, referents
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.naming import describe, name_of, place_of

#: How a holder is called that no path leads to.
OUTSIDE = "something outside of Python's modules"

#: Modules whose running functions hold what they search, for as long as they do.
_SEARCHING = frozenset({holders.__name__, __name__})


def roots_of_modules() -> Iterator[tuple[str, object]]:
    """Yield what stays: the shared modules and those of every living generation, and so on."""
    for name, module in view.shared_modules().items():
        yield name, module
    for table in list(lookup.living):
        for name, module in table.modules.copy().items():
            yield f"{name} of {table.generation.name}", module
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler):
            yield f"the handler of signal {number}", handler
    for thread in threading.enumerate():
        yield f"thread {thread.name!r}", thread


def roots_of_threads(own: frozenset[int] = frozenset()) -> Iterator[tuple[str, object]]:
    """Yield what runs: the variables of the functions that threads and greenlets are in.

    :param own: the idents of the threads that the generation in question started.
    """
    for name, frame in _frames(own):
        yield f"{name}, at {place_of(frame)}", _variables(frame)


def thread_place(thread: threading.Thread, builtins: object = None) -> str:
    """Return where ``thread`` is now, as "shop/jobs.py:12"; empty if that can't be seen.

    :param builtins: a generation's; the innermost frame of its code is shown if there is one.
    """
    ident = thread.ident or 0
    frame = sys._current_frames().get(ident) or _greenlets().get(ident)
    top = frame
    while frame is not None and frame.f_builtins is not builtins:
        frame = frame.f_back
    shown = frame or top
    return "" if shown is None else place_of(shown)


def _frames(own: frozenset[int]) -> Iterator[tuple[str, FrameType]]:
    """Yield what every other thread runs, innermost first, with the thread's name in words."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    # Without the frame that runs here: it would hold itself, and with it what is being searched.
    running = {
        ident: frame
        for ident, frame in {**sys._current_frames(), **_greenlets()}.items()
        if frame.f_globals is not globals()
    }
    for ident, top in running.items():
        thread = known.get(ident)
        name = f"thread {thread.name!r}" if thread is not None else f"thread or greenlet {ident}"
        if ident in own:
            name += " (started by it)"
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_globals.get("__name__") not in _SEARCHING:
                yield name, frame
            frame = frame.f_back


class Variables:
    """The variables of a frame, as attributes."""


def _variables(frame: FrameType) -> Variables:
    """Return a copy of the variables of a frame that another thread is running."""
    names = frame.f_locals
    found = Variables()
    vars(found).update(names)
    # Before 3.13 the interpreter keeps a copy too, with the frame: a holder that we have made.
    # A tracer's is needed, though, and the names of a module or a class body are the real ones.
    tracing = frame.f_trace is not None or sys.gettrace() is not None
    if frame.f_code.co_flags & inspect.CO_OPTIMIZED and type(names) is dict and not tracing:
        names.clear()
    return found


def _greenlets() -> dict[int, FrameType]:
    """Return what each greenlet that waits is in, by what gevent takes for a thread's ident."""
    module = sys.modules.get("greenlet")
    kind = getattr(module, "greenlet", None)
    if kind is None:
        return {}
    found = {}
    for obj in gc.get_objects():
        if issubclass(type(obj), kind):
            frame = kind.gr_frame.__get__(obj)
            if frame is not None:
                found[id(obj)] = frame
    return found


def name_holder(
    table: weakref.ref[ModuleTable],
    own: frozenset[int] = frozenset(),
    kept: Iterable[tuple[str, object]] = (),
) -> str:
    """Say in words what keeps the generation of ``table`` alive; empty if nothing does any more.

    It takes a second or so in a large process, in slices between which other threads run.

    :param own: the idents of the threads that the generation started.
    :param kept: further roots.
    """
    living = table()
    if living is None:
        return ""
    builtins = living.builtins
    del living
    for name, frame in _frames(own):
        if belongs(frame, builtins):
            return f"{name}, at {place_of(frame)}"
    # What a thread is doing is looked at last: its variables are mostly on the way from a module.
    for roots in ((*kept, *roots_of_modules()), roots_of_threads(own)):
        found = find(roots, lambda obj: belongs(obj, builtins))
        if found.path is not None:
            return describe(found.path)
    return "" if table() is None else _outside(builtins)


def _outside(builtins: dict[str, object]) -> str:
    """Say what refers to the generation from a place to which no path is known, if it is found."""
    everything = gc.get_objects()
    inside = {id(obj) for obj in _slowly(everything) if belongs(obj, builtins)}
    # What the generation itself leads to is not what holds it.
    own = [obj for obj in everything if id(obj) in inside]
    known = set(inside)
    for obj in _slowly(own):
        of_it = id(obj) in inside
        for child in direct(obj) if of_it else referents(obj, through_modules=False):
            if id(child) not in known and gc.is_tracked(child):
                known.add(id(child))
                own.append(child)
    ours = {id(one) for one in (everything, own)}
    # Asked for by this search itself.
    inside.discard(id(builtins))
    for obj in _slowly(everything):
        if id(obj) in known or id(obj) in ours:
            continue
        held = next((one for one in direct(obj) if id(one) in inside), None)
        if held is not None:
            kind = name_of(obj)
            return f"{OUTSIDE}: {kind}, through {name_of(held)}"
    return f"{OUTSIDE}, out of sight of its garbage collector"


def _slowly(objects: list[object]) -> Iterator[object]:
    """Yield ``objects``, also those that are appended meanwhile, and let other threads run."""
    for index, obj in enumerate(objects):
        if index % SLICE == SLICE - 1:
            time.sleep(PAUSE)
        yield obj

"""Where a search through the whole process begins, with what to call each place.

As :mod:`genwsgi.isolation.holders`, nothing here runs code of the objects that it finds.
"""

from __future__ import annotations

import gc
import inspect
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from genwsgi.isolation import holders, lookup, view
from genwsgi.isolation.naming import place_of

#: Modules whose running functions hold what they search, for as long as they do.
_SEARCHING = frozenset({holders.__name__, __name__})


def process_roots(own: frozenset[int] = frozenset()) -> Iterator[tuple[str, object]]:
    """Yield what to search for a holder in this process, each with its name, nearest first.

    Threads with what they do now, greenlets, the shared modules, the modules of every living
    generation, signal handlers.

    :param own: the idents of the threads that the generation in question started.
    """
    yield from _threads(own)
    yield from _greenlets()
    for name, module in view.shared_modules().items():
        yield name, module
    for table in list(lookup.living):
        for name, module in table.modules.copy().items():
            yield f"{name} of {table.generation.name}", module
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler):
            yield f"the handler of signal {number}", handler


def thread_place(thread: threading.Thread, builtins: object = None) -> str:
    """Return where ``thread`` is now, as "shop/jobs.py:12"; empty if that can't be seen.

    :param builtins: a generation's; the innermost frame of its code is shown if there is one.
    """
    frame = sys._current_frames().get(thread.ident or 0)
    top = frame
    while frame is not None and frame.f_builtins is not builtins:
        frame = frame.f_back
    shown = frame or top
    return "" if shown is None else place_of(shown)


def _threads(own: frozenset[int]) -> Iterator[tuple[str, object]]:
    known = {thread.ident: thread for thread in threading.enumerate()}
    searching = threading.get_ident()
    for ident, top in sys._current_frames().items():
        if ident == searching:
            continue
        thread = known.get(ident)
        name = f"thread {thread.name!r}" if thread is not None else f"thread {ident}"
        if ident in own:
            name += " (started by it)"
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_globals.get("__name__") not in _SEARCHING:
                yield f"{name}, at {place_of(frame)}", _locals(frame)
                yield f"{name}, at {place_of(frame)}", frame
            frame = frame.f_back
        if thread is not None:
            yield name, thread


def _locals(frame: FrameType) -> dict[str, object]:
    """Return a copy of the variables of a frame that another thread is running."""
    names = frame.f_locals
    found = dict(names)
    # Before 3.13 the interpreter keeps a copy too, with the frame: a holder that we have made.
    # A tracer's is needed, though, and the names of a module or a class body are the real ones.
    tracing = frame.f_trace is not None or sys.gettrace() is not None
    if frame.f_code.co_flags & inspect.CO_OPTIMIZED and type(names) is dict and not tracing:
        names.clear()
    return found


def _greenlets() -> Iterator[tuple[str, object]]:
    module = sys.modules.get("greenlet")
    kind = getattr(module, "greenlet", None)
    if kind is None:
        return
    for obj in gc.get_objects():
        if issubclass(type(obj), kind):
            frame = kind.gr_frame.__get__(obj)
            if frame is None:
                continue
            name = f"a greenlet, at {place_of(frame)}"
            while frame is not None:
                yield name, _locals(frame)
                yield name, frame
                frame = frame.f_back

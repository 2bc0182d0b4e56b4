"""Code of a version that is suspended: no thread is in it now, and it is to go on later.

Coroutines, generators and greenlets.  They are looked for among all objects of the process, which
takes some tens of milliseconds per million of them; so one that was found is remembered, and the
next look is at that one alone.  None of the program's code runs in a look.

The updater's thread alone.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Collection
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CoroutineType,
    FrameType,
    GeneratorType,
    MethodWrapperType,
)
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation import asking

#: The types of ``generator.send`` and ``generator.__next__``.
_METHODS = (BuiltinMethodType, MethodWrapperType)


class Suspended:
    """Tells which versions have suspended code."""

    def __init__(self) -> None:
        # One object with suspended code of each version, as far as it was looked for.
        self._found: weakref.WeakKeyDictionary[Generation, weakref.ref[Any]] = (
            weakref.WeakKeyDictionary()
        )

    def places(
        self, generations: Collection[Generation], threads: Collection[int] = ()
    ) -> dict[Generation, str]:
        """Return those of ``generations`` that have suspended code, and where, for people.

        :param threads: those that the generations have started, by their identifiers.  What asyncio
            runs there does not count, as these threads do not: it is the generation's to end.
        """
        places: dict[Generation, str] = {}
        for generation in generations:
            reference = self._found.get(generation)
            one = None if reference is None else reference()
            if one is not None:
                places.update(_places(one, {generation}))
        rest = {generation for generation in generations if generation not in places}
        own = _run_in(threads) if rest and threads else ()
        for one in _all() if rest else ():
            if id(one) in own:
                continue
            for generation, place in _places(one, rest).items():
                places[generation] = place
                rest.discard(generation)
                self._found[generation] = weakref.ref(one)
            if not rest:
                break
        return places


def _places(one: Any, generations: Collection[Generation]) -> dict[Generation, str]:
    """Return those of ``generations`` whose code is suspended in ``one``, and where."""
    places: dict[Generation, str] = {}
    frame = _innermost(one)
    while frame is not None:
        generation = asking.generation_of(frame)
        if generation is not None and generation in generations and not _is_kept(one, frame):
            code = frame.f_code
            places.setdefault(generation, f"suspended in {code.co_name} of {code.co_filename}")
        frame = frame.f_back
    return places


def _all() -> list[Any]:
    """Return all objects of the process that may have suspended code."""
    kinds: set[type] = {CoroutineType, GeneratorType, AsyncGeneratorType}
    waiting = [sys.modules["greenlet"].greenlet] if "greenlet" in sys.modules else []
    while waiting:
        kinds.add(waiting[-1])
        waiting += type.__subclasses__(waiting.pop())
    return [one for one in gc.get_objects() if type(one) in kinds]


def _run_in(threads: Collection[int]) -> dict[int, Any]:
    """Return, by their identities, the coroutines of tasks that asyncio runs in these threads."""
    asyncio: Any = sys.modules.get("asyncio")
    loops = []
    for ident, top in sys._current_frames().items() if asyncio is not None else ():
        frame = top if ident in threads else None
        while frame is not None:
            if frame.f_code is asyncio.BaseEventLoop.run_forever.__code__:
                loops.append(id(frame.f_locals["self"]))
            frame = frame.f_back
    found: dict[int, Any] = {}
    for task in [one for one in gc.get_objects() if type(one) is asyncio.Task] if loops else ():
        one = task.get_coro() if id(task.get_loop()) in loops else None
        while type(one) is CoroutineType:
            found[id(one)] = one
            one = one.cr_await
    return found


def _innermost(one: Any) -> FrameType | None:
    """Return the innermost frame of one of these; ``None``: it is not suspended."""
    kind = type(one)
    frame: FrameType | None
    if kind is CoroutineType:
        frame = None if one.cr_running else one.cr_frame
    elif kind is GeneratorType:
        frame = None if one.gi_running else one.gi_frame
    elif kind is AsyncGeneratorType:
        frame = one.ag_frame  # it counts as running while what it awaits is suspended
    else:
        # Not through the object: its class may be the program's.
        frame = sys.modules["greenlet"].greenlet.gr_frame.__get__(one)
    return frame


def _is_kept(one: Any, frame: FrameType) -> bool:
    """Whether the module that a generator is of keeps it itself: a counter, say.

    It goes with the version, as the threads that this has started do, and does not keep it.
    """
    return any(
        value is one or (type(value) in _METHODS and value.__self__ is one)
        for value in list(frame.f_globals.values())
    )

"""``atexit``: a callback runs when its generation retires, or when the process ends."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Callable
from typing import Any

from genwsgi.isolation.effects.base import Book, Patches, Record, Run, acting, living

log = logging.getLogger("genwsgi")

_register = atexit.register
_unregister = atexit.unregister
_patches = Patches()


#: A function, its positional and its keyword arguments.
Callback = tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]


class AtEveryEnd:
    """A callback that runs also when the build failed."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback

    def __repr__(self) -> str:
        return repr(self._callback)

    def __call__(self) -> object:
        """Call it."""
        return self._callback()


class Exits(Record):
    """The exit callbacks of one generation.

    :ivar callbacks: in the order of registration.
    :ivar at_undo: genwsgi's own, called when the build has failed or was discarded.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.callbacks: list[Callback] = []
        self.at_undo: list[Callable[[], object]] = []

    def undo(self) -> None:
        """Run what is to run at every end; forget the others, made for a process that served."""
        wanted = [one for one in self.callbacks if type(one[0]) is AtEveryEnd]
        self.callbacks.clear()
        book = self.book()
        generation = None if book is None else book.generation()
        if generation is not None:
            self._run_all(wanted, generation.run)
        # One may have imported what failed to be imported, once more.
        self.callbacks.clear()
        while self.at_undo:
            self.at_undo.pop()()

    def retire(self, run: Run) -> None:
        """Run them, last registered first, as the end of the process would."""
        self._run_all(self.callbacks, run)
        self.at_undo.clear()

    def _run_all(self, callbacks: list[Callback], run: Run) -> None:
        while callbacks:
            function, args, kwargs = callbacks.pop()
            try:
                run(lambda call=function, a=args, k=kwargs: call(*a, **k))
            except BaseException:  # CancelledError and GreenletExit are such
                log.exception("%s: its exit callback %r raised", self.name, function)


def _register_for_generation(func: Any, /, *args: Any, **kwargs: Any) -> Any:
    exits = acting(Exits)
    if exits is None:
        return _register(func, *args, **kwargs)
    exits.callbacks.append((func, args, kwargs))
    return func


def _unregister_for_generation(func: Any, /) -> None:
    exits = acting(Exits)
    if exits is not None:
        exits.callbacks[:] = [entry for entry in exits.callbacks if entry[0] != func]
    _unregister(func)


def _at_exit() -> None:
    """The process ends: run the exit callbacks of the generations that are still there."""
    for generation, book in living():
        book.retire(generation.run)


def install() -> None:
    """Wrap ``atexit``."""
    # The first finalizer of the process registers the exit callback of all.
    weakref.finalize(Exits, int).detach()
    _patches.put(atexit, "register", _register_for_generation)
    _patches.put(atexit, "unregister", _unregister_for_generation)
    _register(_at_exit)


def uninstall() -> None:
    """Undo :func:`install`."""
    _unregister(_at_exit)
    _patches.take_back()

"""``atexit``: a callback runs when its generation retires, or when the process ends.

So do those of ``threading``, which thread pools of libraries use: they are called first, as at the
end of the process, where non-daemon threads are waited for between the two.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from genwsgi.isolation.effects.base import Book, Patches, Record, Run, acting, living
from genwsgi.isolation.effects.claims import counted

log = logging.getLogger("genwsgi")

_register = atexit.register
_unregister = atexit.unregister
_register_early: Callable[..., Any] = threading._register_atexit  # type: ignore[attr-defined]
#: Whether the process's own early callback is registered: it can't be taken back.
_early_registered = False
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
    :ivar early: those of ``threading``, which come first.
    :ivar at_undo: genwsgi's own, called when the build has failed or was discarded.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.callbacks: list[Callback] = []
        self.at_undo: list[Callable[[], object]] = []
        self.early: list[Callback] = []

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
        self.early.clear()
        while self.at_undo:
            self.at_undo.pop()()

    def retire(self, run: Run) -> None:
        """Run them, last registered first, as the end of the process would."""
        self.run_early(run)
        self._run_all(self.callbacks, run)
        self.at_undo.clear()

    def run_early(self, run: Run) -> None:
        """Run those that come first."""
        self._run_all(self.early, run)

    def report(self) -> list[str]:
        """How many there are."""
        return counted({"exit callback": len(self.callbacks) + len(self.early)})

    def _run_all(self, callbacks: list[Callback], run: Run) -> None:
        while callbacks:
            function, args, kwargs = callbacks.pop()
            try:
                run(lambda call=function, a=args, k=kwargs: call(*a, **k))
            except BaseException:  # CancelledError and GreenletExit are such
                log.exception("%s: its exit callback %r raised", self.name, function)


def _end_of_child() -> object:
    """Return what multiprocessing registers in each process that it forks, to be run there."""
    util = sys.modules.get("multiprocessing.util")
    return getattr(util, "_exit_function", _register)


def _register_for_generation(func: Any, /, *args: Any, **kwargs: Any) -> Any:
    exits = acting(Exits)
    if exits is None or func is _end_of_child():
        return _register(func, *args, **kwargs)
    exits.callbacks.append((func, args, kwargs))
    return func


def _unregister_for_generation(func: Any, /) -> None:
    exits = acting(Exits)
    if exits is not None:
        exits.callbacks[:] = [entry for entry in exits.callbacks if entry[0] != func]
    _unregister(func)


def _register_early_for_generation(func: Any, *args: Any, **kwargs: Any) -> Any:
    global _early_registered
    exits = acting(Exits)
    if exits is None:
        return _register_early(func, *args, **kwargs)
    if not _early_registered:
        _register_early(_before_threads)
        _early_registered = True
    exits.early.append((func, args, kwargs))
    return None


def _before_threads() -> None:
    """The process ends, and waits for threads next."""
    for generation, book in living():
        book.of(Exits).run_early(generation.run)


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
    _patches.put(threading, "_register_atexit", _register_early_for_generation)
    _register(_at_exit)


def uninstall() -> None:
    """Undo :func:`install`."""
    _unregister(_at_exit)
    _patches.take_back()

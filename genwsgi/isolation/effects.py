"""What a generation does to the process outside its modules, so that it can be undone.

Where Python has one function through which such an effect goes, it is wrapped and the effect is put
down to the generation in whose context it happens; the lists that anybody can write to
(``sys.path``, ``sys.meta_path`` ...) are compared before and after the build.

- ``atexit.register``: the callback runs when the generation retires, or when the process ends.
- ``logging``: a handler that a generation added hears only that generation's records, and goes with
  it; so no line is written twice while two generations are alive, or after.
- threads: a thread belongs to the generation that started it.
- ``signal.signal`` off the main thread, where Python refuses it: the handler is kept for the
  generation and called when the signal comes, if the process had a handler of the application's
  before.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from genwsgi.errors import BuildAbandoned
from genwsgi.generations.generation import Generation, active
from genwsgi.generations.lifecycle import State

log = logging.getLogger("genwsgi")

_lock = threading.Lock()
_installed = 0
_effects: weakref.WeakKeyDictionary[Generation, Effects] = weakref.WeakKeyDictionary()

#: Lists of the process that code appends to when it is imported.
_LISTS: dict[str, Callable[[], list[Any]]] = {
    "sys.path": lambda: sys.path,
    "sys.meta_path": lambda: sys.meta_path,
    "sys.path_hooks": lambda: sys.path_hooks,
}


class Effects:
    """What one generation did to the process.  Kept by the thread that builds; see each method."""

    def __init__(self, generation: Generation) -> None:
        self._generation = weakref.ref(generation)
        self._name = generation.name
        self._lists = {name: list(get()) for name, get in _LISTS.items()}
        self.callbacks: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []
        self.handlers: list[tuple[logging.Logger, logging.Handler]] = []
        self.threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self.signals: dict[int, Any] = {}
        _effects[generation] = self

    def undo(self) -> None:
        """Undo all of it: the build failed.  Threads are told to stop; see :meth:`stragglers`."""
        for name, before in self._lists.items():
            now = _LISTS[name]()
            for item in [item for item in now if not any(item is other for other in before)]:
                if not (isinstance(item, str) and item in before):
                    now.remove(item)
        self.callbacks.clear()
        self.signals.clear()
        self._remove_handlers()
        for thread in list(self.threads):
            _interrupt(thread)

    def retire(self, run: Callable[..., object]) -> None:
        """Run the exit callbacks, last registered first, and take the log handlers away.

        :param run: runs a callable in the generation's context.
        """
        while self.callbacks:
            function, args, kwargs = self.callbacks.pop()
            try:
                run(lambda call=function, a=args, k=kwargs: call(*a, **k))
            except Exception:
                log.exception("%s: its exit callback %r raised", self._name, function)
        self.signals.clear()
        self._remove_handlers()

    def stragglers(self) -> list[threading.Thread]:
        """Threads that the generation started and that still run."""
        return [thread for thread in list(self.threads) if thread.is_alive()]

    def _remove_handlers(self) -> None:
        while self.handlers:
            logger, handler = self.handlers.pop()
            logger.removeHandler(handler)
            handler.close()


class _OnlyOwn(logging.Filter):
    """Lets through the records of one generation, and of nobody while that one is current."""

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        self._generation = weakref.ref(generation)

    def filter(self, record: logging.LogRecord) -> bool:
        mine = self._generation()
        speaker = active.get()
        if speaker is None:
            return mine is not None and mine.state is State.CURRENT
        return speaker is mine


def effects_of(generation: Generation) -> Effects | None:
    """What is written down for ``generation``, if anything."""
    return _effects.get(generation)


def _acting() -> Effects | None:
    generation = active.get()
    return None if generation is None else _effects.get(generation)


_register = atexit.register
_unregister = atexit.unregister
_add_handler = logging.Logger.addHandler
_signal = signal.signal
#: What starts a thread, under the name this version of Python has for it.
_START = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
# Looked up when installing: a worker class may have replaced it after this module was imported.
_start: Callable[..., Any] = getattr(threading, _START)


def _register_for_generation(func: Any, /, *args: Any, **kwargs: Any) -> Any:
    effects = _acting()
    if effects is None:
        return _register(func, *args, **kwargs)
    effects.callbacks.append((func, args, kwargs))
    return func


def _unregister_for_generation(func: Any, /) -> None:
    effects = _acting()
    if effects is not None:
        effects.callbacks[:] = [entry for entry in effects.callbacks if entry[0] != func]
    _unregister(func)


def _add_handler_for_generation(self: logging.Logger, hdlr: logging.Handler) -> None:
    effects = _acting()
    generation = active.get()
    if effects is not None and generation is not None and hdlr not in self.handlers:
        if not any(hdlr is handler for _, handler in effects.handlers):
            hdlr.addFilter(_OnlyOwn(generation))
        effects.handlers.append((self, hdlr))
    _add_handler(self, hdlr)


def _start_for_generation(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    generation = active.get()
    if generation is None:
        return _start(function, *args, **kwargs)
    thread = getattr(function, "__self__", None)
    effects = _effects.get(generation)
    if effects is not None and isinstance(thread, threading.Thread):
        effects.threads.add(thread)
    context = generation.new_context()

    def in_generation(*call: Any) -> Any:
        return context.run(function, *call)

    return _start(in_generation, *args, **kwargs)


def _signal_for_generation(signalnum: Any, handler: Any) -> Any:
    """``signal.signal``; in a build off the main thread, what that build is allowed to do."""
    effects = _acting()
    if effects is None:
        return _signal(signalnum, handler)
    number = int(signalnum)
    if threading.current_thread() is threading.main_thread():
        before = _signal(signalnum, _dispatch if callable(handler) else handler)
    else:
        before = signal.getsignal(signalnum)
        if before is not _dispatch and before is not handler:
            log.warning(
                "%s: its handler for %s takes effect when the worker is replaced: "
                "a signal can be claimed on the main thread only",
                effects._name,
                signal.Signals(number).name,
            )
    effects.signals[number] = handler
    return signal.SIG_DFL if before is _dispatch else before


def _dispatch(number: int, frame: Any) -> None:
    """Call the newest generation's handler of a signal that an application has claimed."""
    living = sorted(_effects.items(), key=lambda item: item[0].number, reverse=True)
    for generation, effects in living:
        handler = effects.signals.get(number)
        if generation.state in (State.CURRENT, State.BUILDING, State.READY) and callable(handler):
            if generation.state is State.CURRENT or len(living) == 1:
                generation.run(handler, number, frame)
                return


def _at_exit() -> None:
    """The process ends: run the exit callbacks of the generations that are still there."""
    for generation, effects in sorted(_effects.items(), key=lambda item: -item[0].number):
        effects.retire(generation.run)


def install() -> None:
    """Begin to write effects down.  Any thread; balanced by :func:`uninstall`."""
    global _installed, _signal, _start
    with _lock:
        _installed += 1
        if _installed > 1:
            return
        _signal = signal.signal
        _start = getattr(threading, _START)
        atexit.register = _register_for_generation
        atexit.unregister = _unregister_for_generation
        logging.Logger.addHandler = _add_handler_for_generation  # type: ignore[method-assign]
        signal.signal = _signal_for_generation
        setattr(threading, _START, _start_for_generation)
        _register(_at_exit)


def uninstall() -> None:
    """Undo :func:`install`; with the last one everything is as it was before the first."""
    global _installed
    with _lock:
        _installed -= 1
        if _installed:
            return
        _unregister(_at_exit)
        setattr(threading, _START, _start)
        signal.signal = _signal
        logging.Logger.addHandler = _add_handler  # type: ignore[method-assign]
        atexit.unregister = _unregister
        atexit.register = _register


def _interrupt(thread: threading.Thread) -> None:
    """Ask a thread that nobody can stop otherwise to stop, at its next Python instruction."""
    ident = thread.ident
    if ident is not None and thread.is_alive():
        with suppress(ValueError, ctypes.ArgumentError):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(BuildAbandoned)
            )

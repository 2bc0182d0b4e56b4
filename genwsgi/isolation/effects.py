"""What a generation does to the process outside its modules, so that it can be undone.

Where Python has one function through which such an effect goes, it is wrapped and the effect is put
down to the generation in whose context it happens; the lists that anybody can write to
(``sys.path``, ``sys.meta_path`` ...) are compared before and after the build.

- ``atexit.register``: the callback runs when the generation retires, or when the process ends.
- ``logging``: each generation has its own list of every logger's handlers.  It begins as what the
  process has set up, and whatever a generation adds, removes or clears, only its own records are
  concerned; so no line is written twice, and ``basicConfig`` works in every generation.
- threads: a thread belongs to the generation that started it.
- ``signal.signal`` off the main thread, where Python refuses it: the handler is kept for the
  generation and called when the signal comes, if the process had a handler of the application's
  before.

What a *shared* module does while it is imported is the process's own business, whoever imports it.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import signal
import sys
import threading
import typing
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from genwsgi.generations.generation import Generation, active
from genwsgi.generations.lifecycle import State

log = logging.getLogger("genwsgi")

#: Whether a shared module is being imported here; what it does is not the generation's.
importing_shared: ContextVar[bool] = ContextVar("genwsgi.importing_shared", default=False)

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
        self._added: dict[str, list[Any]] = {}
        self.callbacks: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []
        #: For each logger the generation's list, and what was in it when it was last made.
        self.handlers: dict[
            logging.Logger, tuple[list[logging.Handler], tuple[logging.Handler, ...]]
        ] = {}
        self.threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self.signals: dict[int, Any] = {}
        # Before the first generation a logger has no state that another one relies on.
        self._loggers = _loggers() if _effects else {}
        _effects[generation] = self

    def built(self) -> None:
        """The build has ended: what the process's lists have now and had not before is its own."""
        for name, before in self._lists.items():
            known = {id(item) for item in before}
            self._added[name] = [item for item in _LISTS[name]() if id(item) not in known]
        self._lists.clear()
        # ``dictConfig`` disables by default every logger that was there before: those of the
        # generation that serves, which are the same objects, and our own.
        for logger, (disabled, _, _) in self._loggers.items():
            logger.disabled = disabled
        log.disabled = False

    def undo(self) -> None:
        """Undo all of it: the build failed.  Threads are told to stop; see :meth:`stragglers`."""
        self.built()
        for logger, (_, level, propagate) in self._loggers.items():
            logger.propagate = propagate
            if logger.level != level:
                logger.setLevel(level)
        self._restore_lists(keep_last=False)
        self.callbacks.clear()
        self.signals.clear()
        self._remove_handlers()
        for thread in list(self.threads):
            _interrupt(thread)

    def retire(self, run: Callable[..., object]) -> None:
        """Run the exit callbacks, last registered first, and take handlers and hooks away.

        :param run: runs a callable in the generation's context.
        """
        while self.callbacks:
            function, args, kwargs = self.callbacks.pop()
            try:
                run(lambda call=function, a=args, k=kwargs: call(*a, **k))
            except BaseException:  # CancelledError and GreenletExit are such
                log.exception("%s: its exit callback %r raised", self._name, function)
        self._restore_lists(keep_last=True)
        self.signals.clear()
        self._remove_handlers()

    def stragglers(self) -> list[threading.Thread]:
        """Threads that the generation started and that still run."""
        return [thread for thread in list(self.threads) if thread.is_alive()]

    def handlers_of(self, logger: logging.Logger) -> list[logging.Handler]:
        """Return the generation's own list of the handlers of ``logger``."""
        shared = tuple(_process_handlers(logger))
        own, given = self.handlers.get(logger, ([], ()))
        if given != shared and tuple(own) == given:
            # The generation has not touched its list: it follows the process's.
            own[:] = shared
            given = shared
        self.handlers[logger] = own, given
        return own

    def _restore_lists(self, *, keep_last: bool) -> None:
        """Take what the build added to the process's lists out of them again.

        :param keep_last: leave a folder that would not be on the path any more: another generation
            may have found it there and not added it again.
        """
        for name, added in self._added.items():
            now = _LISTS[name]()
            for item in added:
                for index, other in enumerate(now):
                    if other is item:
                        if not (keep_last and isinstance(item, str) and now.count(item) == 1):
                            del now[index]
                        break
        self._added.clear()

    def _remove_handlers(self) -> None:
        while self.handlers:
            logger, (own, _) = self.handlers.popitem()
            shared = _process_handlers(logger)
            for handler in own:
                if handler not in shared:
                    try:
                        handler.close()
                    except Exception:
                        log.exception("%s: its log handler %r raised", self._name, handler)


def forget_types() -> None:
    """Make :mod:`typing` forget each ``Optional[Model]`` it has made, and with it the model."""
    for clear in typing._cleanups:  # type: ignore[attr-defined]
        clear()


def forget_overloads(builtins: dict[str, Any]) -> None:
    """Make :mod:`typing` forget the overloaded functions of a generation, known by its builtins."""
    overloads: dict[str, dict[str, dict[int, Any]]] = getattr(typing, "_overload_registry", {})
    for by_name in list(overloads.values()):
        for by_line in list(by_name.values()):
            for line, function in list(by_line.items()):
                if getattr(function, "__builtins__", None) is builtins:
                    del by_line[line]


def _loggers() -> dict[logging.Logger, tuple[bool, int, bool]]:
    """What the process's loggers are set to: disabled, level, propagate."""
    known = [logging.root, *logging.Logger.manager.loggerDict.copy().values()]
    return {
        logger: (logger.disabled, logger.level, logger.propagate)
        for logger in known
        if isinstance(logger, logging.Logger)
    }


def effects_of(generation: Generation) -> Effects | None:
    """What is written down for ``generation``, if anything."""
    return _effects.get(generation)


def _acting() -> Effects | None:
    generation = active.get()
    if generation is None or importing_shared.get():
        return None
    return _effects.get(generation)


def _living() -> list[tuple[Generation, Effects]]:
    """The generations that have effects, newest first."""
    found = []
    for reference in _effects.keyrefs():
        generation = reference()
        effects = None if generation is None else _effects.get(generation)
        if generation is not None and effects is not None:
            found.append((generation, effects))
    return sorted(found, key=lambda item: -item[0].number)


_register = atexit.register
_unregister = atexit.unregister
_call_handlers = logging.Logger.callHandlers
_signal = signal.signal
#: What handled a signal before an application claimed it.
_claimed: dict[int, Any] = {}
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


def _process_handlers(logger: logging.Logger) -> list[logging.Handler]:
    handlers: list[logging.Handler] = logger.__dict__["handlers"]
    return handlers


def _handlers_for_generation(self: logging.Logger) -> list[logging.Handler]:
    effects = _acting()
    return _process_handlers(self) if effects is None else effects.handlers_of(self)


def _set_handlers_for_generation(self: logging.Logger, handlers: list[logging.Handler]) -> None:
    effects = _acting()
    if effects is None or "handlers" not in self.__dict__:
        self.__dict__["handlers"] = handlers
    else:
        effects.handlers[self] = handlers, ()


def _call_handlers_for_generation(self: logging.Logger, record: logging.LogRecord) -> None:
    """``Logger.callHandlers``; what nobody's code says the current generation hears."""
    if active.get() is None:
        for generation, effects in _living():
            if generation.state is State.CURRENT and effects.handlers:
                generation.run(_call_handlers, self, record)
                return
    _call_handlers(self, record)


def _start_for_generation(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    generation = active.get()
    if generation is None or importing_shared.get():
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
        before = _signal(signalnum, _dispatch)
        if before is not _dispatch:
            _claimed[number] = before
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
    return _claimed.get(number, signal.SIG_DFL) if before is _dispatch else before


def _dispatch(number: int, frame: Any) -> None:
    """Do what the current generation wants done about a signal, else what was done before it."""
    living = _living()
    chosen = [item for item in living if item[0].state is State.CURRENT] or living
    for generation, effects in chosen:
        if number in effects.signals:
            handler = effects.signals[number]
            if callable(handler):
                generation.run(handler, number, frame)
                return
            break
    else:
        handler = _claimed.get(number)
    if callable(handler):
        handler(number, frame)
    elif handler != signal.SIG_IGN:
        _signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _at_exit() -> None:
    """The process ends: run the exit callbacks of the generations that are still there."""
    for generation, effects in _living():
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
        # The first finalizer of the process registers the exit callback of all.
        weakref.finalize(Effects, int).detach()
        atexit.register = _register_for_generation
        atexit.unregister = _unregister_for_generation
        setattr(  # noqa: B010 -- an attribute of the instances is to be one of the class
            logging.Logger,
            "handlers",
            property(_handlers_for_generation, _set_handlers_for_generation),
        )
        logging.Logger.callHandlers = _call_handlers_for_generation  # type: ignore[method-assign]
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
        if threading.current_thread() is threading.main_thread():
            for number, handler in _claimed.items():
                if signal.getsignal(number) is _dispatch:
                    _signal(number, handler)
            _claimed.clear()
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]
        del logging.Logger.handlers
        atexit.unregister = _unregister
        atexit.register = _register


def _interrupt(thread: threading.Thread) -> None:
    """Ask a thread that nobody can stop otherwise to stop, at its next Python instruction."""
    ident = thread.ident
    if ident is not None and thread.is_alive():
        with suppress(ValueError, ctypes.ArgumentError):
            # A thread may end with this without anybody complaining.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(SystemExit)
            )

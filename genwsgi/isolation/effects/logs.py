"""``logging``: each generation has its own list of every logger's handlers, and of its filters.

It begins as what the process has set up, and whatever a generation adds, removes or clears, only
its own records are concerned; so no line is written twice, and ``basicConfig`` works in every
generation.  The same holds for the filters of handlers that others have made.

A record is dealt with in the name of the generation whose code has logged it; see
:func:`~genwsgi.isolation.asking.asking`.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from genwsgi.generations.generation import Generation, active
from genwsgi.isolation.asking import asking, generation_of
from genwsgi.isolation.effects.base import (
    Book,
    Patches,
    Record,
    Run,
    acting,
    current,
    entered,
)
from genwsgi.isolation.effects.claims import Claims, counted

log = logging.getLogger("genwsgi")

_handle = logging.Logger.handle
_get_logger = logging.Manager.getLogger
_add_reference: Callable[[logging.Handler], None] = logging._addHandlerRef  # type: ignore[attr-defined]
_set_logger_class = logging.setLoggerClass
_get_logger_class = logging.getLoggerClass
_capture_warnings = logging.captureWarnings
_module: Any = logging
_names = vars(logging)
_patches = Patches()

#: Marks handlers that a generation has made: their filters are its own anyway.
_MARK = "_genwsgi_own"
#: Loggers of a class that a generation has set with ``setLoggerClass``.
_dressed: weakref.WeakSet[logging.Logger] = weakref.WeakSet()

#: Whose list it is, the generation's own, and what was in it when it last followed the process's;
#: ``None``: the generation has replaced it.
_Own = tuple[Any, list[Any], "list[Any] | None"]


class Logs(Record):
    """The handlers and filters of one generation, and how the loggers were set before it."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        #: By the identity of the logger or handler.
        self.lists: dict[str, dict[int, _Own]] = {"handlers": {}, "filters": {}}
        #: The handlers that it made, in that order.
        self.made: list[weakref.ref[logging.Handler]] = []
        self.logger_class: type[logging.Logger] | None = None
        # Before the first generation a logger has no state that another one relies on.
        self._loggers = {} if book.first else _loggers()

    def built(self) -> None:
        """Enable the loggers that the build disabled.

        ``dictConfig`` does so by default with every logger that was there before: those of the
        generation that serves, which are the same objects, and our own.
        """
        for logger, (disabled, _, _) in self._loggers.items():
            logger.disabled = disabled
        log.disabled = False

    def undo(self) -> None:
        """Set the loggers as they were."""
        for logger, (_, level, propagate) in self._loggers.items():
            logger.propagate = propagate
            if logger.level != level:
                logger.setLevel(level)
        self._close()

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Close the generation's handlers."""
        self._close()

    def report(self) -> list[str]:
        """How many handlers and filters it has."""
        lists = self.lists["filters"].copy().values()
        filters = sum(len(own) - len(was or ()) for _, own, was in lists)
        return counted({"log handler": len(self.handlers()), "log filter": max(filters, 0)})

    def handlers(self) -> list[logging.Handler]:
        """Return the handlers that it made and that still exist."""
        return [handler for handler in (made() for made in self.made) if handler is not None]

    def own(self, name: str, owner: Any) -> list[Any]:
        """Return the generation's own list of the handlers or filters of ``owner``."""
        shared: list[Any] = owner.__dict__[name]
        found = self.lists[name].get(id(owner))
        if found is None:
            own: list[Any] = shared.copy()
        else:
            own, was = found[1:]
            if was is None or was == shared or own != was:
                return own
            # The generation has not touched its list: it follows the process's.
            own[:] = shared
        self.lists[name][id(owner)] = owner, own, shared.copy()
        return own

    def replace(self, name: str, owner: Any, own: list[Any]) -> None:
        """Make ``own`` the generation's list of the handlers or filters of ``owner``."""
        self.lists[name][id(owner)] = owner, own, None

    def _close(self) -> None:
        """Flush and close its handlers, last made first, as the end of the process would."""
        mine = self.handlers()
        for lists in self.lists.values():
            lists.clear()
        for handler in reversed(mine):
            try:
                close(handler)
            except Exception:
                log.exception("%s: its log handler %r raised", self.name, handler)
        self.made.clear()
        if self.logger_class is not None:
            for logger in _loggers():
                if type(logger) is self.logger_class:
                    logger.__class__ = logging.Logger
            self.logger_class = None


def close(handler: logging.Handler) -> None:
    """Flush and close a handler; another one that has its name by now keeps it."""
    if getattr(handler, "flushOnClose", True):
        handler.flush()
    if _module._handlers.get(handler.name) is not handler:
        handler._name = None  # type: ignore[attr-defined]
    handler.close()


def _loggers() -> dict[logging.Logger, tuple[bool, int, bool]]:
    """What the process's loggers are set to: disabled, level, propagate."""
    known = [logging.root, *logging.Logger.manager.loggerDict.copy().values()]
    return {
        logger: (logger.disabled, logger.level, logger.propagate)
        for logger in known
        if isinstance(logger, logging.Logger)
    }


def _list_per_generation(name: str) -> property:
    """Return the attribute ``name`` for a class: the list of the generation that is active.

    Not of the one that asks, which it takes longer to find: this is looked at several times for a
    record, and what deals with a record has been entered as the one that asks.
    """

    def get(self: Any) -> list[Any]:
        logs = entered(Logs)
        if logs is None or _MARK in self.__dict__:
            found: list[Any] = self.__dict__[name]
            return found
        return logs.own(name, self)

    def put(self: Any, value: list[Any]) -> None:
        logs = entered(Logs)
        if logs is None or name not in self.__dict__ or _MARK in self.__dict__:
            self.__dict__[name] = value
        else:
            logs.replace(name, self, value)

    return property(get, put)


def _handle_for_generation(self: logging.Logger, record: logging.LogRecord) -> None:
    """``Logger.handle``; what nobody's code says the current generation hears."""
    here = active.get()
    generation = _logging_code() if here is None else asking()
    if generation is None:
        newest = current()
        if newest is not None and any(newest[1].of(Logs).lists.values()):
            generation = newest[0]
    if generation is None or generation is here:
        _handle(self, record)
    else:
        generation.run(_handle, self, record)


def _logging_code() -> Generation | None:
    """Return the generation whose code has called the logger, outside of any context.

    That is what the whole stack would say of a server's own thread, at a tenth of the cost; and a
    greenlet of the application is found by its own code.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals is _names:
        frame = frame.f_back
    return None if frame is None else generation_of(frame)


def _add_reference_for_generation(handler: logging.Handler) -> None:
    """What each new handler calls, in its constructor."""
    _add_reference(handler)
    logs = acting(Logs)
    if logs is not None:
        handler.__dict__[_MARK] = True
        logs.made.append(weakref.ref(handler, logs.made.remove))


def _set_logger_class_for_generation(klass: type[logging.Logger]) -> None:
    logs = acting(Logs)
    if logs is None or not issubclass(klass, logging.Logger):
        _set_logger_class(klass)
    else:
        logs.logger_class = klass


def _get_logger_class_for_generation() -> type[logging.Logger]:
    logs = acting(Logs)
    return (None if logs is None else logs.logger_class) or _get_logger_class()


def _get_logger_for_generation(self: logging.Manager, name: str) -> logging.Logger:
    """``Manager.getLogger``; a logger of a generation's class is the newest one's that asks."""
    logs = acting(Logs)
    kind = None if logs is None else logs.logger_class
    if kind is None:
        return _get_logger(self, name)
    # The lock that it takes itself while it makes a logger, which may be taken twice.
    with _module._lock:
        before, _module._loggerClass = _module._loggerClass, kind
        try:
            logger = _get_logger(self, name)
        finally:
            _module._loggerClass = before
    if type(logger) is kind:
        _dressed.add(logger)
    elif logger in _dressed:
        logger.__class__ = kind
    return logger


def _capture_for_generation(capture: bool) -> None:
    """``logging.captureWarnings``; on as long as one generation wants it."""
    claims = acting(Claims)
    if claims is None:
        _capture_warnings(capture)
    elif capture:
        claims.share("captureWarnings", "capture of warning", _begin_capture, _end_capture)
    elif not claims.unshare("captureWarnings"):
        _capture_warnings(capture)


def _begin_capture() -> bool:
    new = _module._warnings_showwarning is None
    _capture_warnings(True)
    return new


def _end_capture() -> None:
    _capture_warnings(False)


def _wrap_config(module: ModuleType) -> None:
    """Wrap what ``dictConfig`` and ``fileConfig`` do to handlers and loggers of others."""
    config: Any = module
    clear, handle_existing = config._clearExistingHandlers, config._handle_existing_loggers

    def clear_for_generation() -> None:
        logs = acting(Logs)
        if logs is None:
            clear()
            return
        for handler in reversed(logs.handlers()):
            close(handler)

    def handle_existing_for_generation(*args: Any) -> None:
        logs = acting(Logs)
        book = None if logs is None else logs.book()
        known = {} if book is None or book.first else _loggers()
        handle_existing(*args)
        for logger, (disabled, _, _) in known.items():
            logger.disabled = disabled

    _patches.put(config, "_clearExistingHandlers", clear_for_generation)
    _patches.put(config, "_handle_existing_loggers", handle_existing_for_generation)


def install() -> None:
    """Make handlers and filters attributes of the class, which answer for each generation."""
    _patches.put(logging.Logger, "handlers", _list_per_generation("handlers"))
    _patches.put(logging.Filterer, "filters", _list_per_generation("filters"))
    _patches.put(logging.Logger, "handle", _handle_for_generation)
    _patches.put(logging.Manager, "getLogger", _get_logger_for_generation)
    _patches.put(logging, "_addHandlerRef", _add_reference_for_generation)
    _patches.put(logging, "setLoggerClass", _set_logger_class_for_generation)
    _patches.put(logging, "getLoggerClass", _get_logger_class_for_generation)
    _patches.put(logging, "captureWarnings", _capture_for_generation)
    _patches.when_loaded("logging.config", _wrap_config)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

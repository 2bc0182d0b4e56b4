"""``logging``: each generation has its own list of every logger's handlers.

It begins as what the process has set up, and whatever a generation adds, removes or clears, only
its own records are concerned; so no line is written twice, and ``basicConfig`` works in every
generation.
"""

from __future__ import annotations

import logging

from genwsgi.generations.generation import active
from genwsgi.generations.lifecycle import State
from genwsgi.isolation.effects.base import Book, Patches, Record, Run, entered, living

log = logging.getLogger("genwsgi")

_call_handlers = logging.Logger.callHandlers
_patches = Patches()


class Logs(Record):
    """The handlers of one generation, and how the loggers were set before it."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        #: For each logger the generation's list, and what was in it when it was last made.
        self.handlers: dict[
            logging.Logger, tuple[list[logging.Handler], tuple[logging.Handler, ...]]
        ] = {}
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
        self._remove_handlers()

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Close the generation's handlers."""
        self._remove_handlers()

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

    def _remove_handlers(self) -> None:
        while self.handlers:
            logger, (own, _) = self.handlers.popitem()
            shared = _process_handlers(logger)
            for handler in own:
                if handler not in shared:
                    try:
                        handler.close()
                    except Exception:
                        log.exception("%s: its log handler %r raised", self.name, handler)


def _loggers() -> dict[logging.Logger, tuple[bool, int, bool]]:
    """What the process's loggers are set to: disabled, level, propagate."""
    known = [logging.root, *logging.Logger.manager.loggerDict.copy().values()]
    return {
        logger: (logger.disabled, logger.level, logger.propagate)
        for logger in known
        if isinstance(logger, logging.Logger)
    }


def _process_handlers(logger: logging.Logger) -> list[logging.Handler]:
    handlers: list[logging.Handler] = logger.__dict__["handlers"]
    return handlers


def _handlers_for_generation(self: logging.Logger) -> list[logging.Handler]:
    logs = entered(Logs)
    return _process_handlers(self) if logs is None else logs.handlers_of(self)


def _set_handlers_for_generation(self: logging.Logger, handlers: list[logging.Handler]) -> None:
    logs = entered(Logs)
    if logs is None or "handlers" not in self.__dict__:
        self.__dict__["handlers"] = handlers
    else:
        logs.handlers[self] = handlers, ()


def _call_handlers_for_generation(self: logging.Logger, record: logging.LogRecord) -> None:
    """``Logger.callHandlers``; what nobody's code says the current generation hears."""
    if active.get() is None:
        for generation, book in living():
            if generation.state is State.CURRENT and book.of(Logs).handlers:
                generation.run(_call_handlers, self, record)
                return
    _call_handlers(self, record)


def install() -> None:
    """Make handlers an attribute of the class, which answers for each generation."""
    _patches.put(
        logging.Logger,
        "handlers",
        property(_handlers_for_generation, _set_handlers_for_generation),
    )
    _patches.put(logging.Logger, "callHandlers", _call_handlers_for_generation)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

"""``signal.signal``: the current generation's handler is the one that is called.

Off the main thread, where Python refuses it, the handler is kept for the generation and called when
the signal comes, if the process had a handler of the application's before.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

from genwsgi.generations.lifecycle import State
from genwsgi.isolation.effects.base import Book, Patches, Record, acting, living

log = logging.getLogger("genwsgi")

_signal = signal.signal
_patches = Patches()
#: What handled a signal before an application claimed it.
_claimed: dict[int, Any] = {}


class Signals(Record):
    """The handlers of one generation, by the signal's number."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.handlers: dict[int, Any] = {}

    def undo(self) -> None:
        """Forget them."""
        self.handlers.clear()


def _signal_for_generation(signalnum: Any, handler: Any) -> Any:
    """``signal.signal``; in a build off the main thread, what that build is allowed to do."""
    signals = acting(Signals)
    if signals is None:
        return _signal(signalnum, handler)
    number = int(signalnum)
    if threading.current_thread() is threading.main_thread():
        before = _signal(signalnum, dispatch)
        if before is not dispatch:
            _claimed[number] = before
    else:
        before = signal.getsignal(signalnum)
        if before is not dispatch and before is not handler:
            log.warning(
                "%s: its handler for %s takes effect when the worker is replaced: "
                "a signal can be claimed on the main thread only",
                signals.name,
                signal.Signals(number).name,
            )
    signals.handlers[number] = handler
    return _claimed.get(number, signal.SIG_DFL) if before is dispatch else before


def dispatch(number: int, frame: Any) -> None:
    """Do what the current generation wants done about a signal, else what was done before it."""
    those = living()
    chosen = [item for item in those if item[0].state is State.CURRENT] or those
    for generation, book in chosen:
        handlers = book.of(Signals).handlers
        if number in handlers:
            handler = handlers[number]
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


def install() -> None:
    """Wrap ``signal.signal``."""
    global _signal
    _signal = signal.signal
    _patches.put(signal, "signal", _signal_for_generation)


def uninstall() -> None:
    """Undo :func:`install`; on the main thread signals go to who had them before."""
    _patches.take_back()
    if threading.current_thread() is threading.main_thread():
        for number, handler in _claimed.items():
            if signal.getsignal(number) is dispatch:
                _signal(number, handler)
        _claimed.clear()

"""``signal.signal``: the current generation's handler is the one that is called.

Off the main thread, where builds run and Python refuses it, the handler is kept for the generation
and the main thread is asked to claim the signal when it runs next.

What the *server* handles it goes on to handle: after an application's handler of SIGTERM the
server's is called as well, or no worker would ever end, and nothing that the application raises
there comes in its way.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import threading
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import State
from genwsgi.isolation.effects.base import Book, Patches, Record, acting, living
from genwsgi.isolation.effects.claims import counted

log = logging.getLogger("genwsgi")

_signal = signal.signal
_getsignal = signal.getsignal
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

    def report(self) -> list[str]:
        """How many there are."""
        return counted({"signal handler": len(self.handlers)})


def _signal_for_generation(signalnum: Any, handler: Any, /) -> Any:
    """``signal.signal``; in a build off the main thread, what that build is allowed to do."""
    signals = acting(Signals)
    if signals is None:
        return _signal(signalnum, handler)
    number = int(signalnum)
    if not (callable(handler) or handler in (signal.SIG_DFL, signal.SIG_IGN)):
        return _signal(signalnum, handler)  # it says what is wrong
    before = _getsignal_for_generation(number)
    if threading.current_thread() is threading.main_thread():
        _claim(number)
    elif _getsignal(number) is not dispatch:
        _ask_main_thread(number)
    if handler is _of_the_process(number):
        signals.handlers.pop(number, None)
    else:
        signals.handlers[number] = handler
    return before


def _getsignal_for_generation(signalnum: Any, /) -> Any:
    """``signal.getsignal``: the generation's handler, else the process's; never an older one's."""
    signals = acting(Signals)
    number = int(signalnum)
    if signals is not None and number in signals.handlers:
        return signals.handlers[number]
    return _of_the_process(number)


def _of_the_process(number: int) -> Any:
    now = _getsignal(number)
    return _claimed.get(number, signal.SIG_DFL) if now is dispatch else now


def _claim(number: int) -> None:
    """Make :func:`dispatch` the handler.  On the main thread."""
    before = _signal(number, dispatch)
    if before is not dispatch:
        _claimed[number] = before


#: Prototype of what the interpreter calls on the main thread, between two instructions.
_PENDING = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


def _claim_pending(number: int | None) -> int:
    """Claim a signal, if a generation still wants it, now that this is the main thread."""
    try:
        wanted = number or 0
        if any(wanted in book.of(Signals).handlers for _, book in living()):
            _claim(wanted)
    except Exception:
        log.exception("signal %s could not be claimed", number)
    return 0


_claim_pending_in_c = _PENDING(_claim_pending)


def _ask_main_thread(number: int) -> None:
    if ctypes.pythonapi.Py_AddPendingCall(_claim_pending_in_c, ctypes.c_void_p(number)) != 0:
        log.warning(
            "%s stays as it was: too much waits for the main thread; the next deploy claims it",
            signal.Signals(number).name,
        )


def dispatch(number: int, frame: Any) -> None:
    """Do what the current generation wants done about a signal, else what was done before it."""
    those = living()
    chosen = [item for item in those if item[0].state is State.CURRENT] or those
    before = _claimed.get(number, signal.SIG_DFL)
    for generation, book in chosen:
        if number in book.of(Signals).handlers:
            _handle(generation, book.of(Signals).handlers[number], number, frame, before)
            return
    _do(before, number, frame)


def _handle(generation: Generation, handler: Any, number: int, frame: Any, before: Any) -> None:
    """Call a generation's handler, and the server's after it."""
    if not callable(before) or before is signal.default_int_handler:
        if callable(handler):
            generation.run(handler, number, frame)
        else:
            _do(handler, number, frame)
        return
    if callable(handler):
        try:
            generation.run(handler, number, frame)
        except BaseException:  # SystemExit: the server ends in its own way
            log.exception("%s: its handler of signal %d raised", generation.name, number)
    before(number, frame)


def _do(handler: Any, number: int, frame: Any) -> None:
    """Do what ``handler`` stands for."""
    if callable(handler):
        handler(number, frame)
    elif handler != signal.SIG_IGN:
        _signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def install() -> None:
    """Wrap ``signal.signal``."""
    global _signal, _getsignal
    _signal, _getsignal = signal.signal, signal.getsignal
    _patches.put(signal, "signal", _signal_for_generation)
    _patches.put(signal, "getsignal", _getsignal_for_generation)


def uninstall() -> None:
    """Undo :func:`install`; on the main thread signals go to who had them before."""
    _patches.take_back()
    if threading.current_thread() is threading.main_thread():
        for number, handler in _claimed.items():
            if _getsignal(number) is dispatch:
                _signal(number, handler)
        _claimed.clear()

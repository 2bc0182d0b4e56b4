"""Builds what is ordered in one process by itself, where there is no coordinator."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from genwsgi.deploy.protocol import OrderOutcome, Outcome
from genwsgi.triggers.amqp.builder import Request, Result
from genwsgi.triggers.amqp.settings import Settings

_STOPPED = "the application is closed"


class Deploy(Protocol):
    """Deploys in this process, and returns the outcome."""

    def __call__(
        self,
        *,
        trigger: str,
        path: str,
        modules: tuple[str, ...],
        confirm: Callable[[], str] | None,
    ) -> OrderOutcome:
        """Deploy; ``confirm`` is called when all is ready, and says why not to go live, if so."""


@dataclass
class _Turn:
    """A request and whoever is to be told of it.

    :ivar decided: set by the word to go live, or to go no further.
    :ivar off: why not to go live.
    """

    request: Request
    tell: Callable[[Result], None]
    decided: threading.Event = field(default_factory=threading.Event)
    off: str = ""


class Alone:
    """Makes one request after the other on a thread of its own.

    ``_lock`` guards which of them is under way or waits, and is held for a few operations.

    :param target: what is served.
    :param deploy: called on that thread.
    :param committed: gives the number of what is served.
    """

    def __init__(
        self,
        target: str,
        deploy: Deploy,
        committed: Callable[[], int],
        log: logging.Logger,
    ) -> None:
        self.target = target
        self.committed = committed
        self._deploy = deploy
        self._log = log
        self._turns: queue.SimpleQueue[_Turn | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[str, _Turn] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="genwsgi-orders", daemon=True)
        self._thread.start()

    def request(self, request: Request, tell: Callable[[Result], None]) -> None:
        """Take a request; see :class:`~genwsgi.triggers.amqp.obey.Builder`."""
        with self._lock:
            turn = self._open.get(request.id)
            if turn is None:
                turn = self._open[request.id] = _Turn(request, tell)
                self._turns.put(turn)
                return
        turn.tell = tell
        if not request.hold:
            turn.decided.set()

    def withdraw(self, order: str, reason: str) -> None:
        """Have a request go no further if it has not gone live yet."""
        with self._lock:
            turn = self._open.get(order)
        if turn is not None and not turn.decided.is_set():
            turn.off = reason
            turn.decided.set()

    def stop(self) -> None:
        """Make no more requests; what is held is dropped.  Any thread, any number of times."""
        with self._lock:
            self._stopped = True
            turns = list(self._open.values())
        for turn in turns:
            self.withdraw(turn.request.id, _STOPPED)
        self._turns.put(None)

    def join(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for the thread to end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while (turn := self._turns.get()) is not None and not self._stopped:
            self._make(turn)

    def _make(self, turn: _Turn) -> None:
        request = turn.request

        def confirm() -> str:
            turn.tell(Result(Outcome.PREPARED))
            if not turn.decided.wait(request.hold):
                turn.off = f"it was ready, and no word came within {request.hold:g} s"
                turn.decided.set()
            return turn.off

        result = Result(Outcome.FAILED, error=turn.off)
        try:
            if not turn.off:
                ended = self._deploy(
                    trigger=f"amqp order {request.id}",
                    path=request.path,
                    modules=request.modules,
                    confirm=confirm if request.hold else None,
                )
                result = Result(
                    ended.outcome, ended.release, ended.generation, ended.seconds, ended.reason
                )
        except Exception as error:  # noqa: BLE001 (logged)
            self._log.exception("the deploy of order %s broke down", request.id)
            result = Result(Outcome.FAILED, error=f"it broke down: {error!r}; see the log")
        with self._lock:
            self._open.pop(request.id, None)
        turn.tell(result)


class Orders:
    """The orders of a broker, for one process: a listener, and what it has built.

    :param settings: where the broker is and whom to believe.
    :param target, deploy, committed: as for :class:`Alone`.
    """

    def __init__(
        self,
        settings: Settings,
        target: str,
        deploy: Deploy,
        committed: Callable[[], int],
        log: logging.Logger,
    ) -> None:
        from genwsgi.triggers.amqp.listener import Listener  # pika, which nobody else needs

        # The process is somebody else's: what pika says is shown if its logging is set up for it.
        logging.getLogger("pika").addHandler(logging.NullHandler())
        self._alone = Alone(target, deploy, committed, log)
        self.listener = Listener(settings, self._alone, log)
        self.listener.start()

    def close(self, timeout: float) -> None:
        """Hear no more orders, and drop what is held; wait at most ``timeout`` seconds."""
        self.listener.stop()
        self._alone.stop()
        self._alone.join(timeout)
        self.listener.join(timeout)

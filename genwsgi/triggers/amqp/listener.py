"""The connection to the broker: a thread of its own that never gives up and never gets in the way.

The host has a queue of its own, which ends with its connection, bound to the exchange of orders and
to that of control messages.  A second queue, ``EXCHANGE.latest``, is one for all hosts: it is bound
to the exchange of orders alone, durable, and holds one message, the latest.  A host that connects
looks at it (takes it and puts it back), so it learns what was ordered while it was away.

Everything here belongs to the thread; other threads hand it functions through a queue.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import pika
from pika.exceptions import AMQPConnectionError, AMQPError, ChannelClosedByBroker

from genwsgi.triggers.amqp.broker import ANY, connect, declare_exchange, declare_latest, why
from genwsgi.triggers.amqp.builder import Builder
from genwsgi.triggers.amqp.memory import Memory
from genwsgi.triggers.amqp.obey import Delivery, Obedience
from genwsgi.triggers.amqp.settings import Settings

#: Between two attempts to connect, in seconds: at first, and at most.  Less by chance, so that the
#: hosts of a fleet do not come back all at once.
BACKOFF: Final = (0.1, 3.0)

#: A connection that has lasted so long, in seconds, was a good one: the pause begins anew.
LASTED: Final = 10.0

#: How long the thread waits for the broker at most before it looks at anything else, in seconds.
GLANCE: Final = 0.5

#: How many messages may be without an outcome at one time.
PREFETCH: Final = 100

#: How often the latest order is looked for while another host has it in its hands, and between.
LOOKS: Final = 20
BETWEEN_LOOKS: Final = 0.05

#: Answers that wait for the broker to come back.
OUTBOX: Final = 200


class Listener:
    """Hears orders until it is stopped.

    :param builder: builds what is ordered.
    :param memory: a file for the orders that were accepted; ``None``: they are not kept.
    :param server: what tells this server from others on the same host.
    """

    name = "amqp"

    def __init__(
        self,
        settings: Settings,
        builder: Builder,
        log: logging.Logger,
        *,
        memory: str | None = None,
        server: str | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._stopping = threading.Event()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._outbox: deque[tuple[str, str, bytes]] = deque(maxlen=OUTBOX)
        self._connection: Any = None
        self._channel: Any = None
        self._answers: Any = None
        self._mute = False
        self._keeps_latest = False
        self._since: float | None = None
        self._problem: str | None = None
        self._retry_at: float | None = None
        self._rules = Obedience(
            settings,
            builder,
            Memory(memory, log),
            log,
            host=socket.gethostname(),
            server=server or f"process {os.getpid()}",
            answer=self._answer,
            told=self._call,
        )
        self._thread = threading.Thread(target=self._run, name="genwsgi-amqp", daemon=True)

    def __repr__(self) -> str:
        state = "connected" if self._since is not None else f"not connected: {self._problem}"
        return f"<Listener {self._settings.shown}, {state}>"

    def start(self) -> None:
        """Listen.  The broker may be away.  Once, from any thread."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting.  From any thread, any number of times."""
        self._stopping.set()
        self._call(lambda: None)

    def join(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for the thread to end."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def status(self) -> dict[str, object]:
        """How the connection stands, and what was made of the messages.  From any thread."""
        now, since, retry_at = time.monotonic(), self._since, self._retry_at
        return {
            "broker": self._settings.shown,
            "exchange": self._settings.exchange,
            "connected": since is not None,
            "connected_for": None if since is None else round(now - since, 1),
            "problem": self._problem,
            "next_try_in": None if retry_at is None else max(0.0, round(retry_at - now, 1)),
            **self._rules.counts,
        }

    # The thread.

    def _run(self) -> None:
        self._rules.resume()
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                with self._connected():
                    self._listen()
            except (AMQPError, OSError) as error:
                self._note(why(error))
            except Exception as error:  # noqa: BLE001 (logged)
                self._log.exception("the listener for orders stumbled; it connects again")
                self._note(repr(error))
            if time.monotonic() - began > LASTED:
                attempt = 0
            pause = min(BACKOFF[1], BACKOFF[0] * 2**attempt) * random.uniform(0.5, 1.0)
            attempt = min(attempt + 1, 10)
            self._pause(pause)

    def _note(self, problem: str) -> None:
        """The connection is over; say so once for each reason."""
        if self._stopping.is_set():
            return
        if problem != self._problem:
            self._log.warning(
                "no orders from the broker %s: %s; trying again, serving goes on",
                self._settings.shown,
                problem,
            )
        self._problem = problem

    def _note_mute(self) -> None:
        """The broker has refused an answer; say so once."""
        if not self._mute:
            self._log.warning(
                "the broker %s refuses answers: let this user write to amq.default, or those who "
                "wait for an order's outcome hear nothing of this host",
                self._settings.shown,
            )
        self._mute = True

    def _pause(self, seconds: float) -> None:
        self._retry_at = until = time.monotonic() + seconds
        while not self._stopping.is_set():
            try:
                self._calls.get(timeout=max(0.0, until - time.monotonic()))()
            except queue.Empty:
                break
        self._retry_at = None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        connection = connect(self._settings)
        try:
            self._connection = connection
            yield
        finally:
            answers = self._answers
            self._connection = self._channel = self._answers = self._since = None
            # By itself and first: pika breaks down where the broker closes it during the other.
            if answers is not None:
                with contextlib.suppress(AMQPError, OSError):
                    answers.close()
            with contextlib.suppress(AMQPError, OSError):
                connection.close()

    def _listen(self) -> None:
        connection = self._connection
        self._declare()
        # Who may not answer hears orders all the same: a refusal costs the channel it comes by.
        self._answers = connection.channel()
        channel = self._channel = connection.channel()
        channel.basic_qos(prefetch_count=PREFETCH)
        own = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
        for exchange in (self._settings.exchange, self._settings.control):
            channel.queue_bind(own, exchange, ANY)
        channel.basic_consume(own, self._deliver)
        self._since, self._problem = time.monotonic(), None
        self._log.info(
            "orders are heard from %s, exchange %s", self._settings.shown, self._settings.exchange
        )
        # A queue that is there in another way than ours may keep any orders but the latest.
        looks = LOOKS if self._keeps_latest else 0
        while not self._stopping.is_set():
            self._run_calls()
            if not channel.is_open or not channel.consumer_tags:
                # The queue or the channel was taken away, which pika tells nobody who only waits.
                raise AMQPConnectionError("the broker has ended the subscription")
            if not self._answers.is_open:
                self._answers = connection.channel()
                self._note_mute()
            # An order that is not there may be in the hands of another host, which nobody can tell.
            looks = 0 if looks and self._look_at_latest() else max(0, looks - 1)
            self._flush()
            connection.process_data_events(time_limit=BETWEEN_LOOKS if looks else GLANCE)
            self._flush()

    def _declare(self) -> None:
        """See to it that the exchanges and the queue for latecomers are there, as they are."""
        settings = self._settings
        for exchange in (settings.exchange, settings.control):
            kind = declare_exchange(self._connection, exchange)
            if kind:
                self._log.warning(
                    "the exchange %s is not a fanout exchange, so that orders with a routing key "
                    "are not heard: delete it, or name another (%s)",
                    exchange,
                    kind,
                )
        self._keeps_latest = False
        try:
            with self._scratch() as channel:
                declare_latest(channel, settings)
            self._keeps_latest = True
        except ChannelClosedByBroker as error:
            self._log.warning("no order is kept for latecomers: %s", why(error))

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Any]:
        """A channel for what the broker may answer by closing it."""
        channel = self._connection.channel()
        try:
            yield channel
        finally:
            if channel.is_open:
                channel.close()

    def _look_at_latest(self) -> bool:
        """Take the latest order as if it came now, and leave it to the others.

        :returns: whether it is known now what there is.
        """
        try:
            with self._scratch() as channel:
                method, properties, body = channel.basic_get(self._settings.latest)
                if method is None:
                    return False
                # Before it is obeyed: other hosts find nothing as long as it is here.
                channel.basic_nack(method.delivery_tag, requeue=True)
        except ChannelClosedByBroker:
            return True  # there is no such queue
        # If it came since this host listens, it is in the host's own queue too, and goes first.
        self._connection.process_data_events(time_limit=0)
        reply_to, correlation_id = _who_asks(properties)
        self._rules.take(
            Delivery(body, reply_to=reply_to, correlation_id=correlation_id, late=True)
        )
        return True

    def _deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        tag = method.delivery_tag

        def settle(good: bool) -> None:
            # After a new connection the broker has forgotten this delivery.
            if channel is self._channel and channel.is_open:
                with contextlib.suppress(AMQPError):
                    if good:
                        channel.basic_ack(tag)
                    else:
                        channel.basic_reject(tag, requeue=False)

        self._rules.take(Delivery(body, settle, *_who_asks(properties)))

    def _answer(self, reply_to: str, correlation_id: str, answer: dict[str, Any]) -> None:
        self._outbox.append((reply_to, correlation_id, json.dumps(answer).encode()))

    def _flush(self) -> None:
        """Send the answers.  One whose queue is gone is dropped by the broker."""
        while self._outbox and self._answers.is_open:
            reply_to, correlation_id, body = self._outbox[0]
            properties = pika.BasicProperties(
                content_type="application/json", correlation_id=correlation_id or None
            )
            self._answers.basic_publish("", reply_to, body, properties)
            self._outbox.popleft()

    def _call(self, call: Callable[[], None]) -> None:
        """Have the thread call ``call`` soon.  Any thread."""
        self._calls.put(call)
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(AMQPError):
                connection.add_callback_threadsafe(self._run_calls)

    def _run_calls(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            call()
        if self._answers is not None:
            self._flush()


def _who_asks(properties: Any) -> tuple[str, str]:
    """Return the queue and the correlation id to answer with: empty for what is no text."""
    # pika leaves as bytes what is not in UTF-8, and the memory of orders is a file of text.
    reply_to, correlation_id = properties.reply_to, properties.correlation_id
    return (
        reply_to if isinstance(reply_to, str) else "",
        correlation_id if isinstance(correlation_id, str) else "",
    )

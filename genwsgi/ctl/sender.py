"""Carries out what a conductor decides, over a broker that may go away and come back."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import pika
from pika.exceptions import AMQPConnectionError, AMQPError, ChannelClosedByBroker

from genwsgi.ctl.conductor import Conductor
from genwsgi.triggers.amqp.broker import connect, declare_exchange, declare_latest, why
from genwsgi.triggers.amqp.message import Refusal, Step, load
from genwsgi.triggers.amqp.settings import Settings
from genwsgi.triggers.amqp.signing import is_signed, signed

#: How long to wait for the broker at most before anything else is looked at, in seconds.
GLANCE: Final = 0.1

#: Between two attempts to reach a broker that is away, in seconds.
RETRY: Final = 0.5


class Sender:
    """Sends the steps of one order, and hears the answers.

    :param order: what the order says, without id, time and signature.
    :param news: called whenever something may have changed.
    :param say: called with a line that is worth telling.
    """

    def __init__(
        self,
        settings: Settings,
        conductor: Conductor,
        order: Mapping[str, Any],
        *,
        news: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._conductor = conductor
        self._order = order
        self._news = news
        self._say = say
        # Named by us, so that hosts can still answer when the broker has come back.
        self._replies = f"{settings.exchange}.reply.{uuid.uuid4().hex}"
        self._connection: Any = None
        self._channel: Any = None
        self._to_send: list[Step] = []
        self._problem = ""

    def run(self, patience: float) -> None:
        """Do it all, on the calling thread.

        :param patience: for how long the broker may be away at a time, in seconds.
        """
        conductor = self._conductor
        until: float | None = None
        self._to_send += conductor.start(time.monotonic())
        while not conductor.over:
            try:
                with self._connected():
                    self._problem, until = "", None
                    self._converse()
            except (AMQPError, OSError) as error:
                until = until or time.monotonic() + patience
                self._away(why(error), until)

    def call_off(self) -> None:
        """Give up; what is prepared is dropped, if the broker can be reached.

        What is ordered stays so.
        """
        self._to_send = list(self._conductor.give_up("interrupted", time.monotonic()))
        with contextlib.suppress(AMQPError, OSError), self._connected():
            self._converse()

    def _away(self, problem: str, until: float) -> None:
        conductor, now = self._conductor, time.monotonic()
        if problem != self._problem:
            self._say(f"the broker {self._settings.shown} can't be used: {problem}; trying again")
        self._problem = problem
        # What was sent last may be lost; hosts that have it do it once.
        self._to_send = list(dict.fromkeys([*conductor.again(), *conductor.tick(now)]))
        self._news()
        if now > until:
            conductor.give_up(f"the broker can't be used: {problem}", now)
        elif not conductor.over:
            time.sleep(RETRY)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        settings = self._settings
        self._connection = connect(settings)
        try:
            for exchange in (settings.exchange, settings.control):
                declare_exchange(self._connection, exchange)
            with contextlib.suppress(ChannelClosedByBroker):
                declare_latest(self._connection.channel(), settings)
            channel = self._channel = self._connection.channel()
            channel.confirm_delivery()
            channel.queue_declare(self._replies, exclusive=True, auto_delete=True)
            channel.basic_consume(self._replies, self._hear, auto_ack=True)
            yield
        finally:
            with contextlib.suppress(AMQPError, OSError):
                self._connection.close()

    def _converse(self) -> None:
        conductor = self._conductor
        while True:
            while self._to_send:
                self._publish(self._to_send[0])
                conductor.sent(self._to_send.pop(0), time.monotonic())
            self._news()
            if conductor.over:
                return
            self._connection.process_data_events(time_limit=GLANCE)
            if not self._channel.is_open:
                raise AMQPConnectionError("the broker has closed the channel")
            self._add(conductor.tick(time.monotonic()))

    def _add(self, steps: Iterable[Step]) -> None:
        self._to_send += [step for step in steps if step not in self._to_send]

    def _publish(self, step: Step) -> None:
        settings, conductor = self._settings, self._conductor
        issued_at = int(time.time())
        if step is Step.CALL:
            fields: dict[str, Any] = {"id": conductor.order, "step": step.value}
            fields |= {name: self._order[name] for name in ("target",) if name in self._order}
        else:
            fields = {**self._order, "id": conductor.order}
        if step is Step.PREPARE:
            fields |= {"step": step.value, "hold": int(conductor.hold)}
            fields["expires"] = issued_at + int(conductor.hold)
        elif step is not Step.DEPLOY:
            fields |= {"step": step.value}
        body = json.dumps(signed({**fields, "issued_at": issued_at}, settings.keys[:1]))
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=fields["id"],
            correlation_id=conductor.order,
            reply_to=self._replies,
        )
        # Only the order itself is kept for latecomers; so if nobody gets it something is wrong.
        order = step is Step.DEPLOY
        exchange = settings.exchange if order else settings.control
        self._channel.basic_publish(exchange, "", body.encode(), properties, mandatory=order)

    def _hear(self, _channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        # Whoever may publish can write to us, so anything may come.
        keys = self._settings.keys
        with contextlib.suppress(Refusal):
            answer = load(body)
            if not keys or is_signed(answer, keys):
                self._add(self._conductor.heard(answer, time.monotonic()))

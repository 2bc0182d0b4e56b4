"""What becomes of a message: the rules between the broker and whoever builds.

One thread at a time, and no broker here: :class:`Obedience` is told what was delivered and calls
back what is to be acknowledged and answered.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from genwsgi.deploy.protocol import Outcome
from genwsgi.triggers.amqp.builder import Builder, Request, Result
from genwsgi.triggers.amqp.memory import Entry, Memory
from genwsgi.triggers.amqp.message import Message, Refusal, Step, load, read
from genwsgi.triggers.amqp.paths import check_path
from genwsgi.triggers.amqp.settings import Settings
from genwsgi.triggers.amqp.signing import check_time, is_signed, signed

#: The longest reason that is answered and remembered, in characters.
MAX_ERROR: Final = 2000

#: Answers that are no outcome of an order.
HERE: Final = "here"
UNKNOWN: Final = "unknown"
RUNNING: Final = "running"


@dataclass
class Delivery:
    """One message, and what to do when it has its outcome.

    :ivar settle: called once, with whether to acknowledge (else: to reject without requeue).
    :ivar late: it was found in the queue for latecomers.
    """

    body: bytes
    settle: Callable[[bool], None] = lambda _good: None
    reply_to: str = ""
    correlation_id: str = ""
    late: bool = False


@dataclass
class _Job:
    """A request on its way."""

    message: Message
    fields: dict[str, Any]
    deliveries: list[Delivery] = field(default_factory=list)
    replies: list[list[str]] = field(default_factory=list)
    held: bool = False
    note: str = ""


class Obedience:
    """Decides about each message, and remembers what was decided.

    :param builder: builds.
    :param answer: called with a queue, a correlation id and the answer.
    :param told: called by ``builder``'s threads with a function to be run on this one's.
    :param host, server: who we are, in answers.
    """

    def __init__(
        self,
        settings: Settings,
        builder: Builder,
        memory: Memory,
        log: logging.Logger,
        *,
        host: str,
        server: str,
        answer: Callable[[str, str, dict[str, Any]], None],
        told: Callable[[Callable[[], None]], None],
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._memory = memory
        self._log = log
        self._names = {"host": host, "server": server}
        self._answer = answer
        self._told = told
        self._jobs: dict[str, _Job] = {}
        self._said = (0, False)
        self.counts = {"accepted": 0, "refused": 0, "repeated": 0}

    def resume(self) -> None:
        """Go on with what was under way when a process before this one ended."""
        for key, entry in self._memory.under_way().items():
            try:
                message = read(entry.fields)
                if message.path:
                    self._check(message.path)
            except Refusal as refusal:
                self._memory.finish(key, {"outcome": Outcome.REFUSED, "error": refusal.reason})
                continue
            order = message.id or key
            self._jobs[order] = job = _Job(message, entry.fields, replies=entry.replies)
            self._request(order, job)

    def take(self, delivery: Delivery) -> None:
        """Obey one message, or refuse it.  It never raises for what a message says."""
        fields: dict[str, Any] = {}
        try:
            fields = load(delivery.body)
            message = self._believe(fields)
            if self._concerns(message):
                self._follow(message, fields, delivery)
            else:
                delivery.settle(True)
        except Refusal as refusal:
            self._refuse(delivery, fields, refusal)
        except Exception as error:  # noqa: BLE001 (logged) -- it must not come again and again
            self._log.exception("an order broke down before it was given")
            self._refuse(delivery, {}, Refusal(f"it broke down here: {error!r}"))

    def _check(self, path: str) -> str:
        return check_path(path, self._settings.roots, deep=self._settings.deep)

    def _believe(self, fields: dict[str, Any]) -> Message:
        """Return the message if it comes from somebody who may give orders."""
        settings = self._settings
        # Before the signature: that is made of everything, whatever it may be.
        message = read(fields)
        proven = bool(settings.keys) and "signature" in fields
        if proven and not is_signed(fields, settings.keys):
            raise Refusal("its signature is by none of the keys known here")
        if not proven and not settings.allow_unsigned:
            raise Refusal("it is not signed (--amqp-allow-unsigned would obey it)")
        if proven and not message.id and message.step is not Step.CALL:
            raise Refusal("it is signed and has no id, so that it could be sent again")
        window = settings.window if proven else math.inf
        check_time(message.issued_at, message.expires, time.time(), window)
        return message

    def _concerns(self, message: Message) -> bool:
        """Whether it is for the application that is served here."""
        wanted, own = message.target, self._builder.target
        return not wanted or wanted in (own, own.partition(":")[0])

    def _follow(self, message: Message, fields: dict[str, Any], delivery: Delivery) -> None:
        if message.step is Step.CALL:
            number = self._builder.committed()
            self._settle(delivery, message, {"outcome": HERE, "release": number})
        elif message.step is Step.ASK:
            self._settle(delivery, message, self._state(message.id))
        elif message.step is Step.ABORT:
            if message.id in self._jobs:
                self._builder.withdraw(message.id, "the sender calls it off")
            delivery.settle(True)
        else:
            self._order(message, fields, delivery)

    def _state(self, order: str) -> dict[str, Any]:
        """What there is to say about an order, to somebody who asks."""
        for key in (order, _prepared(order)):
            entry = self._memory.find(key)
            if entry is not None and entry.outcome:
                return entry.outcome
        job = self._jobs.get(order)
        if job is None:
            return {"outcome": UNKNOWN}
        outcome = Outcome.PREPARED if job.held else RUNNING
        return {"outcome": outcome, "step": job.message.step.value}

    def _order(self, message: Message, fields: dict[str, Any], delivery: Delivery) -> None:
        # Whatever is committed by now: what has been done since (a rollback) is not undone by a
        # connection that is made anew. A message that is published anew comes to the host's own
        # queue as well, which is an order each time.
        if delivery.late and not message.id and self._memory.is_known(delivery.body):
            delivery.settle(True)
            return
        order = message.id or uuid.uuid4().hex
        job = self._jobs.get(order)
        if job is not None:
            if message.step is Step.DEPLOY and job.message.step is Step.PREPARE:
                self._word(order, job, message.issued_at, delivery)
            elif job.held:
                self.counts["repeated"] += 1
                answer = {"outcome": Outcome.PREPARED, "step": Step.PREPARE.value}
                self._settle(delivery, message, answer)
            else:
                self.counts["repeated"] += 1
                self._join(job, delivery)
            return
        key = _prepared(order) if message.step is Step.PREPARE else order
        known = self._memory.find(key)
        if known is not None and known.outcome:
            self.counts["repeated"] += 1
            level = logging.DEBUG if delivery.late else logging.INFO
            ended = known.outcome["outcome"]
            self._log.log(level, "amqp order %s was seen before: %s", order, ended)
            self._settle(delivery, message, known.outcome)
            return
        if message.path:
            fields = {**fields, "physical_path": self._check(message.path)}
        job = _Job(read(fields), fields)
        if message.step is Step.DEPLOY and self._memory.find(_prepared(order)) is not None:
            job.note = "it was not held here any more, and was built again"
        if message.step is Step.PREPARE and self._memory.find(order) is not None:
            raise Refusal("it was deployed before it is to be prepared")
        replies = [[delivery.reply_to, delivery.correlation_id]] if delivery.reply_to else []
        self._memory.accept(key, Entry(message.issued_at, {}, fields, replies))
        if not message.id:
            self._memory.know(delivery.body)
        self.counts["accepted"] += 1
        self._jobs[order] = job
        self._join(job, delivery)
        self._request(order, job)

    def _word(self, order: str, job: _Job, issued_at: float | None, delivery: Delivery) -> None:
        """The order comes whose release is being prepared here, or held: that is to go live."""
        prepare = job.fields
        job.fields = {name: prepare[name] for name in prepare if name not in ("step", "hold")}
        self._memory.accept(order, Entry(issued_at, {}, job.fields, job.replies), prepared=True)
        prepared = {"outcome": Outcome.PREPARED, "step": Step.PREPARE.value}
        self._memory.finish(_prepared(order), prepared)
        job.message = read(job.fields)
        self._join(job, delivery)
        self._request(order, job)

    def _join(self, job: _Job, delivery: Delivery) -> None:
        job.deliveries.append(delivery)
        if delivery.reply_to:
            reply = [delivery.reply_to, delivery.correlation_id]
            job.replies = [*(old for old in job.replies if old != reply), reply]

    def _request(self, order: str, job: _Job) -> None:
        message = job.message
        detail = message.describe()
        request = Request(order, detail, message.path, message.modules, message.hold)
        self._builder.request(request, lambda result: self._told(lambda: self._hear(order, result)))

    def _hear(self, order: str, result: Result) -> None:
        """The builder has told how an order stands."""
        job = self._jobs.get(order)
        if job is None:
            return
        answer = {
            "step": job.message.step.value,
            "outcome": result.outcome,
            "release": result.release,
            "generation": result.generation,
            "took": round(result.took, 3),
            "error": "; ".join(part for part in (result.error, job.note) if part)[:MAX_ERROR],
        }
        job.held = result.outcome == Outcome.PREPARED
        deliveries, job.deliveries = job.deliveries, []
        if not job.held:
            del self._jobs[order]
            number = self._builder.committed()
            answer["release"] = number if result.release is None else result.release
            prepare = job.message.step is Step.PREPARE
            self._memory.finish(_prepared(order) if prepare else order, answer)
        for delivery in deliveries:
            delivery.settle(result.outcome != Outcome.REFUSED)
        for reply_to, correlation_id in job.replies:
            self._tell(reply_to, correlation_id, job.message, {**answer, "id": order})

    def _settle(self, delivery: Delivery, message: Message, answer: dict[str, Any]) -> None:
        delivery.settle(True)
        self._tell(delivery.reply_to, delivery.correlation_id, message, answer)

    def _refuse(self, delivery: Delivery, fields: dict[str, Any], refusal: Refusal) -> None:
        self.counts["refused"] += not delivery.late
        name = fields.get("id")
        if not self._was_said(delivery):
            tell = self._log.info if refusal.quiet or delivery.late else self._log.warning
            shown = f" {name}" if isinstance(name, str) and name.isprintable() else ""
            tell("amqp order%s: refused: %s", shown[:140], refusal.reason)
        delivery.settle(False)
        step = fields.get("step", Step.DEPLOY.value)
        answer = {
            "id": name if isinstance(name, str) else "",
            "step": step if step in _STEPS else "",
            "outcome": Outcome.REFUSED,
            "error": refusal.reason,
        }
        # Or else anybody could have us sign that somebody's order, whose id he names, is refused.
        keys = self._settings.keys if self._is_proven(fields) else ()
        self._tell(delivery.reply_to, delivery.correlation_id, None, answer, keys)

    def _is_proven(self, fields: dict[str, Any]) -> bool:
        try:
            return is_signed(fields, self._settings.keys)
        except Refusal:
            return False

    def _was_said(self, delivery: Delivery) -> bool:
        """Whether this refusal was logged when the message came on its other way.

        One that is the latest as a host connects comes to its own queue and is found as well.
        """
        same = hash(delivery.body)
        said = self._said == (same, not delivery.late)
        self._said = (same, delivery.late)
        return said

    def _tell(
        self,
        reply_to: str,
        correlation_id: str,
        message: Message | None,
        answer: dict[str, Any],
        keys: tuple[bytes, ...] | None = None,
    ) -> None:
        if not reply_to:
            return
        named = {"id": message.id, "step": message.step.value} if message is not None else {}
        whole = {**_BLANK, **self._names, **named, **answer, "issued_at": round(time.time(), 3)}
        keys = self._settings.keys if keys is None else keys
        try:
            self._answer(reply_to, correlation_id, signed(whole, keys[:1]))
        except Refusal:  # what was asked can't be signed: nobody of ours has asked it
            self._log.info("an answer to %s can't be signed and is not given", reply_to)


_STEPS: Final = tuple(step.value for step in Step)

_BLANK: Final[dict[str, Any]] = {
    "id": "",
    "step": "",
    "outcome": "",
    "release": None,
    "generation": None,
    "took": 0.0,
    "error": "",
}


def _prepared(order: str) -> str:
    """What the memory calls the preparation of an order."""
    return f"prepare {order}"

"""Tests of genwsgi.ctl.sender, without a broker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pika
import pytest

from genwsgi.ctl import sender as module
from genwsgi.ctl.conductor import Conductor
from genwsgi.ctl.sender import Sender
from genwsgi.triggers.amqp import settings
from genwsgi.triggers.amqp.message import Step
from genwsgi.triggers.amqp.settings import Settings


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 50_000,
        b'{"signature": "00", "took": 1e300}',
        b'{"signature": "00", "error": "\\ud800"}',
        b'{"signature": "00", "error": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"took": 1' + b"0" * 400 + b"}",
        b'{"took": true, "host": {}, "outcome": "here"}',
    ],
)
@pytest.mark.parametrize("keys", [(), (b"0123456789abcdef",)])
def test_whatever_is_written_to_the_sender_it_goes_on(body: bytes, keys: tuple[bytes, ...]):
    """Anybody who may publish can write to it, and what is no answer of a host changes nothing."""
    conductor = Conductor("order")
    conductor.start(0.0)
    sender = Sender(
        Settings("amqp://h/", keys=keys), conductor, {}, news=lambda: None, say=lambda _text: None
    )
    sender._hear(None, None, None, body)
    assert conductor.hosts == {}


def test_a_broker_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """One that takes connections and is silent on them is away like any other, in one line."""
    monkeypatch.setattr(settings, "CONNECT", 0.1)
    conductor, said = Conductor("order"), list[str]()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        Sender(Settings(url), conductor, {}, news=lambda: None, say=said.append).run(0.0)
    assert conductor.problem
    assert said == [f"the broker {url} can't be used: it has said nothing for 0.2 s; trying again"]


class Clock:
    """The module ``time`` of the sender, where time passes only when it is slept or said so."""

    now = 0.0

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds


def test_the_broker_may_be_away_for_its_time_whenever_it_is(monkeypatch: pytest.MonkeyPatch):
    """What was sent last is sent again when it is back, however long the order has taken before."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    conductor = Conductor("order", all_or_none=True, expect=1, timeout=60.0)
    sender = Sender(Settings("amqp://h/"), conductor, {}, news=lambda: None, say=lambda _text: None)
    host = {"id": "order", "host": "host", "server": "run"}
    sent: list[Step] = []
    outages = [1, 2]

    @contextmanager
    def connected() -> Iterator[None]:
        if sent and outages:
            outages.pop()
            raise pika.exceptions.AMQPConnectionError("away")
        yield

    def converse() -> None:
        sent.extend(sender._to_send)
        sender._to_send.clear()
        if conductor.phase == "calling":
            conductor.heard({**host, "outcome": "here"}, clock.now)
            clock.now += 59.0
            conductor.heard({**host, "outcome": "prepared", "step": "prepare"}, clock.now)
            clock.now += 10.0
            raise pika.exceptions.AMQPConnectionError("lost")
        conductor.heard({**host, "outcome": "committed", "step": "deploy"}, clock.now)

    monkeypatch.setattr(sender, "_connected", connected)
    monkeypatch.setattr(sender, "_converse", converse)
    sender.run(60.0)
    assert conductor.problem == ""
    assert sent == [Step.CALL, Step.DEPLOY]

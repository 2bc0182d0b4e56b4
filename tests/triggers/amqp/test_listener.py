"""Tests of genwsgi.triggers.amqp.listener, against a real broker."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pika
import pytest

from genwsgi.triggers.amqp import listener as module
from genwsgi.triggers.amqp import settings as settings_module
from genwsgi.triggers.amqp.builder import Request, Result
from genwsgi.triggers.amqp.listener import Listener
from genwsgi.triggers.amqp.settings import Settings
from tests.helpers import wait_until
from tests.rabbitmq import Broker

LOG = logging.getLogger("genwsgi")
logging.getLogger("pika").setLevel(logging.CRITICAL)

Listen = Callable[..., "Heard"]


class Heard:
    """A listener and what it heard: each order is committed at once, on another thread."""

    target = ""

    def __init__(self, settings: Settings, server: str, memory: str | None) -> None:
        self.requests: list[Request] = []
        self.listener = Listener(settings, self, LOG, memory=memory, server=server)

    def request(self, request: Request, tell: Callable[[Result], None]) -> None:
        self.requests.append(request)
        threading.Thread(target=tell, args=[Result("committed", 2, 3, 0.5)]).start()

    def withdraw(self, order: str, reason: str) -> None:
        raise AssertionError("nobody called anything off")

    def committed(self) -> int:
        return 1

    @property
    def ids(self) -> list[str]:
        """The ids of what was ordered."""
        return [request.id for request in self.requests]

    def has(self, *ids: str) -> bool:
        """Whether just these orders were given."""
        return self.ids == [*ids]

    @property
    def connected(self) -> bool:
        """Whether it hears orders now."""
        return bool(self.listener.status()["connected"])

    def end(self) -> None:
        """Hear no more, and have nothing of the broker's in hand."""
        self.listener.stop()
        self.listener.join(10)
        assert not self.listener._thread.is_alive()


@pytest.fixture
def exchange() -> str:
    """The name of an exchange of the test's own."""
    return f"test.{uuid.uuid4().hex[:8]}"


@pytest.fixture
def listen(broker: Broker, exchange: str) -> Iterator[Listen]:
    """Start listeners; they have ended when the test has."""
    started: list[Heard] = []

    def start(
        *,
        connected: bool = True,
        url: str = broker.url,
        server: str = "test",
        memory: str | None = None,
        **more: Any,
    ) -> Heard:
        heard = Heard(Settings(url, exchange, **{"allow_unsigned": True, **more}), server, memory)
        started.append(heard)
        heard.listener.start()
        if connected:
            wait_until(lambda: heard.connected, 30, "the connection")
        return heard

    yield start
    for heard in started:
        heard.listener.stop()
    for heard in started:
        heard.end()


@contextmanager
def channel(broker: Broker) -> Iterator[Any]:
    """A bare channel of somebody else's."""
    connection = broker.connect()
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


def publish(broker: Broker, exchange: str, properties: Any = None, **fields: Any) -> None:
    """Publish an order as anybody would."""
    properties = properties or pika.BasicProperties(delivery_mode=2)
    with channel(broker) as bare:
        bare.confirm_delivery()
        bare.basic_publish(exchange, "", json.dumps(fields).encode(), properties)


def test_an_order_is_heard_acknowledged_and_answered(broker: Broker, exchange: str, listen: Listen):
    """All who listen hear it, and each answers whoever asked, under the same correlation id."""
    first, second = listen(server="first"), listen(server="second")
    with channel(broker) as bare:
        replies = bare.queue_declare("", exclusive=True).method.queue
        properties = pika.BasicProperties(reply_to=replies, correlation_id="7")
        publish(broker, exchange, properties, id="a", model_path="shop")
        found: dict[str, tuple[str, str]] = {}

        def look() -> bool:
            method, replied, body = bare.basic_get(replies, auto_ack=True)
            if method is not None:
                assert replied.correlation_id == "7"
                one = json.loads(body)
                # Who finds it as the latest order too answers twice.
                found[one["server"]] = one["id"], one["outcome"]
            return len(found) == 2

        wait_until(look, what="two answers")
    assert found == dict.fromkeys(("first", "second"), ("a", "committed"))
    assert first.ids == second.ids == ["a"]
    assert first.listener.status()["accepted"] == 1


def test_an_order_is_obeyed_whose_sender_can_not_be_named(
    broker: Broker, exchange: str, listen: Listen, tmp_path: Path
):
    """One whose reply_to is no text is answered to nobody, and none after it suffers from it."""
    heard = listen(memory=str(tmp_path / "orders"))
    nobody: Any = b"\xff\xfe"
    publish(broker, exchange, pika.BasicProperties(reply_to=nobody, correlation_id=nobody), id="a")
    wait_until(lambda: "a" in heard.ids, what="the order")
    publish(broker, exchange, id="b")
    wait_until(lambda: "b" in heard.ids, what="the order after")
    assert heard.listener.status()["refused"] == 0


def test_who_may_not_answer_hears_orders_all_the_same(
    broker: Broker, exchange: str, listen: Listen, caplog: pytest.LogCaptureFixture
):
    """A broker that refuses answers costs no subscription, and what it lacks is said once."""
    name = exchange.replace(".", "-")
    broker.control("add_user", name, "secret")
    try:
        broker.control("set_permissions", name, *[r"^(test|amq\.gen).*"] * 2, ".*")
        heard = listen(url=broker.url.replace("guest:guest", f"{name}:secret"))
        asks = pika.BasicProperties(reply_to="nobody")
        publish(broker, exchange, asks, id="a")
        wait_until(lambda: "refuses answers" in caplog.text, what="the refusal")
        publish(broker, exchange, asks, id="b")
        wait_until(partial(heard.has, "a", "b"), what="the order after")
        heard.end()
    finally:
        broker.control("delete_user", name)
    assert caplog.text.count("write to amq.default") == 1
    assert "no orders from the broker" not in caplog.text


def test_what_is_refused_does_not_come_again(
    broker: Broker, exchange: str, listen: Listen, caplog: pytest.LogCaptureFixture
):
    """A message that is none is rejected for good, said once, and the next one is heard."""
    listen().end()
    publish(broker, exchange, id="first")
    # Who has found the latest order looks for none any more, and finds no message twice.
    heard = listen()
    wait_until(partial(heard.has, "first"), what="the first order")
    with channel(broker) as bare:
        bare.basic_publish(exchange, "", b"\x00 no order")
        bare.basic_publish(exchange, "", b"{}" + b" " * 70_000)
    publish(broker, exchange, id="a")
    wait_until(partial(heard.has, "first", "a"), what="the order after them")
    refusals = [record for record in caplog.records if "refused" in record.getMessage()]
    assert len(refusals) == 2
    assert heard.listener.status()["refused"] == 2


def test_the_latest_order_is_kept_for_latecomers(broker: Broker, exchange: str, listen: Listen):
    """Whoever comes later finds the latest order and no older one, and leaves it to the others."""
    listen().end()
    for order in "ab":
        publish(broker, exchange, id=order)
    late = [listen(connected=False) for _ in range(4)]
    for heard in late:
        wait_until(partial(heard.has, "b"), what="the latest order")
    publish(broker, exchange, id="c")
    for heard in late:
        wait_until(partial(heard.has, "b", "c"), what="the next order")
    again = listen()
    wait_until(lambda: again.ids == ["c"], what="the latest order")


def test_the_latest_order_survives_that_a_newer_one_comes_while_it_is_looked_at(
    broker: Broker, exchange: str, listen: Listen
):
    """What is put back is older then, and is what is dropped."""
    listen().end()
    publish(broker, exchange, id="old")
    with channel(broker) as bare:
        method, _, _ = bare.basic_get(f"{exchange}.latest")
        publish(broker, exchange, id="new")
        bare.basic_nack(method.delivery_tag, requeue=True)
    late = listen()
    wait_until(lambda: late.ids == ["new"], what="the newer order")


def test_the_broker_may_be_away_at_the_start(exchange: str, listen: Listen):
    """Nothing is raised; the status says why it is not connected, and when it tries again."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets it
        port = held.getsockname()[1]
        heard = listen(connected=False, url=f"amqp://guest:secret@127.0.0.1:{port}/")
        wait_until(lambda: heard.listener.status()["problem"], what="the problem")
    status = heard.listener.status()
    assert status["connected"] is False
    assert "Connection refused" in str(status["problem"])
    assert "secret" not in str(status) + repr(heard.listener)


def test_who_may_not_connect_is_told_so_without_the_password(
    broker: Broker, listen: Listen, caplog: pytest.LogCaptureFixture
):
    """A wrong password is said once, and never shown."""
    url = broker.url.replace("guest:guest", "guest:secret")
    heard = listen(connected=False, url=url)
    wait_until(lambda: heard.listener.status()["next_try_in"] is not None, what="a second try")
    wait_until(lambda: "no orders from the broker" in caplog.text, what="the log")
    assert "secret" not in caplog.text
    assert "ACCESS_REFUSED" in str(heard.listener.status()["problem"])


def test_a_broker_that_dies_is_found_again(broker: Broker, exchange: str, listen: Listen):
    """Killed and started again it has the latest order, which is applied within seconds."""
    heard = listen()
    publish(broker, exchange, id="a")
    wait_until(lambda: heard.ids == ["a"], what="the order before")
    broker.kill()
    wait_until(lambda: not heard.connected, what="the loss")
    broker.start()
    publish(broker, exchange, id="b")
    wait_until(lambda: heard.ids == ["a", "b"], 30, "the order after")
    late = listen()
    wait_until(lambda: late.ids == ["b"], what="the latest order")


def test_a_broker_that_stops_answering_is_given_up_and_found_again(
    broker: Broker, exchange: str, listen: Listen, monkeypatch: pytest.MonkeyPatch
):
    """Suspended, with its connections open, it is noticed by its silence, and used again later."""
    monkeypatch.setattr(settings_module, "HEARTBEAT", 2)
    heard = listen()
    broker.suspend()
    try:
        wait_until(lambda: heard.listener.status()["problem"], 30, "the silence to be noticed")
        assert not heard.connected
    finally:
        broker.resume()
    wait_until(lambda: heard.connected, 30, "the connection")
    publish(broker, exchange, id="a")
    wait_until(lambda: "a" in heard.ids, what="the order after")


def test_a_broker_that_says_nothing_from_the_start_is_told_in_a_line(
    listen: Listen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """One that takes connections and is silent on them is away like any other."""
    monkeypatch.setattr(settings_module, "CONNECT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        heard = listen(connected=False, url=f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        wait_until(lambda: "no orders from the broker" in caplog.text, what="the silence")
        heard.end()
    assert "it has said nothing for 0.2 s; trying again" in caplog.text
    assert "stumbled" not in caplog.text


def test_a_channel_that_the_broker_closes_is_opened_again(
    broker: Broker, exchange: str, listen: Listen, caplog: pytest.LogCaptureFixture
):
    """A listener whose subscription has ended subscribes again by itself."""
    heard = listen()
    own = heard.listener

    def offend() -> None:
        own._channel.basic_ack(999_999)

    own._call(offend)
    # The status tells of it only until there is another connection.
    wait_until(lambda: "no orders from the broker" in caplog.text, what="the loss")
    wait_until(lambda: heard.connected, 30, "the connection")
    publish(broker, exchange, id="a")
    wait_until(lambda: "a" in heard.ids, what="the order after")


def test_an_exchange_is_taken_as_it_is(broker: Broker, exchange: str, listen: Listen):
    """One that is there in another way than ours would be is used, and so is the rest."""
    with channel(broker) as bare:
        bare.exchange_declare(exchange, "fanout", durable=False)
        bare.queue_declare(f"{exchange}.latest", durable=True)
    heard = listen()
    publish(broker, exchange, id="a")
    wait_until(lambda: heard.ids == ["a"], what="the order")


@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_an_exchange_of_another_type_is_told(
    broker: Broker, exchange: str, listen: Listen, kind: str, caplog: pytest.LogCaptureFixture
):
    """Orders as they are published, without a routing key, are heard all the same."""
    with channel(broker) as bare:
        bare.exchange_declare(exchange, kind)
    heard = listen()
    assert f"{exchange} is not a fanout exchange" in caplog.text
    publish(broker, exchange, id="a")
    wait_until(partial(heard.has, "a"), what="the order")


def test_no_order_is_taken_for_the_latest_that_may_not_be(
    broker: Broker, exchange: str, listen: Listen, caplog: pytest.LogCaptureFixture
):
    """A queue of that name that keeps every order would give the oldest: it is left alone."""
    with channel(broker) as bare:
        bare.exchange_declare(exchange, "fanout", durable=True)
        bare.queue_declare(f"{exchange}.latest", durable=True)
        bare.queue_bind(f"{exchange}.latest", exchange)
    for name in ("old", "older", "latest"):
        publish(broker, exchange, id=name)
    heard = listen()
    assert "no order is kept for latecomers" in caplog.text
    publish(broker, exchange, id="new")
    wait_until(lambda: "new" in heard.ids, what="the order")
    assert heard.ids == ["new"]


def test_the_latest_order_is_kept_in_a_classic_queue(
    broker: Broker, exchange: str, listen: Listen, caplog: pytest.LogCaptureFixture
):
    """Also where the virtual host's queues are others; one of another type is told, and let be."""
    broker.control("add_vhost", exchange, "--default-queue-type", "quorum")
    broker.control("set_permissions", "-p", exchange, "guest", ".*", ".*", ".*")
    listen(url=broker.url + exchange)
    assert "no order is kept for latecomers" not in caplog.text
    parameters = pika.URLParameters(broker.url + exchange)
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        arguments = {"x-max-length": 1, "x-overflow": "drop-head", "x-queue-type": "quorum"}
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="type"):
            connection.channel().queue_declare(
                f"{exchange}.latest", durable=True, arguments=arguments
            )
        bare = connection.channel()
        bare.queue_delete(f"{exchange}.latest")
        bare.queue_declare(f"{exchange}.latest", durable=True, arguments=arguments)
    listen(url=broker.url + exchange)
    assert "no order is kept for latecomers" in caplog.text


def test_a_queue_whose_type_was_left_to_the_broker_is_taken(
    broker: Broker, exchange: str, listen: Listen, caplog: pytest.LogCaptureFixture
):
    """It is a classic one, as ours would be."""
    with channel(broker) as bare:
        arguments = {"x-max-length": 1, "x-overflow": "drop-head"}
        bare.queue_declare(f"{exchange}.latest", durable=True, arguments=arguments)
    listen()
    assert "no order is kept for latecomers" not in caplog.text


def test_orders_come_within_tls(broker: Broker, exchange: str, listen: Listen):
    """amqps, with the broker's certificate and our own checked; without one of ours, no orders."""
    heard = listen(**broker.tls)
    publish(broker, exchange, id="a")
    wait_until(lambda: heard.ids == ["a"], what="the order")
    stranger = listen(connected=False, url=broker.tls["url"])
    wait_until(lambda: stranger.listener.status()["problem"], what="the refusal")
    assert "certificate verify failed" in str(stranger.listener.status()["problem"])


def test_answers_wait_for_the_broker(broker: Broker, exchange: str, listen: Listen):
    """An outcome that is known while the broker is away is answered when it is back."""
    with channel(broker) as bare:
        bare.queue_declare(f"{exchange}.replies", durable=True)
    heard = listen()
    heard.listener._call(lambda: heard.listener._answer(f"{exchange}.replies", "", {"id": "a"}))
    with channel(broker) as bare:
        wait_until(lambda: bare.basic_get(f"{exchange}.replies", True)[0], what="the answer")
        bare.queue_delete(f"{exchange}.replies")


def test_a_rule_that_breaks_down_is_logged_and_hearing_goes_on(
    broker: Broker,
    exchange: str,
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """A mistake of ours costs a connection, and not the orders that come later."""
    monkeypatch.setattr(module, "BACKOFF", (0.01, 0.01))
    heard = listen()
    with monkeypatch.context() as patch:
        patch.setattr(heard.listener._rules, "take", lambda _delivery: 1 / 0)
        publish(broker, exchange, id="a")
        wait_until(lambda: "stumbled" in caplog.text, what="the log")
    wait_until(lambda: "a" in heard.ids, what="the order, which is still the latest")


def test_a_broker_that_blocks_publishers_costs_answers_only(
    broker: Broker,
    exchange: str,
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Short of memory it takes no answers; when it has room again, orders come and are answered."""
    monkeypatch.setattr(settings_module, "BLOCKED", 1.0)
    heard = listen()
    broker.control("set_vm_memory_high_watermark", "absolute", "1")
    try:
        # The broker holds a connection up as soon as something is published on it.
        heard.listener._call(lambda: heard.listener._answer("nobody", "", {"id": "a"}))
        # The status tells of it only until there is another connection.
        wait_until(lambda: "no orders from" in caplog.text, 30, "the blocked connection")
    finally:
        broker.control("set_vm_memory_high_watermark", "0.6")
    wait_until(lambda: heard.connected, 30, "the connection")
    publish(broker, exchange, id="b")
    wait_until(lambda: "b" in heard.ids, 30, "the order after")

"""Tests of genwsgi.triggers.amqp.alone, and of an application in one process that hears orders."""

from __future__ import annotations

import json
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi import GenerationalApp
from genwsgi.deploy.protocol import OrderOutcome
from genwsgi.errors import OptionError
from genwsgi.triggers.amqp.alone import Alone
from genwsgi.triggers.amqp.builder import Request, Result
from tests.helpers import wait_until
from tests.rabbitmq import Broker
from tests.triggers.amqp.test_listener import channel

LOG = logging.getLogger("genwsgi")

APPLICATION = """\
V = "{version}"


def application(environ, start_response):
    start_response("200 OK", [])
    return [V.encode()]
"""


class Process:
    """A process whose deploys end as the test says.

    :ivar told: what requests were told, with their ids.
    """

    def __init__(self) -> None:
        self.deploys: list[dict[str, Any]] = []
        self.told: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self.go = threading.Event()
        self.go.set()
        self.alone = Alone("shop", self.deploy, lambda: 1, LOG)

    def deploy(self, *, confirm: Callable[[], str] | None = None, **asked: Any) -> OrderOutcome:
        self.deploys.append(asked)
        assert self.go.wait(10)
        if asked["modules"] == ("broken",):
            raise ValueError("broken down")
        off = confirm() if confirm is not None else ""
        return OrderOutcome("x", "failed" if off else "committed", 2, off, "", 0.1, 3)

    def request(self, order: str, **more: Any) -> None:
        """Request ``order``."""

        def tell(result: Result) -> None:
            self.told.put((order, result.outcome, result.error))

        self.alone.request(Request(order, "", **more), tell)

    def next(self) -> tuple[str, str, str]:
        """What is told next."""
        return self.told.get(timeout=10)


@pytest.fixture
def process() -> Iterator[Process]:
    """A process that has ended when the test has."""
    made = Process()
    yield made
    made.go.set()
    made.alone.stop()
    made.alone.join(10)


def test_one_request_after_the_other_is_made(process: Process):
    """Each is told how it ended, one that breaks down too."""
    process.request("a", path="/one", modules=("shop",))
    process.request("b", modules=("broken",))
    process.request("c")
    assert process.next() == ("a", "committed", "")
    order, outcome, error = process.next()
    assert (order, outcome) == ("b", "failed")
    assert "broken down" in error
    assert process.next() == ("c", "committed", "")
    assert process.deploys[0] == {
        "trigger": "amqp order a",
        "path": "/one",
        "modules": ("shop",),
    }


def test_a_held_one_waits_for_the_word(process: Process):
    """Prepared is told; requested again without a hold, it goes live."""
    process.request("a", hold=60.0)
    assert process.next() == ("a", "prepared", "")
    process.request("a", hold=60.0)
    process.request("a")
    assert process.next() == ("a", "committed", "")
    assert len(process.deploys) == 1


def test_a_held_one_is_dropped_when_its_time_is_up(process: Process):
    """No word within the time is a failure that says so."""
    process.request("a", hold=0.01)
    assert process.next() == ("a", "prepared", "")
    assert process.next() == ("a", "failed", "it was ready, and no word came within 0.01 s")


def test_one_can_be_called_off_held_or_waiting(process: Process):
    """What is called off goes no further, and says why."""
    process.request("a", hold=60.0)
    assert process.next()[1] == "prepared"
    process.request("b")
    process.alone.withdraw("b", "not this one")
    process.alone.withdraw("a", "the sender calls it off")
    process.alone.withdraw("c", "never heard of")
    assert process.next() == ("a", "failed", "the sender calls it off")
    assert process.next() == ("b", "failed", "not this one")
    assert len(process.deploys) == 1


def test_the_end_drops_what_is_held(process: Process):
    """Nobody waits for the word when the process ends."""
    process.request("a", hold=60.0)
    assert process.next()[1] == "prepared"
    process.alone.stop()
    assert process.next() == ("a", "failed", "the application is closed")


def test_an_application_in_one_process_takes_orders(
    tmp_path: Path, broker: Broker, caplog: pytest.LogCaptureFixture
):
    """It imports from the folder that an order names, from then on, and drops the generation that
    it held when it is closed.
    """
    caplog.set_level(logging.INFO, "genwsgi")
    tmp_path.chmod(0o755)
    exchange = f"test.{uuid.uuid4().hex[:8]}"
    for version in ("old", "new", "newer"):
        (tmp_path / version).mkdir(mode=0o755)
        (tmp_path / version / "alone_app.py").write_text(APPLICATION.format(version=version))
    options = {
        "amqp": broker.url,
        "amqp_exchange": exchange,
        "amqp_allow_unsigned": True,
        "release_root": [str(tmp_path)],
    }
    app = GenerationalApp("alone_app", path=[str(tmp_path / "old")], watch=True, amqp=options)

    def body() -> str:
        return b"".join(app({"REQUEST_METHOD": "GET"}, lambda *_: lambda _data: None)).decode()

    def publish(version: str, **more: Any) -> None:
        order = {"physical_path": str(tmp_path / version), "is_append_path": True, **more}
        with channel(broker) as bare:
            bare.basic_publish(exchange, "", json.dumps(order).encode())

    with app:
        orders = app._orders
        assert orders is not None
        wait_until(lambda: orders.listener.status()["connected"], 30, "the connection")
        assert body() == "old"
        publish("new", model_path="alone_app")
        wait_until(lambda: body() == "new", what="the new code")
        assert app.deploy().outcome == "unchanged"
        publish("newer", model_path="none_such")
        wait_until(lambda: "refused, no module none_such" in caplog.text, what="the refusal")
        (tmp_path / "new" / "alone_app.py").write_text(APPLICATION.format(version="edited"))
        wait_until(lambda: body() == "edited", what="an edit in the folder of the order")
        publish("newer", id="a", step="prepare", hold=60)
        jobs = orders.listener._rules._jobs
        wait_until(lambda: "a" in jobs and jobs["a"].held, what="the release to be held")
    assert app.deploy().outcome == "refused"


def test_options_that_can_not_be_are_refused(tmp_path: Path):
    """As they are on the command line."""
    with pytest.raises(OptionError, match="nobody's order could be believed"):
        GenerationalApp("alone_app", path=[str(tmp_path)], amqp={"amqp": "amqp://h/"})


def test_a_deploy_of_a_module_that_is_not_there_is_refused(tmp_path: Path):
    """Nothing is built when what has to be in the scope is not."""
    (tmp_path / "alone_app.py").write_text(APPLICATION.format(version="old"))
    with GenerationalApp("alone_app", path=[str(tmp_path)]) as app:
        outcome = app.deploy(modules=["alone_app", "none"])
        assert outcome.outcome == "refused"
        assert "no module none" in outcome.reason

"""Tests of genwsgi.ctl.notify, against a real broker and hosts that are played."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.ctl.__main__ import main
from genwsgi.triggers.amqp.builder import Request, Result
from genwsgi.triggers.amqp.listener import Listener
from genwsgi.triggers.amqp.settings import Settings
from tests.helpers import unmeasured, wait_until
from tests.rabbitmq import Broker, free_ports
from tests.triggers.amqp.test_listener import LOG, channel

KEY = b"0123456789abcdef"


class Player:
    """A host that listens and ends each request as the test wants it.

    :ivar live: what has gone live, by its id.
    """

    target = "shop"

    def __init__(self, settings: Settings, name: str) -> None:
        self.end = "committed"
        self.live: list[str] = []
        self.requests: list[Request] = []
        self.withdrawn: list[str] = []
        self._tell: dict[str, Callable[[Result], None]] = {}
        self.listener = Listener(settings, self, LOG, server=name)

    def request(self, request: Request, tell: Callable[[Result], None]) -> None:
        self.requests.append(request)
        self._tell[request.id] = tell
        outcome = "prepared" if request.hold and self.end == "committed" else self.end
        if outcome == "committed":
            self.live.append(request.id)
        if outcome:
            self._later(request.id, Result(outcome, 2, 3, 0.01, ""))

    def withdraw(self, order: str, reason: str) -> None:
        self.withdrawn.append(order)
        self._later(order, Result("failed", 2, 3, 0.01, reason))

    def _later(self, order: str, result: Result) -> None:
        threading.Thread(target=self._tell[order], args=[result]).start()

    def committed(self) -> int:
        return 1


@pytest.fixture
def exchange() -> str:
    """The name of an exchange of the test's own."""
    return f"test.{uuid.uuid4().hex[:8]}"


@pytest.fixture
def fleet(broker: Broker, exchange: str) -> Iterator[list[Player]]:
    """Three hosts that obey signed orders."""
    settings = Settings(broker.url, exchange, keys=(KEY,))
    players = [Player(settings, f"server{number}") for number in range(3)]
    for player in players:
        player.listener.start()
    for player in players:
        wait_until(lambda p=player: p.listener.status()["connected"], 30)  # type: ignore[misc]
    yield players
    for player in players:
        player.listener.stop()
    for player in players:
        player.listener.join(10)


@pytest.fixture
def notify(
    broker: Broker, exchange: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run ``genwsgictl notify`` with the key; return its status and all that it wrote."""
    key_file = tmp_path / "key"
    key_file.write_bytes(KEY)
    key_file.chmod(0o600)

    def run(*arguments: str, url: str = broker.url) -> tuple[int, str]:
        words = ["notify", "--amqp", url, "--amqp-exchange", exchange]
        status = main([*words, "--key-file", str(key_file), *arguments])
        return status, "".join(capsys.readouterr())

    return run


Notify = Callable[..., tuple[int, str]]


def test_an_order_is_published_and_kept_even_if_nobody_listens(
    broker: Broker, exchange: str, notify: Notify
):
    """Without --wait the broker's word is enough; the order lies there for latecomers, signed."""
    status, text = notify("--module", "shop.cart", "--release", "v7")
    assert status == 0
    assert "taken by the broker" in text
    with channel(broker) as bare:
        _, properties, body = bare.basic_get(f"{exchange}.latest", auto_ack=True)
    order = json.loads(body)
    assert properties.delivery_mode == 2
    assert (order["model_path"], order["release"]) == ("shop.cart", "v7")
    assert order["is_append_path"] is False
    assert len(order["signature"]) == 64


def test_waiting_shows_every_host_and_ends_well_if_all_did(fleet: list[Player], notify: Notify):
    """Each host is shown with its outcome, and the status is 0."""
    status, text = notify("--wait", "--expect", "3", "--module", "a", "--module", "b")
    assert status == 0, text
    assert text.count("committed  release 2  generation 3  0.010 s") == 3
    assert {request.modules for one in fleet for request in one.requests} == {("a", "b")}


def test_one_host_that_fails_is_a_status_of_1(fleet: list[Player], notify: Notify):
    """The others have gone live, and the host that has not is named."""
    fleet[1].end = "failed"
    status, text = notify("--wait", "--expect", "3")
    assert status == 1
    assert "server1  failed" in text
    assert "1 of 3 have not taken it" in text


def test_programs_get_an_object(fleet: list[Player], notify: Notify):
    """With every host, and what is wrong."""
    fleet[1].end = "failed"
    status, text = notify("--wait", "--expect", "3", "--json")
    told, problem = text.splitlines()
    hosts = json.loads(told)["hosts"]
    assert status == 1
    assert sorted(host["state"] for host in hosts) == ["committed", "committed", "failed"]
    assert json.loads(told)["problem"] in problem


def test_all_go_live_together(fleet: list[Player], notify: Notify):
    """Every host is prepared first, and then goes live with what it holds."""
    status, text = notify("--all-or-none", "--expect", "3")
    assert status == 0, text
    for one in fleet:
        prepare, go = one.requests
        assert (prepare.id, prepare.hold > 60, go.hold) == (go.id, True, 0.0)
        assert one.live == [go.id]


def test_or_none_does(fleet: list[Player], notify: Notify):
    """One host that can't be prepared keeps all from going live; the others drop what they hold."""
    fleet[2].end = "failed"
    status, text = notify("--all-or-none", "--expect", "3")
    assert status == 1
    assert "none has changed" in text
    assert [one.live for one in fleet] == [[], [], []]
    wait_until(lambda: all(one.withdrawn for one in fleet[:2]), what="the others to drop it")


def test_a_host_that_never_answers_keeps_all_from_going_live(fleet: list[Player], notify: Notify):
    """It is named, within the time given."""
    fleet[0].end = ""
    status, text = notify("--all-or-none", "--expect", "3", "--timeout", "2.5")
    assert status == 1
    assert "not all were ready within 2.5 s" in text
    assert re.search(r"server0  \w+  .*no answer$", text, re.MULTILINE)
    assert [one.live for one in fleet] == [[], [], []]


def test_fewer_hosts_than_expected_are_ordered_nothing(fleet: list[Player], notify: Notify):
    """Said how many there are, nothing is ordered without all of them."""
    status, text = notify("--wait", "--expect", "4", "--timeout", "4")
    assert status == 1
    assert "nothing was ordered, for 3 of 4 hosts answered the roll call" in text
    assert [one.requests for one in fleet] == [[], [], []]


def test_another_application_s_hosts_are_not_counted(fleet: list[Player], notify: Notify):
    """Hosts that serve another target neither obey nor answer."""
    status, text = notify("--wait", "--target", "blog")
    assert status == 1
    assert "nobody answered the roll call" in text
    assert notify("--wait", "--expect", "3", "--target", "shop")[0] == 0


def test_answers_that_nobody_has_signed_are_not_believed(
    broker: Broker, exchange: str, notify: Notify
):
    """A host without the key is none of the fleet."""
    stranger = Player(Settings(broker.url, exchange, allow_unsigned=True), "stranger")
    stranger.listener.start()
    try:
        wait_until(lambda: stranger.listener.status()["connected"], 30)
        assert "nobody answered the roll call" in notify("--wait")[1]
    finally:
        stranger.listener.stop()
        stranger.listener.join(10)


def test_a_broker_that_dies_in_between_is_waited_for(
    broker: Broker, fleet: list[Player], notify: Notify
):
    """Killed while all prepare and started again: the order goes on, and all go live."""
    for one in fleet:
        one.end = ""

    def interrupt() -> None:
        wait_until(lambda: all(one.requests for one in fleet), 30, "all to prepare")
        broker.kill()
        for one in fleet:
            one.end = "committed"
            one._later(one.requests[0].id, Result("prepared", 2))
        broker.start()

    helper = threading.Thread(target=interrupt)
    helper.start()
    status, text = notify("--all-or-none", "--expect", "3", "--timeout", "100")
    helper.join()
    assert status == 0, text
    assert "can't be used" in text
    assert all(len(one.live) == 1 for one in fleet)


@pytest.mark.parametrize("more", [[], ["--wait"], ["--wait", "--expect=3"]])
def test_a_broker_that_is_not_there_is_given_up_after_the_time(notify: Notify, more: list[str]):
    """It says so, without the password, and ends; hosts that can't be asked are not missed."""
    (port,) = free_ports(1)
    status, text = notify("--timeout", "1", *more, url=f"amqp://guest:secret@127.0.0.1:{port}/")
    assert status == 1
    assert "roll call" not in text
    assert "Connection refused" in text
    assert "secret" not in text


def test_interrupted_it_calls_off_what_is_prepared(
    broker: Broker, exchange: str, fleet: list[Player], tmp_path: Path, notify: Notify
):
    """Ctrl-C while hosts prepare drops it everywhere."""
    fleet[0].end = ""
    command = [sys.executable, "-m", "genwsgi.ctl", "notify", "--all-or-none", "--expect=3"]
    command += [f"--amqp={broker.url}", f"--amqp-exchange={exchange}"]
    command.append(f"--key-file={tmp_path}/key")
    process = subprocess.Popen(command, text=True, env=unmeasured())
    wait_until(lambda: all(one.requests for one in fleet), 30, "all to prepare")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 1
    wait_until(lambda: all(one.withdrawn for one in fleet), what="all to drop it")


def test_interrupted_what_is_ordered_goes_on(
    broker: Broker, exchange: str, fleet: list[Player], tmp_path: Path, notify: Notify
):
    """Ctrl-C while hosts go live ends the waiting only, and says so."""
    fleet[0].end = ""
    command = [sys.executable, "-m", "genwsgi.ctl", "notify", "--wait", "--expect=3"]
    command += [f"--amqp={broker.url}", f"--amqp-exchange={exchange}"]
    process = subprocess.Popen(
        [*command, f"--key-file={tmp_path}/key"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=unmeasured(),
    )
    assert process.stdout is not None
    shown = iter(process.stdout.readline, "")
    assert any("committed" in line for line in shown), "the order is out"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; the waiting has ended, and the order goes on" in error
    assert not any(one.withdrawn for one in fleet)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["notify"], "which broker?"),
        (["notify", "--amqp", "http://h/"], "no URL of a broker"),
        (["notify", "--amqp", "amqp://h/", "--expect", "3"], "add --wait"),
        (["notify", "--amqp", "amqp://h/", "--module", "a/b.py"], "no host would obey"),
        (["notify", "--amqp", "amqp://h/", "--key-file", "/nowhere"], "can't be read"),
    ],
)
def test_what_can_not_be_ordered_is_said_in_one_line(
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """A mistake on the command line ends with one line and the status 2."""
    monkeypatch.delenv("GENWSGI_AMQP", raising=False)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


@pytest.mark.parametrize("words", [["--expect", "0"], ["--timeout", "0"], ["--timeout", "nan"]])
def test_numbers_that_can_not_be_are_refused(words: list[str], capsys: Any):
    """By the parser, with the status that it has for that."""
    with pytest.raises(SystemExit) as end:
        main(["notify", "--amqp", "amqp://h/", *words])
    assert end.value.code == 2

"""Tests of genwsgi.server.systemd, on real sockets and pipes."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.deploy.standing import Word
from genwsgi.server.systemd import Announcer, Ear, mouth, take
from tests.helpers import wait_until

IDLE = Word("", "release 1")


class Systemd:
    """What listens as systemd does, at a path or under an abstract name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[dict[str, str]]:
        """The messages since the last call."""
        messages: list[dict[str, str]] = []
        while True:
            try:
                data = self.socket.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in data.split("\n")))


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """A systemd that listens."""
    name = f"@genwsgi-test-{os.getpid()}"
    systemd = Systemd(name if request.param == "abstract" else str(tmp_path / "notify"))
    yield systemd
    systemd.socket.close()


@pytest.fixture
def announcer(systemd: Systemd) -> Announcer:
    """What tells ``systemd``."""
    announcer = take({"NOTIFY_SOCKET": systemd.address})
    assert announcer is not None
    return announcer


def test_ready_when_all_serve_and_not_before(systemd, announcer):
    """READY=1 is said once, when as many workers serve as are to."""
    announcer.look(0, 2)
    announcer.look(1, 2)
    assert systemd.heard() == []
    announcer.look(2, 2)
    announcer.look(1, 2)
    announcer.look(2, 2)
    assert systemd.heard() == [{"READY": "1", "STATUS": "2 of 2 workers serve"}]


def test_a_deploy_is_a_reload(systemd, announcer):
    """A deploy begins with RELOADING=1 and the monotonic time, and ends with READY=1."""
    announcer.look(1, 1)
    systemd.heard()
    before = time.monotonic_ns() // 1000
    announcer.hear(Word("o1", "deploying"))
    announcer.hear(Word("o1", "still deploying"))
    announcer.hear(Word("", "done"))
    begun, going, ended = systemd.heard()
    assert before <= int(begun.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert begun == {"RELOADING": "1", "STATUS": "deploying"}
    assert going == {"STATUS": "still deploying"}
    assert ended == {"READY": "1", "STATUS": "done"}


def test_a_deploy_right_after_another_is_a_reload_of_its_own(systemd, announcer):
    """Whoever waits for the reload that he has ordered sees it begin, and end."""
    announcer.look(1, 1)
    systemd.heard()
    for word in (Word("o1", ""), Word("o2", ""), Word("", "")):
        announcer.hear(word)
    kinds = [next(iter(message)) for message in systemd.heard()]
    assert kinds == ["RELOADING", "RELOADING", "READY"]


def test_nothing_is_reloading_before_it_is_ready(systemd, announcer):
    """During the start only the text is told, and READY=1 comes with the last of it."""
    announcer.begin()
    announcer.hear(Word("o1", "deploying"))
    announcer.hear(IDLE)
    announcer.look(1, 1)
    assert systemd.heard() == [
        {"STATUS": "building the application, to find what belongs in its scope"},
        {"STATUS": "deploying"},
        {"STATUS": "release 1"},
        {"READY": "1", "STATUS": "release 1"},
    ]


def test_the_end_is_told(systemd, announcer):
    """STOPPING=1 is said when the server stops."""
    announcer.stop()
    assert [message["STOPPING"] for message in systemd.heard()] == ["1"]


def test_the_watchdog_hears_twice_in_its_time(systemd, monkeypatch):
    """WATCHDOG=1 comes at once, and then not before half the watchdog's time has passed."""
    announcer = take({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "60000000"})
    assert announcer is not None
    heard = []
    for now in (1000.0, 1000.0, 1029.9, 1030.0, 1059.9, 1060.1):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        announcer.look(0, 1)
        heard.append(systemd.heard())
    life = [{"WATCHDOG": "1"}]
    assert heard == [life, [], [], life, [], life]


def test_another_process_is_watched(systemd):
    """A watchdog that is meant for another process is not answered."""
    announcer = take({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"})
    assert announcer is not None
    announcer.look(0, 1)
    assert systemd.heard() == []


def test_the_variables_are_taken_away():
    """Neither gunicorn nor what the application starts has anything to say to systemd."""
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    assert take(environ) is not None
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234"])
def test_without_a_socket_nobody_is_told(address):
    """Outside of systemd, or where it listens in a way that is not known, nothing is announced."""
    assert take({"NOTIFY_SOCKET": address}) is None


def test_a_systemd_that_is_away_disturbs_nobody(systemd, announcer):
    """A message that nobody takes is lost."""
    systemd.socket.close()
    announcer.stop()


def test_words_come_through_the_pipe():
    """What the coordinator says is read whole and in order; what is no word is passed over."""
    ear = Ear()
    try:
        assert ear.words() == []
        say = mouth(ear.fileno())
        say(Word("o1", "one"))
        os.write(ear.fileno(), b"nonsense\n")
        say(IDLE)
        whole = Word("", "cut in two").encode()
        os.write(ear.fileno(), whole[:9])
        assert ear.words() == [Word("o1", "one"), IDLE]
        os.write(ear.fileno(), whole[9:])
        assert ear.words() == [Word("", "cut in two")]
    finally:
        ear.close()


def test_a_master_that_does_not_listen_holds_nobody_up():
    """What does not fit into the pipe is lost, whole, and saying it returns at once."""
    ear = Ear()
    try:
        say = mouth(ear.fileno())
        for _ in range(300):
            say(Word("", "x" * 400))
        while words := ear.words():
            assert set(words) == {Word("", "x" * 400)}
    finally:
        ear.close()


def test_the_kernel_wakes_the_master():
    """Something said interrupts the master's wait at once."""
    woken: list[bool] = []
    before = signal.getsignal(signal.SIGIO)
    ear = Ear()
    try:
        ear.wake(lambda: woken.append(True))
        mouth(ear.fileno())(IDLE)
        wait_until(lambda: woken, what="the signal")
    finally:
        ear.close()
        signal.signal(signal.SIGIO, before)

from __future__ import annotations

import os
import selectors
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.deploy.entrance import Entrance


class Door:
    """An entrance that lets everybody in."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.inside: list[socket.socket] = []
        self.outside: list[socket.socket] = []
        self.selector = selectors.DefaultSelector()
        self.entrance = Entrance(self.path, self.selector, self._came)

    def _came(self, listener: socket.socket) -> None:
        self.inside.append(listener.accept()[0])

    def come(self) -> None:
        """Have somebody come."""
        client = socket.socket(socket.AF_UNIX)
        self.outside.append(client)
        client.connect(self.path)

    def turn(self) -> int:
        """Let in who has come; return how many are inside.  Who has connected is seen at once."""
        for key, _ in self.selector.select(0):
            key.data(key.fileobj)
        return len(self.inside)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path / "socket")
    made.entrance.open()
    yield made
    made.entrance.close()
    for end in (*made.inside, *made.outside):
        end.close()
    made.selector.close()


def test_only_this_user_can_connect(door: Door) -> None:
    """The socket has no rights for others, and whoever comes is let in."""
    assert stat.S_IMODE(os.stat(door.path).st_mode) == 0o600
    door.come()
    assert door.turn() == 1


def test_who_is_shut_out_waits(door: Door) -> None:
    """Who comes while there is no room is let in later, and meanwhile wakes nobody up."""
    door.entrance.shut_out()
    door.entrance.shut_out()
    door.come()
    assert door.turn() == 0
    assert door.entrance.shut
    door.entrance.let_in()
    door.entrance.let_in()
    assert door.turn() == 1
    assert not door.entrance.shut


@pytest.mark.parametrize("shut", [False, True])
def test_made_again(door: Door, shut: bool) -> None:
    """A socket that was deleted is made again, and lets in, whatever was before."""
    if shut:
        door.entrance.shut_out()
    os.unlink(door.path)
    door.entrance.open()
    door.come()
    assert door.turn() == 1


def test_closed(door: Door) -> None:
    """Nobody gets in after the end, which may come twice, and nothing is opened by letting in."""
    door.entrance.shut_out()
    door.entrance.close()
    door.entrance.close()
    door.entrance.let_in()
    door.entrance.shut_out()
    with pytest.raises(ConnectionRefusedError):
        door.come()

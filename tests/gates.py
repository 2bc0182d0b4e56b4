"""Gates: where an application under test waits until the test lets it go on.

A gate is a listening socket.  Who comes connects to it, and is let go by its being closed: so it is
the opening itself that is waited for, by any number of processes and under gevent, and a test that
ends, however it does, leaves nobody waiting.  Where there is no gate nobody waits.
"""

from __future__ import annotations

import inspect
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

#: More than ever come: who finds no place in the queue would wait for that, in C.
_QUEUE = 4096


class AtGate:
    """Stands at the gate at ``path``."""

    def __init__(self, path: str) -> None:
        self._gate = socket.socket(socket.AF_UNIX)
        self._open = False
        # By the folder's descriptor: the address of a socket has room for a short path only.
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            self._gate.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        except OSError:
            self.close()
        finally:
            os.close(folder)

    def opens(self, seconds: float) -> bool:
        """Wait until it is open, or so many seconds; say whether it is."""
        if not self._open and select.select([self._gate], [], [], seconds)[0]:
            self.close()
        return self._open

    def close(self) -> None:
        """Wait no longer."""
        self._gate.close()
        self._open = True


def wait_at_gate(path: str) -> None:
    """Wait until the gate at ``path`` is open; fail after 100 seconds.

    In short turns: what waits in C can't be interrupted.
    """
    end = time.monotonic() + 100
    gate = AtGate(path)
    try:
        while not gate.opens(0.05):
            assert time.monotonic() < end, "the gate stays shut"
    finally:
        gate.close()


#: What an application has to begin with that uses the two.
AT_GATE = "\n".join(
    ["import os, select, socket, time", *map(inspect.getsource, (AtGate, wait_at_gate)), ""]
)


class Gate:
    """The gate at ``path``, shut until it is opened, at the latest by the end of the block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            self._socket.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        self._socket.listen(_QUEUE)

    def open(self) -> None:
        """Let go on who waits, and who comes later."""
        self._path.unlink(missing_ok=True)
        self._socket.close()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


#: Makes a gate, by its place in the test's folder.
Shut = Callable[[str], Gate]


@pytest.fixture
def shut(tmp_path: Path) -> Iterator[Shut]:
    """Makes gates, which are opened with the end of the test."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Gate(tmp_path / name))

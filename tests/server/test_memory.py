"""Tests of genwsgi.server.memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Counts the arenas that are there when several threads have allocated memory at once.
PROGRAM = """
import ctypes, gc, tempfile, threading
from genwsgi.server.memory import settle
settle()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(6)
def allocate():
    together.wait(30)
    libc.malloc(ctypes.c_size_t(2000))
    together.wait(30)
threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with tempfile.NamedTemporaryFile() as file:
    out = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, out)
    libc.fclose(out)
    print(file.read().count(b"<heap nr="), gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize(("given", "several"), [(None, False), ("8", True)])
def test_one_arena_unless_somebody_said_otherwise(given: str | None, several: bool) -> None:
    """A worker's threads share one arena; what ``MALLOC_ARENA_MAX`` says is let stand."""
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    if given is not None:
        env["MALLOC_ARENA_MAX"] = given
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    arenas, frozen = done.stdout.split()
    assert (int(arenas) > 1) is several
    assert frozen == "True"

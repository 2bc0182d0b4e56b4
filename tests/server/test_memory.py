"""Tests of genwsgi.server.memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Counts the arenas that are there when several threads have allocated memory at once, and the
#: blocks of a megabyte that the system was asked for after a much larger one had been let go of.
PROGRAM = """
import ctypes, gc, re, tempfile, threading
from genwsgi.server.memory import settle
settle()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
def tell():
    with tempfile.NamedTemporaryFile() as file:
        out = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
        libc.malloc_info(0, out)
        libc.fclose(out)
        return file.read().decode()
def large():
    return int(re.search('type="mmap" count="([0-9]+)"', tell())[1])
libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(20 << 20))))
before = large()
libc.malloc(ctypes.c_size_t(1 << 20))
asked = large() - before
together = threading.Barrier(6)
def allocate():
    together.wait(30)
    libc.malloc(ctypes.c_size_t(2000))
    together.wait(30)
threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(tell().count("<heap nr="), asked, gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize(("given", "several"), [(None, False), ("8", True)])
def test_memory_is_as_it_was_unless_somebody_said_otherwise(
    given: str | None, several: bool
) -> None:
    """A worker's threads share one arena, and large blocks are never part of it.

    What ``MALLOC_ARENA_MAX`` and ``MALLOC_MMAP_THRESHOLD_`` say is let stand.
    """
    names = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_")
    env = {name: value for name, value in os.environ.items() if name not in names}
    if given is not None:
        env |= {"MALLOC_ARENA_MAX": given, "MALLOC_MMAP_THRESHOLD_": str(30 << 20)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    arenas, asked, frozen = done.stdout.split()
    assert (int(arenas) > 1) is several
    assert (int(asked) == 0) is several
    assert frozen == "True"

"""Tests of genwsgi.heap."""

from __future__ import annotations

import subprocess
import sys

#: Lets go of 40 MiB in small blocks, below one that it keeps, and tells its resident memory, in
#: MiB, before it trims and after.
PROGRAM = """
import os
from genwsgi.heap import trim
from genwsgi.server.memory import settle
settle()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
blocks = [bytes(2000) for _ in range(20_000)]
kept = bytes(2001)
del blocks
before = resident()
trim()
print(before, resident())
"""


def test_what_is_free_below_a_used_block_goes_back() -> None:
    """What lies below a block that is still used is the system's again after a trim."""
    told = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True, timeout=60)
    before, after = map(int, told.split())
    assert before - after > 30

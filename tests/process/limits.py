"""A server on a small disk, or with few inotify watches: the real limits, in namespaces of its own.

A user namespace has limits of its own, and may mount a file system for memory, without root
(user_namespaces(7)).  Where the machine allows no such namespace, these tests are skipped and say
so.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.harness import Server

NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")

#: The run directory on a disk of its own, of 4 MB.
SMALL_DISK = """
for word; do case $word in --run-dir=*) run=${word#--run-dir=} ;; esac; done
mount -t tmpfs -o size=4m tmpfs "${run%/*}"
"""

#: Of inotify watches, and of inotify instances, fewer than a server needs; and enough of them.
FEW_WATCHES, MANY_WATCHES = (
    f"echo {number} > /proc/sys/user/max_inotify_watches" for number in (1, 10000)
)
FEW_INSTANCES, MANY_INSTANCES = (
    f"echo {number} > /proc/sys/user/max_inotify_instances" for number in (0, 100)
)


@functools.cache
def _allowed() -> bool:
    """Whether this machine lets us have namespaces of our own."""
    return subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def confined(
    root: Path, script: str, *arguments: str, workers: int = 2, target: str = "myapp:create_app"
) -> Iterator[Server]:
    """Run the command with ``script`` of the shell before it, as root of its own namespaces."""
    if not _allowed():
        pytest.skip("this machine allows no user namespaces")
    before = [*NAMESPACES, "sh", "-c", f'set -e\n{script}\nexec "$@"', "sh"]
    server = Server(root, f"--workers={workers}", *arguments, target, before=before)
    # What is mounted there is seen from here only like this (proc(5)).
    server.run_dir = Path(f"/proc/{server.process.pid}/root{server.run_dir}")
    try:
        yield server.wait_ready(workers)
    finally:
        server.close()


def inside(server: Server, script: str) -> None:
    """Run ``script`` of the shell where a confined server is."""
    enter = ("nsenter", "--user", "--mount", "--target", str(server.process.pid))
    subprocess.run([*enter, "sh", "-c", script], check=True, capture_output=True)

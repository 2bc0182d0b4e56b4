"""Workers that are recycled while the tree on disk is broken."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.harness import (
    APPLICATION,
    COMMITTED,
    FAILED,
    Server,
    application,
    put,
    serving,
)
from tests.process.load import load

#: Marks who builds it, and waits at the gate of its version.
GATED = """\
open("built-{version}-" + str(os.getpid()), "w").close()
wait_at_gate("gate-{version}")
"""


#: How many workers are recycled at least.
RECYCLED = 10

#: How many deploys meet a worker that is recycled.
DEPLOYS = 5


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "sync"])
def test_recycled_workers_boot_the_committed_release(tmp_path: Path, worker_class: str) -> None:
    """Recycled again and again over a broken tree on disk, workers serve the committed release."""
    application(tmp_path, "v0")
    with serving(tmp_path, "--max-requests=50", f"--worker-class={worker_class}") as server:
        application(tmp_path, "v1")
        server.wait_for_log(r"committed: release 2-")
        put(tmp_path / "myapp.py", "import not_installed_anywhere\n")
        server.wait_for_log(FAILED + ".*ModuleNotFoundError")
        before = set(server.workers())
        with load(server.port, clients=16, think=0.1) as tally:
            server.wait_for_log("Autorestarting worker", count=RECYCLED)
            wait_until(lambda: not before & set(server.workers()), 60, "other workers")
        assert (tally.failed, tally.refused) == (0, 0), tally.offences
        # The connections of a worker that is recycled end with an announcement.
        assert set(tally.reasons) == {"announced close"}
        assert set(tally.versions) == {"v1"}
        # Each goes on to serve, on the connections it has, until all of them are closed.
        assert len(re.findall("Autorestarting worker", server.log())) >= tally.ok // 200
        application(tmp_path, "v2")
        server.wait_for_log(COMMITTED, count=2)
        assert server.get().startswith("v2 ")


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "sync"])
def test_recycling_fails_no_deploy(tmp_path: Path, shut: Shut, worker_class: str) -> None:
    """A worker that is recycled while it builds a release is no reason to refuse that release."""
    application(tmp_path, "v0")
    options = ("--max-requests=20", "--max-requests-jitter=10", f"--worker-class={worker_class}")
    with serving(tmp_path, *options) as server:
        with load(server.port, clients=16, think=0.1) as tally:
            for number in range(1, DEPLOYS + 1):
                version = f"v{number}"
                gate = shut(f"gate-{version}")
                head = AT_GATE + GATED.format(version=version)
                put(tmp_path / "myapp.py", head + APPLICATION.format(version=version))
                first = wait_until(partial(builder, tmp_path, version), 60, "a build")
                wait_until(partial(has_gone, server, first), 60, "the end of who builds")
                gate.open()
                server.wait_for_log(f"{COMMITTED}|{FAILED}", count=number)
            wait_until(lambda: version in tally.versions, 60, "the last version")
        assert not re.search(FAILED, server.log())
        assert len(re.findall(COMMITTED, server.log())) == DEPLOYS
        assert (tally.failed, tally.refused) == (0, 0), tally.offences
        assert len(re.findall("Autorestarting worker", server.log())) >= DEPLOYS


def builder(root: Path, version: str) -> int:
    """Who builds ``version``; 0 while nobody does."""
    found = [int(mark.name.rpartition("-")[2]) for mark in root.glob(f"built-{version}-*")]
    return found[0] if found else 0


def has_gone(server: Server, pid: int) -> bool:
    """Whether the worker serves no more."""
    return pid not in server.workers()

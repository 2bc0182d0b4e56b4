"""kill -9 at the worst moments: no host is left mixed, and the service is never down."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from genwsgi.deploy.rundir import RunDirectory
from genwsgi.isolation.store import Store
from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.harness import Server, put, serving
from tests.process.load import Tally, load

#: Serves "version pid".  Its import marks ``built-<version>-<count>-<pid>``, and then waits at the
#: version's gate, but for the first ``free`` workers to come.
GATED = """\
V = "{version}"
FREE = {free}
import glob

HERE = os.path.dirname(os.path.abspath(__file__))
before = glob.glob(os.path.join(HERE, "built-" + V + "-*"))
open(os.path.join(HERE, f"built-{{V}}-{{len(before)}}-{{os.getpid()}}"), "w").close()
if len(before) >= FREE:
    wait_at_gate(os.path.join(HERE, "gate-" + V))


def app(environ, start_response):
    body = f"{{V}} {{os.getpid()}}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def edit(root: Path, version: str, *, free: int = 0) -> None:
    """Put ``version`` in place, after its gate if it is to have one."""
    put(root / "myapp.py", AT_GATE + GATED.format(version=version, free=free))


def builders(root: Path, version: str) -> list[int]:
    """The workers that have begun to build ``version``, the first to do so first."""
    found = sorted(path.name for path in root.glob(f"built-{version}-*"))
    return [int(name.rpartition("-")[2]) for name in found]


def wait_for_builders(root: Path, version: str, count: int) -> list[int]:
    """Wait until ``count`` workers build ``version``."""
    wait_until(lambda: len(builders(root, version)) >= count, 60, f"{count} builds of {version}")
    return builders(root, version)


def wait_for_host(server: Server, version: str, workers: int = 2) -> None:
    """Wait until every worker serves ``version``, each asked by as many requests as it takes."""

    def agreed() -> bool:
        serving_now = set(server.workers())
        answers = [server.get().split() for _ in range(12)]
        return (
            {answer[0] for answer in answers} == {version}
            and {int(answer[1]) for answer in answers} == serving_now
            and len(serving_now) == workers
        )

    try:
        wait_until(agreed, 60, f"all of {workers} workers on {version}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{server.log()}") from None


@pytest.fixture
def server(tmp_path: Path):
    """A server of two workers on version v0."""
    edit(tmp_path, "v0")
    with serving(tmp_path, target="myapp:app") as running:
        yield running


def kill(pid: int) -> None:
    """Send SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def test_worker_killed_before_prepare(server: Server, tmp_path: Path) -> None:
    """A worker killed just before a deploy is replaced, and the deploy goes on without it, though
    it may be the one that was told to build first.
    """
    for number in range(1, 6):
        stopped = server.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        edit(tmp_path, f"v{number}")
        wait_until(
            lambda: server.status().phase in ("canary", "preparing"),
            what="the deploy waits for the worker",
        )
        kill(stopped)
        wait_for_host(server, f"v{number}")
    assert "failed" not in server.log()


def test_coordinator_killed_before_prepare(server: Server, tmp_path: Path) -> None:
    """A change that a stopped and then killed coordinator never saw is deployed by the next one."""
    coordinator = server.coordinator()
    os.kill(coordinator, signal.SIGSTOP)
    edit(tmp_path, "v1")
    kill(coordinator)
    wait_for_host(server, "v1")


def test_canary_killed_during_its_build(server: Server, tmp_path: Path, shut: Shut) -> None:
    """When the first worker dies building, the deploy fails and the old release stays."""
    shut("gate-v1")
    edit(tmp_path, "v1")
    (canary,) = wait_for_builders(tmp_path, "v1", 1)
    kill(canary)
    server.wait_for_log(r"by watch: failed: ")
    assert builders(tmp_path, "v1") == [canary]
    wait_for_host(server, "v0")
    edit(tmp_path, "v2")
    wait_for_host(server, "v2")


def test_bystander_killed_during_the_first_build(
    server: Server, tmp_path: Path, shut: Shut
) -> None:
    """A worker that was not asked to build yet may die: its replacement takes part instead."""
    gate = shut("gate-v1")
    edit(tmp_path, "v1")
    (canary,) = wait_for_builders(tmp_path, "v1", 1)
    (other,) = set(server.workers()) - {canary}
    kill(other)
    wait_until(lambda: other not in server.workers() and len(server.workers()) == 2, 60)
    gate.open()
    wait_for_host(server, "v1")


def test_coordinator_killed_during_the_build(server: Server, tmp_path: Path, shut: Shut) -> None:
    """The next coordinator takes the order up; nobody serves the release before all are ready."""
    gate = shut("gate-v1")
    edit(tmp_path, "v1")
    wait_for_builders(tmp_path, "v1", 1)
    kill(server.coordinator())
    server.wait_for_log(r"the coordinator runs", count=2)
    assert server.get().startswith("v0 ")
    gate.open()
    wait_for_host(server, "v1")


def test_order_survives_its_coordinator(tmp_path: Path, shut: Shut) -> None:
    """An order that only its coordinator had heard of is taken up by the next, and gets its end."""
    edit(tmp_path, "v0")
    with serving(tmp_path, "--no-watch", target="myapp:app") as server:
        gate = shut("gate-v1")
        edit(tmp_path, "v1")
        server.process.send_signal(signal.SIGHUP)
        wait_for_builders(tmp_path, "v1", 1)
        kill(server.coordinator())
        server.wait_for_log(r"the coordinator runs", count=2)
        gate.open()
        server.wait_for_log(r"by SIGHUP: committed: ")
        wait_for_host(server, "v1")


def test_worker_out_of_reach(tmp_path: Path) -> None:
    """No release is committed while a worker that serves can't be told of it."""
    edit(tmp_path, "v0")
    with serving(tmp_path, "--build-timeout=5", target="myapp:app") as server:
        stopped = server.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            kill(server.coordinator())
            server.wait_for_log(r"the coordinator runs", count=2)
            edit(tmp_path, "v1")
            server.wait_for_log(rf"by watch: failed: .*worker {stopped} not connected within 5 s")
        finally:
            os.kill(stopped, signal.SIGCONT)
        wait_for_host(server, "v0")
        edit(tmp_path, "v2")
        wait_for_host(server, "v2")


def test_commit_while_a_worker_boots(server: Server, tmp_path: Path, shut: Shut) -> None:
    """A worker that boots while a newer release is committed serves no request on the old one."""
    old = shut("gate-v0")
    # The workers that there are, and who looked for the scope before them.
    before = builders(tmp_path, "v0")
    kill(server.workers()[0])
    wait_for_builders(tmp_path, "v0", len(before) + 1)
    wait_until(lambda: len(server.workers()) == 1, what="the dead worker to be noticed")
    (other,) = server.workers()
    edit(tmp_path, "v1")
    server.wait_for_log(r"by watch: committed: ")
    # What it boots with is old by now, and to build what is not takes as long as this gate is shut.
    gate = shut("gate-v1")
    old.open()
    wait_for_builders(tmp_path, "v1", 2)
    assert {server.get() for _ in range(12)} == {f"v1 {other}"}
    gate.open()
    wait_for_host(server, "v1")


@pytest.mark.parametrize("victim", ["ready", "building"])
def test_worker_killed_between_first_and_last_ready(
    server: Server, tmp_path: Path, shut: Shut, victim: str
) -> None:
    """Whoever dies between the first and the last ready, the host stays on the old release."""
    gate = shut("gate-v1")
    edit(tmp_path, "v1", free=1)
    first, last = wait_for_builders(tmp_path, "v1", 2)
    kill(first if victim == "ready" else last)
    server.wait_for_log(r"by watch: failed: ")
    gate.open()
    wait_for_host(server, "v0")
    edit(tmp_path, "v2")
    wait_for_host(server, "v2")


def test_coordinator_killed_between_first_and_last_ready(
    server: Server, tmp_path: Path, shut: Shut
) -> None:
    """With its coordinator gone a worker that is ready serves the old release on."""
    gate = shut("gate-v1")
    edit(tmp_path, "v1", free=1)
    wait_for_builders(tmp_path, "v1", 2)
    kill(server.coordinator())
    assert {server.get().split()[0] for _ in range(12)} == {"v0"}
    gate.open()
    wait_for_host(server, "v1")


@pytest.mark.parametrize("victim", ["coordinator", "worker", "both"])
def test_killed_during_commit(server: Server, tmp_path: Path, shut: Shut, victim: str) -> None:
    """After the commit point the release is committed, whoever dies before all have swapped."""
    gate = shut("gate-v1")
    edit(tmp_path, "v1", free=1)
    first, last = wait_for_builders(tmp_path, "v1", 2)
    # The first is ready and can't swap: it is stopped until the other has.
    os.kill(first, signal.SIGSTOP)
    gate.open()
    server.wait_for_log(rf"\[{last}\] \[INFO\] release \S+ is live as generation 2")
    if victim != "worker":
        kill(server.coordinator())
    if victim == "coordinator":
        os.kill(first, signal.SIGCONT)
    else:
        kill(first)
    wait_for_host(server, "v1")
    edit(tmp_path, "v2")
    wait_for_host(server, "v2")


def test_coordinator_killed_just_after_the_commit_point(
    server: Server, tmp_path: Path, shut: Shut
) -> None:
    """Workers swap to what is committed though nobody told them to and no coordinator is there."""
    gate = shut("gate-v1")
    edit(tmp_path, "v1", free=1)
    wait_for_builders(tmp_path, "v1", 2)
    coordinator = server.coordinator()
    os.kill(coordinator, signal.SIGSTOP)
    gate.open()
    directory = RunDirectory(str(server.run_dir))
    committed = directory.committed()
    (digest,) = set(Store(directory.store).digests()) - {committed.digest}
    # While the master is stopped, nobody starts another.
    server.process.send_signal(signal.SIGSTOP)
    try:
        # What it would have done next, and last.
        directory.record(replace(committed, number=committed.number + 1, digest=digest))
        kill(coordinator)
        server.wait_for_log(r"release 2-\S+ is live as generation 2", count=2)
    finally:
        server.process.send_signal(signal.SIGCONT)
    wait_for_host(server, "v1")


def _reached(tally: Tally, goal: int) -> bool:
    return tally.ok >= goal


def test_kills_at_random_moments_under_load(server: Server, tmp_path: Path) -> None:
    """Killed again and again at any moment of a deploy, the coordinator costs no request."""
    chance = random.Random(20)
    with load(server.port, clients=8) as tally:
        for number in range(1, 8):
            server.wait_for_coordinator()
            began = tally.ok + chance.randrange(60)
            edit(tmp_path, f"v{number}")
            wait_until(partial(_reached, tally, began), 60, "some requests")
            server.kill_coordinator()
        wait_for_host(server, "v7")
    assert not tally.offences

"""What becomes of a release whose requests fail after its commit, on a real server."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from genwsgi.ctl.client import Client
from genwsgi.ctl.find import at
from genwsgi.deploy.control import History, HistoryRequest
from tests.helpers import wait_until
from tests.process.harness import COMMITTED, Server, put, serving
from tests.process.load import load

#: Names its version and its import; a version that is bad, or raises, does so as soon as there is a
#: file ``fail``.
SHOP = """\
V = "{version}"
import os

STARTED = os.urandom(4).hex()


def create_app():
    def app(environ, start_response):
        fails = os.path.exists("fail")
        if V.startswith("raises") and fails:
            raise LookupError(V)
        status = "500 Oh" if V.startswith("bad") and fails else "200 OK"
        body = f"{{V}} {{STARTED}} {{os.getpid()}}".encode()
        start_response(status, [
            ("Content-Type", "text/plain"), ("Content-Length", str(len(body))),
        ])
        return [body]
    return app
"""


def write(root: Path, version: str) -> None:
    """Write the application."""
    put(root / "myapp.py", SHOP.format(version=version))


def imports(server: Server) -> set[str]:
    """The version and the import that each worker serves, as they answer."""
    found: dict[str, str] = {}

    def all_asked() -> bool:
        version, started, pid = server.get().split()
        found[pid] = f"{version} {started}"
        return len(found) == 2

    wait_until(all_asked, 60, "both workers to answer")
    return set(found.values())


def test_release_that_fails_is_left_by_itself(tmp_path: Path) -> None:
    """It is gone on every worker within the probation; log, status and history have the counts.

    These are what clients saw.  The parked generation serves on with what it had, no connection is
    closed, and the watch lets the files be until they change; then a good release passes.
    """
    write(tmp_path, "good1")
    with serving(tmp_path, "--probation=8", "--max-error-rate=10%", "--park") as server:
        before = imports(server)
        with load(server.port, clients=8) as tally:
            write(tmp_path, "bad2")
            server.wait_for_log(COMMITTED + "release 2-")
            assert tally.offences == {}
            (tmp_path / "fail").touch()
            told = server.wait_for_log(
                r"release 2-\w+ has failed (\d+) of the (\d+) requests of its first ([\d.]+) s,"
                r" more than 10 %; 1-\w+ had failed 0 of \d+"
            )
            assert float(told[3]) < 8
            server.wait_for_log(r"order \S+ by probation: committed: release 3-")
            failed = server.wait_for_log(r"in all it has failed (\d+) of \d+ requests")
            assert imports(server) == before
        assert tally.reasons == {"status 500": int(failed[1])}
        assert tally.dropped == tally.refused == 0
        entry = Client(at(str(server.run_dir)), 20).ask(History, HistoryRequest(1)).entries[0]
        assert entry.trigger == "probation"
        assert f"has failed {told[1]} of the {told[2]} requests" in entry.detail
        status = server.status()
        assert status.recent[0].detail == entry.detail
        assert "not deployed again until the files change" in status.quiet
        write(tmp_path, "good4")
        server.wait_for_log(COMMITTED + "release 4-")
        assert {one.split()[0] for one in imports(server)} == {"good4"}
        server.wait_for_log(r"release 4-\w+ has passed its probation: it has failed 0 of the")


def test_worker_and_coordinator_die_in_a_probation(tmp_path: Path) -> None:
    """The probation goes on without them: what fails after it is left, on the new worker too."""
    write(tmp_path, "good1")
    with serving(tmp_path, "--probation=40", "--park") as server:
        write(tmp_path, "raises2")
        server.wait_for_log(COMMITTED + "release 2-")
        killed = server.workers()[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: len(pids := server.workers()) == 2 and killed not in pids, 60, "a new worker"
        )
        server.kill_coordinator()
        server.wait_for_coordinator()
        (tmp_path / "fail").touch()
        with load(server.port, clients=4) as tally:
            server.wait_for_log(r"order \S+ by probation: committed: release 3-")
            wait_until(lambda: tally.versions["good1"] > 20, 60, "the good one")
        assert {one.split()[0] for one in imports(server)} == {"good1"}
        assert re.search(r"release 2-\w+ has failed \d+ of the \d+ requests", server.log())

"""What a candidate has to show on a real server: who sees it, and what happens when it fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.helpers import wait_until
from tests.process.harness import FAILED, put, run_command, serving
from tests.process.load import load

#: Answers its version, and at ``/health`` what its second line says.
SHOP = """\
V = "{version}"
HEALTH = "{health}"


def create_app():
    def app(environ, start_response):
        health = environ["PATH_INFO"] == "/health"
        status = HEALTH if health else "200 OK"
        if V.startswith("bad") and not health:
            status = "500 Oh"
        body = f"{{V}} is {{status}}".encode()
        start_response(status, [
            ("Content-Type", "text/plain"), ("Content-Length", str(len(body))),
        ])
        return [body]
    return app
"""


def write(root: Path, version: str, health: str = "200 OK") -> None:
    """Write the application."""
    put(root / "myapp.py", SHOP.format(version=version, health=health))


def test_bad_candidate_is_never_seen(tmp_path: Path) -> None:
    """Of 20 candidates that answer 500 on the verified path no client sees anything.

    The log has the response; code that passes goes live after them.
    """
    write(tmp_path, "good1")
    with serving(tmp_path, "--verify=/health", "--verify=/none=200") as server:
        with load(server.port, clients=32) as tally:
            for number in range(1, 21):
                write(tmp_path, f"bad{number}", "500 Oh")
                server.wait_for_log(FAILED, count=number)
            write(tmp_path, "good2")
            wait_until(lambda: tally.versions["good2"], 60, "the good one")
        log = server.log()
    assert tally.offences == {}
    assert set(tally.versions) == {"good1", "good2"}
    assert log.count("GET /health was answered '500 Oh' and not with a status") >= 20
    assert "bad20 is 500 Oh" in log


def test_start_with_code_that_does_not_pass(tmp_path: Path) -> None:
    """A server whose first code does not pass does not start, and shows the response."""
    write(tmp_path, "bad", "503 No")
    ended = run_command(
        tmp_path, "--bind=127.0.0.1:0", "--verify=/health", "--workers=2", "myapp:create_app"
    )
    assert ended.returncode == 4
    assert ended.stderr.count("verification failed: GET /health was answered '503 No'") == 1
    assert "bad is 503 No" in ended.stderr


def test_recycled_worker_serves_what_is_committed(tmp_path: Path) -> None:
    """A worker in the place of another one serves, though what it asks fails by now."""
    put(tmp_path / "stock", "")
    put(
        tmp_path / "myapp.py",
        "import os\nimport genwsgi\ngenwsgi.verify(lambda: os.path.exists('stock') or 'no stock')\n"
        + SHOP.format(version="v1", health="200 OK"),
    )
    with serving(tmp_path, workers=1) as server:
        (tmp_path / "stock").unlink()
        (before,) = server.workers()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: server.workers() not in ([], [before]), 60, "another worker")
        assert server.get() == "v1 is 200 OK"
        assert "serves all the same: verification failed: the check <lambda> says no stock" in (
            server.log()
        )

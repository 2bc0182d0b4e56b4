"""Requests of replaced generations that an operator ends, on a real server."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path

import pytest

from genwsgi.deploy.control import CancelRequest, Done
from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.harness import COMMITTED, Server, put, serving

#: Requests that wait at the gate: one in its code, one in its stream, one that catches all that is
#: raised in it.
APPLICATION = """\
V = "{version}"
cleaned = []


def stream():
    gate = AtGate("gate")
    try:
        while not gate.opens(0.02):
            yield b"x" * 100
    finally:
        cleaned.append("stream")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/spin":
        try:
            wait_at_gate("gate")
        finally:
            print("cleaned up", flush=True)
    if path == "/deaf":
        while True:
            try:
                wait_at_gate("enough")
                break
            except Exception:
                pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return stream() if path == "/stream" else [V.encode()]
"""


class Client:
    """A client whose request may be cut off."""

    def __init__(self, server: Server, path: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.outcome = ""
        self._thread = threading.Thread(target=self._run, args=(path,), daemon=True)
        self._thread.start()

    def _run(self, path: str) -> None:
        try:
            self._connection.request("GET", path)
            response = self._connection.getresponse()
            response.read()
            self.outcome = "whole"
        except (http.client.HTTPException, OSError):
            self.outcome = "cut"
        finally:
            self._connection.close()

    def ended(self) -> str:
        """Wait for the end, and say what it was."""
        self._thread.join(60)
        return self.outcome


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_requests_of_an_old_generation_are_ended_and_no_others(
    tmp_path: Path, shut: Shut, worker: str
) -> None:
    """The clients of the cancelled generation see a cut connection, all others nothing; the
    generation retires, and what can't be interrupted is named and served out.
    """
    put(tmp_path / "myapp.py", AT_GATE + APPLICATION.format(version=1))
    shut("gate")
    enough = shut("enough")
    with serving(
        tmp_path,
        f"--worker-class={worker}",
        "--threads=8",
        "--graceful-timeout=1",
        workers=1,
        target="myapp",
    ) as server:
        old = {path: Client(server, path) for path in ("/spin", "/stream", "/deaf")}
        wait_until(lambda: server.status().workers[0].generations[0].leases == 3, what="three")
        put(tmp_path / "myapp.py", AT_GATE + APPLICATION.format(version=2))
        server.wait_for_log(COMMITTED)
        new = {path: Client(server, path) for path in ("/stream",)}

        def stand() -> list[tuple[str, int]]:
            found = server.status().workers[0].generations
            return [(one.state, one.leases) for one in found]

        wait_until(lambda: stand() == [("draining", 3), ("current", 1)], what="all requests")
        assert server.ask(CancelRequest(2, None)) == Done(
            False, "no worker has a replaced generation 2 that owes a response"
        )
        answer = server.ask(CancelRequest(1, None))
        assert isinstance(answer, Done)
        assert answer == Done(
            False,
            "2 requests of generation 1 are ended; 1 can't be interrupted, and goes on",
        )
        enough.open()
        assert [one.ended() for one in old.values()] == ["cut", "cut", "cut"]
        assert "cleaned up" in server.log()
        server.wait_for_log("generation 1 has retired")
        assert server.get() == "2"
        assert new["/stream"].outcome == ""
        put(tmp_path / "myapp.py", AT_GATE + APPLICATION.format(version=3))
        server.wait_for_log(COMMITTED, count=2)
        assert server.ask(CancelRequest(2, None)) == Done(
            True, "1 request of generation 2 is ended"
        )
        assert new["/stream"].ended() == "cut"

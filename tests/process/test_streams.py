"""Responses and requests that outlive many deploys, and clients that do not wait for the end."""

from __future__ import annotations

import http.client
import re
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.gates import AT_GATE, Shut, wait_at_gate
from tests.helpers import wait_until
from tests.process.harness import Server, paced, put, serving

DEPLOYS = 20
SECONDS = 60

#: Streams and takes uploads; both import a module when they are half through.  While the gate is
#: shut, there is a pause between two blocks of a stream, and the last is not sent.
STREAMING = """\
V = "{version}"


def stream(blocks, pause):
    gate = AtGate("gate")
    for number in range(blocks):
        if number == blocks // 2:
            import late
        if number == blocks - 1:
            wait_at_gate("gate")
        seen = V if number < blocks // 2 else late.V
        yield f"{{seen}} {{os.getpid()}} {{number}}\\n".encode()
        gate.opens(pause)


def upload(body, total):
    received = 0
    while received < total:
        block = body.read(1000)
        if not block:
            break
        received += len(block)
    import late
    return f"{{V}} {{late.V}} {{received}}".encode()


def create_app():
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            blocks, pause = environ["QUERY_STRING"].split(",")
            return stream(int(blocks), float(pause))
        if environ["PATH_INFO"] == "/upload":
            body = upload(environ["wsgi.input"], int(environ["CONTENT_LENGTH"]))
        else:
            body = V.encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return app
"""


def write(root: Path, version: str) -> None:
    """Put the application and the module it imports late in place."""
    put(root / "late.py", f'V = "{version}"\n')
    put(root / "myapp.py", AT_GATE + STREAMING.format(version=version))


def serves(server: Server, version: str) -> bool:
    """Whether a request gets ``version``."""
    return server.get() == version


def read_stream(server: Server, blocks: int, pause: float) -> list[str]:
    """Read a stream to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request("GET", f"/stream?{blocks},{pause}")
        # Raises IncompleteRead unless the last chunk was the end.
        return connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()


def send_slowly(server: Server, blocks: int, pause: float) -> str:
    """Upload ``blocks`` times 1000 bytes, ``pause`` seconds apart; the response.

    While the gate is shut, the last block is not sent.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.putrequest("POST", "/upload")
        connection.putheader("Content-Length", str(1000 * blocks))
        connection.endheaders()
        for number in paced(blocks, pause):
            if number == blocks:
                wait_at_gate(str(server.root / "gate"))
            connection.send(b"x" * 1000)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_streams_and_uploads_outlive_deploys(tmp_path: Path, shut: Shut) -> None:
    """A stream and an upload of a minute end whole, on their version, however often it is replaced.

    Worker classes side by side: it takes a minute.
    """
    roots = {name: tmp_path / name for name in ("gthread", "gevent")}
    for root in roots.values():
        root.mkdir()
        write(root, "v0")
    gates = [shut(f"{name}/gate") for name in roots]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(root, f"--worker-class={name}"))
            for name, root in roots.items()
        ]
        pool = stack.enter_context(ThreadPoolExecutor())
        streams: list[Future[list[str]]] = []
        uploads: list[Future[str]] = []
        for server in servers:
            streams.append(pool.submit(read_stream, server, SECONDS, 1))
            uploads.append(pool.submit(send_slowly, server, SECONDS, 1))
        for number in paced(DEPLOYS, 0.95 * SECONDS / DEPLOYS):
            for server in servers:
                write(server.root, f"v{number}")
            for server in servers:
                wait_until(partial(serves, server, f"v{number}"), 60, "the new version")
        assert not any(stream.done() for stream in streams)
        assert not any(upload.done() for upload in uploads)
        for gate in gates:
            gate.open()
        for stream in streams:
            lines = [line.split() for line in stream.result(SECONDS)]
            assert [line[0] for line in lines] == ["v0"] * SECONDS
            assert [int(line[2]) for line in lines] == list(range(SECONDS))
        for upload in uploads:
            assert upload.result(SECONDS) == f"v0 v0 {1000 * SECONDS}"
        for server, stream in zip(servers, streams, strict=True):
            pid = stream.result()[0].split()[1]
            server.wait_for_log(rf"\[{pid}\] \[INFO\] generation 1 has retired")


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "sync"])
def test_client_that_leaves(tmp_path: Path, shut: Shut, worker_class: str) -> None:
    """A client that leaves in mid-stream frees its lease: only then its generation retires."""
    write(tmp_path, "v0")
    shut("gate")
    with serving(tmp_path, f"--worker-class={worker_class}") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(b"GET /stream?100000,0.01 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with client.makefile("rb") as response:
                while not (line := response.readline()).startswith(b"v0 "):
                    assert line, "the stream has ended"
                pid = int(line.split()[1])
                retired = rf"\[{pid}\] \[INFO\] generation 1 has retired"
                (other,) = set(server.workers()) - {pid}
                for number in (1, 2):
                    write(tmp_path, f"v{number}")
                    live = rf"\[INFO\] release \S+ is live as generation {number + 1}"
                    server.wait_for_log(live, count=2)
                server.wait_for_log(rf"\[{other}\] \[INFO\] generation 1 has retired")
                # They are let go in the order in which they retire: the first would have been.
                server.wait_for_log(rf"\[{pid}\] \[INFO\] generation 2 has retired")
                for _ in range(50):
                    assert response.readline()
                assert not re.search(retired, server.log())
        server.wait_for_log(retired)

"""Very many idle connections, and whether deploys close any of them."""

from __future__ import annotations

import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.client import Incomplete, parse
from benchmarks.plan import Plan, pause
from benchmarks.section import Section
from benchmarks.servers import Kind, installed, serving
from benchmarks.subjects import SUBJECTS

CONNECTIONS = 5000
DEPLOYS = 20

#: Descriptors that are for other things than connections.
SPARE = 200

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

WORKERS = (
    "genwsgi gthread",
    "genwsgi gevent",
    "gunicorn gthread, HUP",
    "gunicorn gevent, HUP",
)


@contextmanager
def descriptors(wanted: int) -> Iterator[int]:
    """Have so many descriptors for the block, here and in what is started; how many there are."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    have = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, have), most))
    try:
        yield have
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def ask(connection: socket.socket) -> bool:
    """Send a request and tell whether it was answered, with the connection left open."""
    data = b""
    try:
        connection.sendall(REQUEST)
        while True:
            received = connection.recv(4096)
            if not received:
                return False
            data += received
            try:
                status, closing, _ = parse(data)
            except Incomplete:
                continue
            return status == 200 and not closing
    except OSError:
        return False


def ended(connections: list[socket.socket]) -> set[int]:
    """Return the descriptors of those that the server has closed."""
    poll = select.poll()
    for one in connections:
        poll.register(one, select.POLLIN)
    # An idle connection has nothing to read but its end.
    return {found for found, _ in poll.poll(0)}


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Measure the two kinds of worker that keep connections, and plain gunicorn's with HUP."""
    data["deploys"] = DEPLOYS
    data["servers"] = {}
    for kind in installed(WORKERS):
        with plan.part(f"idle: {kind.name}"):
            data["servers"][kind.name] = _measure(plan, kind)


def _measure(plan: Plan, kind: Kind) -> dict[str, int]:
    with (
        descriptors(CONNECTIONS + SPARE) as have,
        serving(kind, plan.room(), SUBJECTS["nothing"]) as running,
        ExitStack() as stack,
    ):
        connections = []
        for _ in range(min(CONNECTIONS, have - SPARE)):
            one = socket.create_connection(("127.0.0.1", running.port), timeout=20)
            stack.callback(one.close)
            if not ask(one):
                raise AssertionError("a connection that is not kept open")
            connections.append(one)
        lost: set[int] = set()
        for number in range(1, DEPLOYS + 1):
            running.deploy(f"v{number}")
            running.wait_deployed()
            pause(0.2)
            lost |= ended(connections)
            if len(lost) == len(connections):
                break
        kept = [one for one in connections if one.fileno() not in lost]
        answered = sum(ask(one) for one in kept)
    return {"connections": len(connections), "closed": len(lost), "answered": answered}


def summary(data: dict[str, Any]) -> Section:
    """Say how many were closed."""
    figures = {}
    for kind, found in data["servers"].items():
        if kind.startswith("genwsgi"):
            figures[f"idle {kind}"] = float(found["connections"] - found["answered"])
    return Section(
        "Idle connections",
        f"""\
Connections on which one request was sent, and which then idle while {data["deploys"]} deploys
follow each other, or until all of them are closed; two workers. Then each that is still open is
asked once more.""",
        ["", "connections", "closed by deploys", "answered afterwards"],
        [
            [kind, *(f"{found[what]:,}" for what in ("connections", "closed", "answered"))]
            for kind, found in data["servers"].items()
        ],
        figures,
    )

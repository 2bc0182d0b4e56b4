"""The client: requests that arrive when they arrive, whatever the server is doing meanwhile.

``python -m benchmarks.client PORT …`` is a process of its own, which SIGTERM ends early.  Arrivals
are a Poisson process; one that finds every connection busy waits for the next that is free, and its
time counts from when it arrived: a server that stalls delays those who come meanwhile, and the
figures say so (no "coordinated omission").  It prints a line of JSON for each new version that it
sees, and one with everything at the end.

How late the client itself began a request that found a connection free is counted as well: as long
as this is far below what is measured, the client is not the bottleneck.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import selectors
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence

from benchmarks.histogram import Histogram

#: Where the version stands in a body; every page of the benchmarks has one.
VERSION = re.compile(rb"\bv\d+\b")

#: Between two tries to connect, in seconds.
AGAIN = 0.02

#: How long the last requests may take, in seconds.
LAST = 60.0


class Incomplete(Exception):
    """There is more of the response to come."""


def parse(data: bytes) -> tuple[int, bool, bytes]:
    """Take one response apart (RFC 9112), which has to be all that ``data`` is.

    :return: its status, whether the connection ends with it, and its body.
    :raises Incomplete: some of it is missing.
    :raises ValueError: it is no response, or its length can't be known before the connection ends.
    """
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        raise Incomplete
    status, *lines = head.lower().split(b"\r\n")
    fields = dict(line.split(b":", 1) for line in lines)
    if b"content-length" in fields:
        if len(body) < int(fields[b"content-length"]):
            raise Incomplete
    elif fields.get(b"transfer-encoding", b"").strip() != b"chunked":
        raise ValueError("a response without a length")
    elif not body.endswith(b"0\r\n\r\n"):
        raise Incomplete
    protocol, code, *_ = status.split(b" ")
    closing = fields.get(b"connection", b"").strip() == b"close" or protocol == b"http/1.0"
    return int(code), closing, body


class Crowd:
    """Connections, the arrivals that wait for one, and what all of them saw.

    :param rate: requests per second; 0: each connection sends its next one at once.
    """

    def __init__(self, port: int, path: str, rate: float, seed: int) -> None:
        self.port = port
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self.times = Histogram()
        self.late = Histogram()
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.first_seen: dict[str, float] = {}
        self.ending = False
        self.stop = asyncio.Event()
        self._rate = rate
        self._chance = random.Random(seed)
        self._free: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._waiting: deque[float] = deque()
        self._busy = 0
        self._loop = asyncio.get_running_loop()

    def arrive(self, moment: float) -> None:
        """Have the request that arrives at ``moment`` sent, or wait, and expect the next one."""
        if self.ending:
            return
        if self._free:
            self.late.add(self._loop.time() - moment)
            self._send(self._free.popleft(), moment)
        else:
            self._waiting.append(moment)
        following = moment + self._chance.expovariate(self._rate)
        self._loop.call_at(following, self.arrive, following)

    def opened(self, connection: Connection) -> None:
        """Let a connection that has just been opened take part."""
        self._open.add(connection)
        self.free(connection)

    def free(self, connection: Connection) -> None:
        """Give a connection that has become free its next request, if one waits for it."""
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self._rate == 0 and not self.ending:
            self._send(connection, self._loop.time())
        else:
            self._free.append(connection)

    def _send(self, connection: Connection, began: float) -> None:
        self._busy += 1
        connection.send(began)

    def answered(self, began: float, status: int, body: bytes) -> None:
        """Count a whole response."""
        self._busy -= 1
        now = self._loop.time()
        self.times.add(now - began)
        if not 200 <= status < 300:
            self.counts["failed"] += 1
            self.reasons[f"status {status}"] += 1
            return
        self.counts["ok"] += 1
        found = VERSION.search(body)
        version = found[0].decode() if found else ""
        if version not in self.first_seen:
            self.first_seen[version] = now
            say({"version": version, "at": now})

    def unanswered(self) -> None:
        """Count a request whose response will not come."""
        self._busy -= 1
        self.counts["failed"] += 1

    def closed(self, connection: Connection, reason: str) -> None:
        """Count a connection that the server has closed, and open another."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if not self._left():
            self.counts["closed"] += 1
            self.reasons[reason] += 1
            self._loop.create_task(self.connect())

    async def connect(self) -> None:
        """Open a connection, however often that takes."""
        while not self._left():
            try:
                await self._loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)
                return
            except OSError as error:
                self.counts["refused"] += 1
                self.reasons[f"connect: {type(error).__name__}"] += 1
                await asyncio.sleep(AGAIN)

    def _left(self) -> bool:
        """Tell whether nothing remains to be asked or answered."""
        return self.ending and not self._waiting and not self._busy

    async def run(self, connections: int, seconds: float) -> None:
        """Let requests arrive for ``seconds``, or until :attr:`stop`, and wait for the last."""
        await asyncio.gather(*(self.connect() for _ in range(connections)))
        if self._rate:
            self.arrive(self._loop.time())
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        self.ending = True
        deadline = self._loop.time() + LAST
        while not self._left() and self._loop.time() < deadline:
            await asyncio.sleep(AGAIN)
        unanswered = len(self._waiting) + self._busy
        if unanswered:
            self.counts["failed"] += unanswered
            self.reasons["no response in time"] += unanswered

    def close(self) -> None:
        """End the connections."""
        for connection in list(self._open):
            connection.end()


class Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._began: float | None = None
        self._data = b""
        self._announced = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._crowd.opened(self)

    def end(self) -> None:
        """Close it."""
        self._transport.abort()

    def send(self, began: float) -> None:
        """Send a request that arrived at ``began``."""
        self._began = began
        self._transport.write(self._crowd.request)

    def data_received(self, data: bytes) -> None:
        """Go on with the response."""
        self._data += data
        try:
            status, closing, body = parse(self._data)
        except Incomplete:
            return
        except ValueError as error:
            self._crowd.reasons[str(error)] += 1
            self._transport.abort()
            return
        self._data = b""
        assert self._began is not None
        self._crowd.answered(self._began, status, body)
        self._began = None
        if closing:
            self._announced = True
            self._transport.close()
        else:
            self._crowd.free(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Say what the connection's end has cost."""
        if self._began is not None:
            self._crowd.unanswered()
            self._crowd.closed(self, "closed before the response")
        else:
            self._crowd.closed(self, "announced" if self._announced else "closed while idle")


def say(data: dict[str, object]) -> None:
    """Print a line of JSON at once."""
    sys.stdout.write(json.dumps(data) + "\n")
    sys.stdout.flush()


async def visit(options: argparse.Namespace) -> None:
    """Do what the command line says, and tell what was seen."""
    crowd = Crowd(options.port, options.path, options.rate, options.seed)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, crowd.stop.set)
    cpu, began = time.process_time(), time.monotonic()
    await crowd.run(options.connections, options.seconds)
    took = time.monotonic() - began
    crowd.close()
    say(
        {
            **{name: crowd.counts[name] for name in ("ok", "failed", "closed", "refused")},
            "reasons": dict(crowd.reasons),
            "first_seen": crowd.first_seen,
            "seconds": took,
            "cpu": (time.process_time() - cpu) / took,
            "times": crowd.times.to_json(),
            "late": crowd.late.to_json(),
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the client."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--path", default="/")
    parser.add_argument("--rate", type=float, default=300, help="requests/s; 0: all at once [300]")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10, help="at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    # epoll counts in milliseconds, which is too coarse for arrivals; select counts in microseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        loop.run_until_complete(visit(options))
    finally:
        loop.close()


if __name__ == "__main__":
    main()

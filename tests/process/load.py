"""Clients that hold their connections while the server is redeployed, and count every offence."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What the clients saw.

    :ivar ok: whole 2xx responses.
    :ivar failed: requests that were sent whole and got no whole 2xx response.
    :ivar dropped: connections that the server closed, announced or not.
    :ivar refused: connects that failed.
    :ivar slowest: the longest time to a whole response, in seconds.
    :ivar versions: responses by the first word of their body.
    :ivar first_seen: when each version was first seen, in seconds of the monotonic clock.
    :ivar ended: the last whole body on each connection that was dropped; "" if there was none.
    """

    ok: int = 0
    failed: int = 0
    dropped: int = 0
    refused: int = 0
    slowest: float = 0.0
    versions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    first_seen: dict[str, float] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def take_slowest(self) -> float:
        """Return the slowest since the last call, in seconds, and begin anew."""
        slowest, self.slowest = self.slowest, 0.0
        return slowest

    def drop(self, reason: str, last: str) -> None:
        """The server closed a connection whose last whole body was ``last``."""
        self.dropped += 1
        self.reasons[reason] += 1
        self.ended.append(last)

    @property
    def offences(self) -> dict[str, object]:
        """Everything that must not have happened; empty when all went well."""
        counts = {"failed": self.failed, "dropped": self.dropped, "refused": self.refused}
        found: dict[str, object] = {name: count for name, count in counts.items() if count}
        return {**found, "reasons": dict(self.reasons)} if found else {}


async def _read(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    if "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    else:
        body = b""
        while True:
            size = int(await reader.readline(), 16)
            block = await reader.readexactly(size + 2)
            if size == 0:
                break
            body += block[:-2]
    return int(lines[0].split()[1]), fields.get("connection") == "close", body


async def _client(
    port: int, path: str, think: float, stop: threading.Event, tally: Tally, seed: int
) -> None:
    chance = random.Random(seed)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    reader = writer = None
    last = ""
    while not stop.is_set():
        if reader is None or writer is None:
            last = ""
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError as error:
                tally.refused += 1
                tally.reasons[f"connect: {type(error).__name__}"] += 1
                await asyncio.sleep(0.02)  # nothing tells when it accepts again
                continue
        await asyncio.sleep(chance.uniform(0, 2 * think))  # what a visitor takes to think
        if reader.at_eof():
            tally.drop("closed while idle", last)
            writer.close()
            reader = writer = None
            continue
        started = time.monotonic()
        try:
            writer.write(request)
            status, closing, body = await asyncio.wait_for(_read(reader), 60)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as error:
            tally.failed += 1
            tally.drop(f"no response: {type(error).__name__}", last)
            writer.close()
            reader = writer = None
            continue
        now = time.monotonic()
        tally.slowest = max(tally.slowest, now - started)
        last = body.decode("latin-1")
        if 200 <= status < 300:
            tally.ok += 1
            version = last.split(" ")[0]
            tally.versions[version] += 1
            tally.first_seen.setdefault(version, now)
        else:
            tally.failed += 1
            tally.reasons[f"status {status}"] += 1
        if closing:
            tally.drop("announced close", last)
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


@contextmanager
def load(port: int, clients: int = 32, path: str = "/", think: float = 0.01) -> Iterator[Tally]:
    """Keep ``clients`` clients at it, each on one connection, until the block ends."""
    tally, stop = Tally(), threading.Event()

    async def crowd() -> None:
        await asyncio.gather(
            *(_client(port, path, think, stop, tally, seed) for seed in range(clients))
        )

    thread = threading.Thread(target=lambda: asyncio.run(crowd()), name="load")
    thread.start()
    try:
        yield tally
    finally:
        stop.set()
        thread.join(90)
        assert not thread.is_alive(), "the clients did not end"

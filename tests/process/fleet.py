"""Several servers on this machine that take orders from one broker, each for a host."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pika

from tests.helpers import wait_until
from tests.process.harness import APPLICATION, Server, put
from tests.process.load import Tally, load
from tests.rabbitmq import Broker

KEY = "0123456789abcdef0123456789abcdef"

#: What is broken on the server whose number stands in BROKEN, and imported nowhere else.
BROKEN_ON = """\
import os
if os.environ["SERVER"] == "{number}":
    raise RuntimeError("broken here")
"""


class Fleet:
    """Servers of one application below ``root``, and a folder for its releases.

    :ivar exchange: theirs alone.
    :ivar releases: the release root of all of them.
    """

    def __init__(self, root: Path, broker: Broker) -> None:
        self.root = root
        self.broker = broker
        self.exchange = f"fleet.{uuid.uuid4().hex[:8]}"
        self.releases = root / "releases"
        self.releases.mkdir(mode=0o755)
        self.key_file = root / "key"
        self.key_file.write_text(KEY)
        self.key_file.chmod(0o600)
        self.servers: list[Server] = []

    def start(self, count: int, *arguments: str, signed: bool = True, workers: int = 2) -> None:
        """Start servers and wait until each of them hears orders."""
        who = f"--amqp-key-file={self.key_file}" if signed else "--amqp-allow-unsigned"
        first = len(self.servers)
        for number in range(first, first + count):
            folder = self.root / f"server{number}"
            folder.mkdir()
            put(folder / "myapp.py", APPLICATION.format(version="v0"))
            self.servers.append(
                Server(
                    folder,
                    f"--workers={workers}",
                    "--no-watch",
                    f"--amqp={self.broker.url}",
                    f"--amqp-exchange={self.exchange}",
                    f"--release-root={self.releases}",
                    who,
                    *arguments,
                    "myapp:create_app",
                    env={"SERVER": str(number)},
                )
            )
        for server in self.servers[first:]:
            server.wait_ready(workers, 120)
        for server in self.servers[first:]:
            server.wait_for_log("orders are heard from", 60)

    def close(self) -> None:
        """Stop all servers."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.callback(server.close)

    def release(self, version: str, head: str = "") -> Path:
        """Write a release; return its folder.

        :param head: what its code begins with, but for the first line.
        """
        folder = self.releases / version
        folder.mkdir()
        first, _, rest = APPLICATION.format(version=version).partition("\n")
        put(folder / "myapp.py", f"{first}\n{head}{rest}")
        return folder

    def publish(self, body: bytes, properties: Any = None) -> None:
        """Send a message as anybody would, with bare pika."""
        connection = self.broker.connect()
        try:
            channel = connection.channel()
            channel.basic_publish(self.exchange, "", body, properties)
        finally:
            with contextlib.suppress(pika.exceptions.AMQPError):
                connection.close()

    def publish_path(self, path: Path, *, append: bool = True) -> None:
        """Send what existing publishers send, byte for byte."""
        text = f'"model_path": "myapp", "is_append_path": {json.dumps(append)}, '
        self.publish(f'{{{text}"physical_path": "{path}"}}'.encode())

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin ``genwsgictl notify`` and don't wait for it."""
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "genwsgi.ctl",
                "notify",
                f"--amqp={self.broker.url}",
                f"--amqp-exchange={self.exchange}",
                f"--key-file={self.key_file}",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def notify(self, *arguments: str, timeout: float = 120.0) -> tuple[int, str]:
        """Run ``genwsgictl notify``; return its status and all that it wrote."""
        process = self.begin(*arguments)
        text, _ = process.communicate(timeout=timeout)
        return process.returncode, text

    def together(self, path: Path, *arguments: str) -> tuple[int, str]:
        """Have all go live with ``path``, or none."""
        expect = f"--expect={len(self.servers)}"
        return self.notify("--all-or-none", expect, f"--path={path}", *arguments)

    def versions(self) -> set[str]:
        """What the servers answer with now, several requests to each."""
        return {server.get().split()[0] for server in self.servers for _ in range(4)}

    def wait_for(self, version: str, timeout: float = 60.0) -> None:
        """Wait until each server answers with ``version`` and nothing else."""
        wait_until(lambda: self.versions() == {version}, timeout, f"{version} everywhere")

    @contextmanager
    def load(self, clients: int = 4) -> Iterator[list[Tally]]:
        """Keep so many clients at each server until the block ends."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(load(server.port, clients=clients, think=0.05))
                for server in self.servers
            ]


@contextmanager
def fleet_of(
    root: Path, broker: Broker, count: int, *arguments: str, signed: bool = True
) -> Iterator[Fleet]:
    """A fleet of ``count`` servers until the block ends."""
    root.chmod(0o755)
    fleet = Fleet(root, broker)
    try:
        fleet.start(count, *arguments, signed=signed)
        yield fleet
    finally:
        fleet.close()


def offences(tallies: list[Tally]) -> list[dict[str, object]]:
    """Everything that must not have happened; empty when all went well."""
    return [tally.offences for tally in tallies if tally.offences]

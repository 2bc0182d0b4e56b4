"""Clients at work while something else is done, each a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.histogram import Histogram
from tests.helpers import wait_until

ROOT = Path(__file__).resolve().parent.parent

#: Requests per second of the second client, which only checks the first.
WITNESS = 25.0

#: How long clients may be at it, in seconds; whoever started them stops them.
LONGEST = 900.0


@dataclass
class Visit:
    """What a client saw.

    :ivar ok: whole 2xx responses.
    :ivar failed: requests without one.
    :ivar closed: connections that the server closed, announced or not.
    :ivar refused: connects that failed.
    :ivar reasons: of these three.
    :ivar first_seen: when each version was first seen, in seconds of the monotonic clock.
    :ivar cpu: the client's share of a processor.
    :ivar times: from each request's arrival to its whole response.
    :ivar late: from each arrival that found a free connection to the request's sending.
    :ivar witness: the times that a second client found.
    """

    ok: int = 0
    failed: int = 0
    closed: int = 0
    refused: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    times: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    witness: Histogram = field(default_factory=Histogram)

    def to_json(self) -> dict[str, Any]:
        """Return what is kept of it."""
        plain = ("ok", "failed", "closed", "refused", "seconds", "cpu", "reasons")
        times = ("times", "late", "witness")
        return {
            **{name: getattr(self, name) for name in plain},
            **{name: getattr(self, name).to_json() for name in times},
        }

    def wait_for(self, version: str, timeout: float = 60.0) -> float:
        """Wait until a response had ``version``; when that was."""
        wait_until(lambda: version in self.first_seen, timeout, f"a response of {version}")
        return self.first_seen[version]


class _Client:
    """One client's process, and a thread that reads what it tells."""

    def __init__(self, visit: Visit, *arguments: str) -> None:
        self._visit = visit
        self._result: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.client", f"--seconds={LONGEST}", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "version" in told:
                self._visit.first_seen.setdefault(told["version"], told["at"])
            else:
                self._result = told

    def stop(self) -> dict[str, Any]:
        """Have it stop when its last response is there, and return what it tells then."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(90)
        self._thread.join(10)
        if not self._result:
            raise AssertionError("the client ended without a result")
        return self._result

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def visiting(port: int, path: str, rate: float, connections: int = 32) -> Iterator[Visit]:
    """Let clients visit until the block ends; the visit is complete only then.

    :param rate: requests per second; a second client adds :data:`WITNESS`.
    """
    visit, seen = Visit(), Visit()
    common = (str(port), f"--path={path}")
    with ExitStack() as stack:
        first = _Client(visit, *common, f"--rate={rate}", f"--connections={connections}")
        stack.callback(first.close)
        second = _Client(seen, *common, f"--rate={WITNESS}", "--connections=2", "--seed=2")
        stack.callback(second.close)
        wait_until(lambda: visit.first_seen and seen.first_seen, 60, "the clients at work")
        yield visit
        told, witness = first.stop(), second.stop()
    for name in ("ok", "seconds", "cpu", "reasons"):
        setattr(visit, name, told[name])
    for name in ("failed", "closed", "refused"):
        setattr(visit, name, told[name] + witness[name])
    visit.times = Histogram.from_json(told["times"])
    visit.late = Histogram.from_json(told["late"])
    visit.witness = Histogram.from_json(witness["times"])

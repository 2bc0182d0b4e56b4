"""How long it takes to go back, from the order to the last worker's word that it has switched.

``python -m benchmarks.rollbacks`` prints the figures: with the replaced generation parked, and from
its snapshot, beside what the builds of the same rollback took.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.deploys import FLASK_PAGE
from genwsgi.ctl.client import Client
from genwsgi.ctl.find import at
from genwsgi.deploy.protocol import OrderOutcome, Outcome, RollbackRequest
from tests.helpers import wait_until
from tests.process.harness import Server, put, serving

#: Longer than all of it takes, in seconds.
LONG = 600

WORKERS = 2

PARKED = ("--park", f"--probation={LONG}")


@dataclass(frozen=True)
class Rollback:
    """One rollback.

    :ivar switched: from the order until the last worker said that it has switched.
    :ivar seconds: until the sender heard of that, when it was written down, too.
    :ivar build: how long the slowest of the workers' builds took; 0 if there was none.
    """

    switched: float
    seconds: float
    build: float


def go_back(server: Server) -> Rollback:
    """Order a rollback to the release before, and wait for its outcome."""
    before = len(server.log())
    request = RollbackRequest(uuid.uuid4().hex[:12], None, "a benchmark")
    client = Client(at(str(server.run_dir)), 30.0)
    started = time.monotonic()
    outcome = client.ask(OrderOutcome, request)
    seconds = time.monotonic() - started
    assert outcome.outcome == Outcome.COMMITTED, outcome
    built = re.findall(r"is built as generation \d+ in ([\d.]+) s", server.log()[before:])
    return Rollback(outcome.seconds, seconds, max(map(float, built), default=0.0))


def rollbacks(root: Path, *options: str, count: int) -> list[Rollback]:
    """Deploy and go back, again and again, on a server of two workers.

    :param root: an empty folder to serve from.
    :param options: further options of the command.
    """
    put(root / "myapp.py", FLASK_PAGE.format(version="v0"))
    found = []
    parked = "--park" in options
    with serving(root, *options, workers=WORKERS) as server:
        for number in range(1, count + 1):
            put(root / "myapp.py", FLASK_PAGE.format(version=f"v{number}"))
            wait_until(lambda number=number: server.get().split()[0] == f"v{number}", 30, "it")  # type: ignore[misc]
            server.wait_for_log(rf"committed: release {2 * number}-")
            found.append(go_back(server))
            assert server.get().split()[0] == "v0"
            # What was left is gone: a collection would be in the way of the next order.
            server.wait_for_log("is collected", count=WORKERS * number * (1 if parked else 2))
    return found


def _ms(seconds: Sequence[float]) -> str:
    median, slowest = 1000 * statistics.median(seconds), 1000 * max(seconds)
    return f"median {median:.1f} ms, slowest {slowest:.1f} ms"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollbacks", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="rollbacks of each kind [20]")
    options = parser.parse_args(arguments)
    _say(f"{os.cpu_count()} processors, Python {platform.python_version()}, two workers, Flask")
    with tempfile.TemporaryDirectory(prefix="genwsgi-bench") as base:
        for name, more in (("parked", PARKED), ("from the snapshot", ())):
            place = Path(base) / name.split()[0]
            place.mkdir()
            found = rollbacks(place, *more, count=options.count)
            _say(f"{name}: {_ms([one.switched for one in found])}")
            _say(f"  until the sender knew: {_ms([one.seconds for one in found])}")
            if any(one.build for one in found):
                _say(f"  the builds: {_ms([one.build for one in found])}")
                _say(f"  beside them: {_ms([one.switched - one.build for one in found])}")


if __name__ == "__main__":
    main()

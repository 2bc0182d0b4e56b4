"""What orders by message cost and keep, with ten servers on this machine and a broker of their own.

``python -m benchmarks.fleet`` prints the figures.  The tests try the same with fewer, for less long
(``tests/process/test_fleet.py``).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.helpers import wait_until
from tests.process.fleet import BROKEN_ON, Fleet, fleet_of, offences
from tests.process.load import Tally
from tests.rabbitmq import Broker, running


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def summary(tallies: list[Tally]) -> str:
    """What the clients of a fleet saw, in a line."""
    requests = sum(tally.ok for tally in tallies)
    slowest = max(tally.slowest for tally in tallies)
    failed = sum(tally.failed + tally.refused for tally in tallies)
    closed = sum(tally.dropped for tally in tallies)
    return (
        f"{requests} requests, {failed} failed, {closed} connections closed, "
        f"slowest {1000 * slowest:.0f} ms"
    )


def _is_at(tally: Tally, enough: int) -> bool:
    return tally.ok >= enough


def latency(root: Path, broker: Broker, count: int) -> bool:
    """From a message of bare pika to the first new response, ``count`` times: soon enough."""
    with fleet_of(root, broker, 1, signed=False) as fleet:
        taken = []
        with fleet.load(8) as tallies:
            for number in range(1, count + 1):
                folder = fleet.release(f"v{number}")
                sent = time.monotonic()
                fleet.publish_path(folder)
                seen = partial(tallies[0].first_seen.get, f"v{number}")
                taken.append((wait_until(seen, 20) or 0.0) - sent)
                # Not in step with what it began: the next one comes into the middle of the load.
                enough = tallies[0].ok + 50
                wait_until(partial(_is_at, tallies[0], enough), 20)
        median, longest = statistics.median(taken), max(taken)
        say(f"message to first new response: median {1000 * median:.0f} ms, "
            f"longest {1000 * longest:.0f} ms; {summary(tallies)}")  # fmt: skip
        return median <= 0.150 and not offences(tallies)


def together(fleet: Fleet, deploys: int) -> bool:
    """Deploy to all or none, one of ten broken, and a broker killed in between, under load."""
    good = True
    count = len(fleet.servers)
    with fleet.load() as tallies:
        taken = []
        for number in range(1, deploys + 1):
            folder = fleet.release(f"v{number}")
            started = time.monotonic()
            status, text = fleet.together(folder)
            taken.append(time.monotonic() - started)
            if status or fleet.versions() != {f"v{number}"}:
                good = False
                say(f"deploy {number}: status {status}, versions {fleet.versions()}\n{text}")
        median, longest = statistics.median(taken), max(taken)
        say(f"{deploys} deploys to {count} servers, all or none: median {median:.2f} s"
            f" for the command, longest {longest:.2f} s")  # fmt: skip
        before = fleet.versions()
        status, text = fleet.together(fleet.release("broken", BROKEN_ON.format(number=count - 1)))
        good &= status == 1 and fleet.versions() == before
        say(f"broken on one: status {status}, versions before {before} and after"
            f" {fleet.versions()}: {text.splitlines()[-1]}")  # fmt: skip
        slow = fleet.release("slow", "import time; time.sleep(3)\n")
        process = fleet.begin(
            "--all-or-none", f"--expect={count}", f"--path={slow}", "--timeout=150"
        )
        for server in fleet.servers:
            server.wait_for_log("deploy by amqp: all modules from .*slow", 60)
        fleet.broker.kill()
        fleet.broker.start()
        text, _ = process.communicate(timeout=200)
        good &= process.returncode == 0 and fleet.versions() == {"slow"}
        said = text.count("  committed  ")
        say(f"broker killed in mid-deploy: status {process.returncode}, {said} outcomes"
            f" reported, versions {fleet.versions()}")  # fmt: skip
    say(f"all of it: {summary(tallies)}")
    return good and not offences(tallies)


def away(root: Path, broker: Broker, seconds: float) -> bool:
    """The broker is away for ``seconds`` under load; tell whether the order is live soon after."""
    with fleet_of(root, broker, 1) as fleet:
        folder = fleet.release("v1")
        with fleet.load(8) as tallies:
            broker.kill()
            time.sleep(seconds)
            publisher = threading.Thread(target=fleet.notify, args=[f"--path={folder}"])
            publisher.start()
            broker.start()
            back = time.monotonic()
            wait_until(lambda: "v1" in tallies[0].versions, 30)
            publisher.join(60)
        after = tallies[0].first_seen["v1"] - back
        say(f"broker away for {seconds:g} s: new response {after:.2f} s after it is back; "
            f"{summary(tallies)}")  # fmt: skip
        return after <= 5.0 and not offences(tallies)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit status is 0 if everything was as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=10)
    parser.add_argument("--deploys", type=int, default=20)
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--away", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, running() as broker:

        def at(name: str) -> Path:
            place = Path(folder) / name
            place.mkdir(mode=0o755)
            return place

        def fleet() -> bool:
            with fleet_of(at("fleet"), broker, options.servers) as servers:
                return together(servers, options.deploys)

        parts: list[Callable[[], bool]] = [
            lambda: latency(at("latency"), broker, options.messages),
            fleet,
            lambda: away(at("away"), broker, options.away),
        ]
        good = [part() for part in parts]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

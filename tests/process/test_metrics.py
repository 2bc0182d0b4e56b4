"""What Prometheus reads of a real server is what its clients have seen."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.harness import (
    APPLICATION,
    COMMITTED,
    Server,
    application,
    put,
    run_command,
    scraped,
    serving,
)
from tests.process.load import load

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

#: The usual application, which fails where it is asked to.
FAILING = APPLICATION.replace(
    "        number, release",
    """\
        if "raise" in environ["QUERY_STRING"]:
            raise ValueError("as ordered")
        if "error" in environ["QUERY_STRING"]:
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        number, release""",
)


#: One that waits at the gate where it is asked to.
WAITING = APPLICATION.replace(
    "        number, release",
    """\
        if environ["QUERY_STRING"] == "wait":
            wait_at_gate("gate")
        number, release""",
)


def samples(where: str) -> Samples:
    """The values that Prometheus understands, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(scraped(where))
        for sample in family.samples
    }


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of that name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (one, has), value in found.items() if one == name and wanted <= has)


@contextmanager
def scraping(where: str) -> Iterator[list[str]]:
    """Scrape again and again; the list grows by each counter that went down."""
    fallen: list[str] = []
    stop = threading.Event()

    def scrape() -> None:
        before: Samples = {}
        while not stop.wait(0.05):
            now = samples(where)
            for key, value in now.items():
                counts = key[0].endswith(("_total", "_count", "_sum", "_bucket"))
                if counts and value < before.get(key, 0.0):
                    fallen.append(f"{key}: {before[key]} -> {value}")
            before = now

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield fallen
    finally:
        stop.set()
        thread.join(20)


def status(server: Server, path: str) -> int:
    """The status of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_every_request_is_counted(tmp_path: Path) -> None:
    """While workers are recycled and code is deployed no counter goes down, and none is lost."""
    put(tmp_path / "myapp.py", FAILING.format(version="v0"))
    where = str(tmp_path / "metrics")
    with serving(tmp_path, f"--metrics=unix:{where}", "--max-requests=50") as server:
        assert stat.S_IMODE(os.stat(where).st_mode) == 0o600
        with scraping(where) as fallen:
            with load(server.port, clients=8, think=0.02) as tally:
                for turn in (1, 2):
                    wait_until(partial(tally.versions.get, f"v{turn - 1}"), 60, "visits")
                    put(tmp_path / "myapp.py", FAILING.format(version=f"v{turn}"))
                    server.wait_for_log(COMMITTED, count=turn)
                wait_until(partial(tally.versions.get, "v2"), 60, "visits")
                server.wait_for_log("Autorestarting worker", count=3)
            for path in ("/?error=1", "/?error=1", "/?raise=1"):
                assert status(server, path) >= 500
            assert tally.failed == 0, tally.offences
            done = tally.ok + 3
            wait_until(lambda: total(samples(where), "genwsgi_requests_total") >= done, what="all")
        found = samples(where)
        assert not fallen
        assert total(found, "genwsgi_requests_total") == done
        assert total(found, "genwsgi_request_duration_seconds_count") == done
        assert total(found, "genwsgi_request_errors_total", kind="status") == 2
        assert total(found, "genwsgi_request_errors_total", kind="exception") == 1
        # A deploy begins anew, under another number, if the worker that builds first is recycled.
        first = server.wait_for_log(r"release (1-\S+) is built")[1]
        live = [first, *re.findall(rf"{COMMITTED}release (\S+) is live", server.log())]
        for version, count in tally.versions.items():
            counted = total(found, "genwsgi_requests_total", release=live[int(version[1:])])
            assert counted == count + (3 if version == "v2" else 0), version
        assert total(found, "genwsgi_orders_total", outcome="committed") == 2
    assert not os.path.exists(where)


def test_what_goes_on_is_seen(tmp_path: Path, shut: Shut) -> None:
    """Requests under way, generations that drain and how long, and no end of the coordinator."""
    put(tmp_path / "myapp.py", AT_GATE + WAITING.format(version="v0"))
    gate = shut("gate")
    with serving(tmp_path, "--metrics=127.0.0.1:0", workers=1) as server:
        where = server.wait_for_log(r"Metrics at: (\S+)")[1]
        slow = threading.Thread(target=server.get, args=("/?wait", 90))
        slow.start()
        in_flight = "genwsgi_requests_in_flight"
        wait_until(lambda: total(samples(where), in_flight, generation="1") == 1, 30, "the request")
        ordered = time.monotonic()
        put(tmp_path / "myapp.py", AT_GATE + WAITING.format(version="v1"))
        server.wait_for_log(COMMITTED)
        committed = time.monotonic()
        draining = {"state": "draining"}
        wait_until(lambda: total(samples(where), "genwsgi_generations", **draining) == 1)
        # The master holds the socket: who comes meanwhile waits for the next coordinator.
        os.kill(server.coordinator(), signal.SIGKILL)
        assert total(samples(where), "genwsgi_release_number") == 2
        # What a worker tells just then is lost with it.
        server.wait_for_coordinator()
        opened = time.monotonic()
        gate.open()
        slow.join(20)
        wait_until(lambda: total(samples(where), "genwsgi_drain_seconds_count") == 1)
        counted = time.monotonic()
        found = samples(where)
        drained = total(found, "genwsgi_drain_seconds_sum")
        assert opened - committed < drained < counted - ordered
        wait_until(lambda: total(samples(where), in_flight) == 0, what="the end of the request")
        assert total(found, "genwsgi_trigger_ok", trigger="watch") == 1
        assert total(found, "genwsgi_worker_memory_bytes") > 1e6


def test_an_address_that_can_not_be_is_told_in_one_line(tmp_path: Path) -> None:
    """The application's own address, or one in use, ends the start with status 2."""
    application(tmp_path, "v0")
    same = run_command(tmp_path, "--bind=127.0.0.1:8123", "--metrics=127.0.0.1:8123", "myapp")
    assert same.returncode != 0
    assert "--metrics 127.0.0.1:8123 is where the application is served" in same.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        used = f"127.0.0.1:{other.getsockname()[1]}"
        taken = run_command(tmp_path, "--bind=127.0.0.1:0", f"--metrics={used}", "myapp")
    assert taken.returncode == 2
    (line,) = taken.stderr.splitlines()
    assert line.startswith(f"genwsgi: --metrics {used} can't be used: Address already in use")

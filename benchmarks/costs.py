"""What generations cost: a build, the memory of one, and requests beside plain gunicorn's.

``python -m benchmarks.costs`` prints the figures.  Throughput is measured in pairs: genwsgi and
gunicorn serve the same page with the same workers, one after the other, then in the other order, so
that whatever else the machine does hits both.  The client is ``wrk`` if it is installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.deploys import FLASK_PAGE
from benchmarks.soak import SUBJECTS
from tests.frameworks.served import serving_site
from tests.helpers import wait_until
from tests.process.harness import put, serving
from tests.process.load import load

#: The same for both servers.
OPTIONS = ("--worker-class=gthread", "--threads=4", "--keep-alive=75", "--workers=2")

#: Connections of the client.
CONNECTIONS = 16

#: A page that costs nothing, so that all there is to see is the server and the middleware.
SMALLEST = """\
V = "{version}"
BODY = V.encode()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
"""


def build_cost(name: str, base: Path, builds: int) -> tuple[list[float], list[int], int]:
    """Swap a site that nobody visits, and say what each build cost.

    :param name: of :data:`benchmarks.soak.SUBJECTS`.
    :param base: an empty folder.
    :return: seconds from the order to the commit, which has two builds, one after the other; the
        memory in bytes that each of several draining generations holds; modules in one.
    """
    subject = SUBJECTS[name]
    with serving_site(name, base, subject.target, setup=subject.setup) as site:
        browser = site.browser()
        subject.prepare(browser)
        subject.enter(browser)
        subject.visit(browser)
        for number in range(1, builds + 1):
            site.deploy(f"v{number}")
        seconds = [
            float(found) for found in re.findall(r"is live after ([\d.]+) s", site.server.log())
        ]
        modules = max(one.modules for one in site.wait_collected().values())
    return seconds, _memory(name, base.with_name(f"{base.name}-memory")), modules


def _memory(name: str, base: Path) -> list[int]:
    """Return how much each generation that is kept alive adds to a worker's memory, in bytes."""
    base.mkdir()
    subject = SUBJECTS[name]
    with serving_site(name, base, subject.target, setup=subject.setup, workers=1) as site:
        browser = site.browser()
        subject.prepare(browser)
        subject.enter(browser)
        subject.visit(browser)
        # A request whose body does not come holds its generation.
        (before,) = site.take_census().values()
        sizes = []
        for number in range(1, 4):
            holder = site.browser()
            holder.cookies.update(browser.cookies)
            holder.begin(subject.form)
            site.deploy(f"v{number}")
            subject.visit(browser)
            (after,) = site.take_census().values()
            sizes.append(after.rss - before.rss)
            before = after
        assert after.tables == 4, "a generation was not held"
    return sizes


@contextmanager
def plain_gunicorn(root: Path, target: str) -> Iterator[int]:
    """Serve with gunicorn itself until the block ends; the port."""
    log_path = root / "gunicorn.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0", *OPTIONS, target],
            cwd=root,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        told = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
        found = wait_until(lambda: told.search(log_path.read_text()), 20, "gunicorn listens")
        booted = "Booting worker with pid"
        wait_until(lambda: log_path.read_text().count(booted) == 2, 20, "its workers")
        assert found is not None
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def throughput(port: int, seconds: float) -> float:
    """Return the requests per second that a server answers on kept-alive connections."""
    wrk = shutil.which("wrk")
    if wrk is None:
        began = time.monotonic()
        with load(port, CONNECTIONS, think=0) as tally:
            wait_until(lambda: time.monotonic() > began + seconds, seconds + 10, "the end")
        return tally.ok / (time.monotonic() - began)
    shown = subprocess.run(
        [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", f"http://127.0.0.1:{port}/"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", shown)
    assert failed is None, shown
    found = re.search(r"Requests/sec:\s+([\d.]+)", shown)
    assert found is not None, shown
    return float(found[1])


def pairs(
    root: Path, text: str, target: str, count: int, seconds: float
) -> list[tuple[float, float]]:
    """Return ``count`` pairs of throughput, genwsgi's and gunicorn's.

    Both servers run all the time, and the idle one does nothing.

    :param seconds: for each measurement.
    """
    put(root / "myapp.py", text.format(version="v0"))
    found = []
    with (
        plain_gunicorn(root, target) as plain,
        serving(root, *OPTIONS, target=target) as server,
    ):
        for port in (plain, server.port):
            throughput(port, 1)
        for number in range(count):
            if number % 2:
                theirs = throughput(plain, seconds)
                ours = throughput(server.port, seconds)
            else:
                ours = throughput(server.port, seconds)
                theirs = throughput(plain, seconds)
            found.append((ours, theirs))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--builds", type=int, default=10, help="of each application [10]")
    parser.add_argument("--pairs", type=int, default=12, help="of each page [12]")
    parser.add_argument("--seconds", type=float, default=4, help="for each measurement [4]")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} processors, Python {platform.python_version()}, two workers, gthread")
    with tempfile.TemporaryDirectory(prefix="genwsgi-costs") as base:
        print("\nnobody visits; a deploy builds in one worker and then in the other")
        print("application  modules  deploy (median)  memory of a generation")
        for name in SUBJECTS:
            place = Path(base) / name
            place.mkdir()
            seconds, sizes, modules = build_cost(name, place, options.builds)
            print(
                f"{name:11}  {modules:7}  {statistics.median(seconds) * 1000:12.0f} ms"
                f"  {statistics.median(sizes) / 2**20:18.1f} MiB",
                flush=True,
            )
        client = "wrk" if shutil.which("wrk") else "a client in Python, which may be the bottleneck"
        print(f"\nthroughput, requests/s, {CONNECTIONS} connections, by {client}")
        print("page       genwsgi  gunicorn  ratio: median  lowest  highest")
        for name, text, target in (
            ("smallest", SMALLEST, "myapp:application"),
            ("flask", FLASK_PAGE, "myapp:create_app()"),
        ):
            place = Path(base) / f"pairs-{name}"
            place.mkdir()
            found = pairs(place, text, target, options.pairs, options.seconds)
            ratios = sorted(ours / theirs for ours, theirs in found)
            print(
                f"{name:9}  {statistics.median(one for one, _ in found):7.0f}"
                f"  {statistics.median(other for _, other in found):8.0f}"
                f"  {statistics.median(ratios):13.3f}  {ratios[0]:6.3f}  {ratios[-1]:7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

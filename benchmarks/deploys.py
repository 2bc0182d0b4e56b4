"""What a deploy costs the clients of a running server, on this machine, now.

``python -m benchmarks.deploys`` prints the figures; the tests ask for the same ones and assert what
must always hold.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import wait_until
from tests.process.harness import application, paced, put, serving
from tests.process.load import Tally, load

#: A page of 100 bytes, its version first.
FLASK_PAGE = """\
V = "{version}"
from flask import Flask, render_template_string


def create_app():
    app = Flask(__name__)

    @app.get("/")
    def page():
        return render_template_string("{{{{ v }}}} {{{{ '.' * dots }}}}", v=V, dots=99 - len(V))

    return app
"""

#: Takes its time at import and says so in its version.
SLOW_IMPORT = """\
V = "{version}"
import time

time.sleep({seconds})


def create_app():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(V)))])
        return [V.encode()]
    return app
"""


@dataclass(frozen=True)
class Series:
    """Many deploys under load.

    :ivar tally: what the clients saw.
    :ivar first: from each rename to the first response of its code, in seconds.
    :ivar releases: the release that each worker serves at the end, by pid.
    :ivar seconds: how long the clients were at it.
    """

    tally: Tally
    first: list[float]
    releases: dict[int, str]
    seconds: float


def deploy_series(
    root: Path,
    text: str | None,
    *arguments: str,
    deploys: int,
    every: float,
    clients: int,
    think: float = 0.01,
) -> Series:
    """Deploy again and again, ``every`` seconds, while ``clients`` clients hold their connections.

    :param root: an empty folder to serve from.
    :param text: an application's source with ``{version}`` in it; ``None``: the tests' usual one.
    :param arguments: options of the command; it runs two workers.
    :param think: between two requests of a client, in seconds on average.
    """

    def write(version: str) -> float:
        """Write the application; when that began."""
        began = time.monotonic()
        if text is None:
            application(root, version)
        else:
            put(root / "myapp.py", text.format(version=version))
        return began

    write("v0")
    with serving(root, *arguments, workers=2) as server:
        started = time.monotonic()
        first: list[float] = []
        with load(server.port, clients, think=think) as tally:
            for number in paced(deploys, every):
                version = f"v{number}"
                renamed = write(version)
                wait_until(lambda version=version: version in tally.first_seen, 30, version)  # type: ignore[misc]
                first.append(tally.first_seen[version] - renamed)
                server.wait_for_log(rf"committed: release {number + 1}-")
        return Series(tally, first, server.releases(), time.monotonic() - started)


def slow_import(root: Path, *arguments: str, seconds: float = 3.0) -> tuple[float, float]:
    """Return the slowest request without a deploy and during that of a module that sleeps.

    :param root: an empty folder to serve from.
    :param seconds: how long the module sleeps at import; in each of the two workers.
    """
    put(root / "myapp.py", SLOW_IMPORT.format(version="v0", seconds=0))
    with serving(root, *arguments, workers=2) as server:
        with load(server.port, clients=16) as tally:
            wait_until(lambda: tally.ok >= 200, 30, "the clients at work")
            tally.take_slowest()
            for _ in paced(1, 2 * seconds):
                quiet = tally.take_slowest()
            put(root / "myapp.py", SLOW_IMPORT.format(version="v1", seconds=seconds))
            server.wait_for_log(r"committed: release 2-")
            during = tally.take_slowest()
        assert not tally.offences, tally.offences
    return quiet, during


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploys", description=__doc__)
    parser.add_argument("--deploys", type=int, default=50, help="in each series under load [50]")
    parser.add_argument("--clients", type=int, default=32, help="in each series under load [32]")
    options = parser.parse_args(arguments)
    _say(f"{os.cpu_count()} processors, Python {platform.python_version()}, two workers")
    with tempfile.TemporaryDirectory(prefix="genwsgi-bench") as base:

        def room(name: str) -> Path:
            place = Path(base) / name
            place.mkdir()
            return place

        _say(f"\n{options.clients} keep-alive clients, {options.deploys} deploys, 0.5 s apart")
        _say("worker    requests   per s  failed  dropped  refused  versions  slowest  first new")
        for worker in ("gthread", "gevent", "sync"):
            series = deploy_series(
                room(worker),
                None,
                f"--worker-class={worker}",
                deploys=options.deploys,
                every=0.5,
                clients=options.clients,
            )
            tally = series.tally
            # A sync worker closes each connection after its response; that is how it works.
            dropped = "-" if worker == "sync" else str(tally.dropped)
            _say(
                f"{worker:8}  {tally.ok:8}  {tally.ok / series.seconds:6.0f}  {tally.failed:6}"
                f"  {dropped:>7}  {tally.refused:7}  {len(tally.versions):8}"
                f"  {_ms(tally.slowest):>7}  {_ms(statistics.median(series.first)):>9}"
            )
            assert len(set(series.releases.values())) == 1, series.releases

        series = deploy_series(room("flask"), FLASK_PAGE, deploys=20, every=0.5, clients=4)
        _say("\nfrom the rename to the first response of the new code, a Flask page, 20 times")
        _say(
            f"median {_ms(statistics.median(series.first))}, "
            f"fastest {_ms(min(series.first))}, slowest {_ms(max(series.first))}"
        )

        _say("\nthe slowest request while a module that sleeps 3 s at import is deployed")
        for worker in ("gthread", "gevent"):
            quiet, during = slow_import(room(f"slow-{worker}"), f"--worker-class={worker}")
            _say(f"{worker:8}  without a deploy {_ms(quiet)}, during it {_ms(during)}")


if __name__ == "__main__":
    main()

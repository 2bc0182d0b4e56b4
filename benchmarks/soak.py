"""Very many swaps of a real application under load, and what is left of the old generations.

``python -m benchmarks.soak flask --swaps 1000`` and ``… django --swaps 300`` print a table and end
with 1 if a rule was broken: no failed request and no closed connection, no mixed version, every old
generation collected; threads, log handlers, open files and exit callbacks as after the first swap;
memory after the last swap within 5 % of that after the 20th.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.frameworks import test_django, test_flask
from tests.frameworks.served import Browser, Census, differences, serving_site, visiting

#: Memory after this many swaps is what the later ones are compared with.
SETTLED = 20

#: How much more memory there may be after the last swap.
GROWTH = 0.05

#: How many visitors there are; fewer than the server has threads.
VISITORS = 3


@dataclass(frozen=True)
class Subject:
    """A site, and how it is visited.

    :ivar visit: looks at pages and sends forms; returns their version.
    :ivar enter: what a visitor does first.
    :ivar form: where a form is sent to.
    :ivar prepare: what the first visitor does before that.
    """

    target: str
    form: str
    visit: Callable[[Browser], str]
    enter: Callable[[Browser], object]
    prepare: Callable[[Browser], object] = lambda _: None
    setup: str = ""


SUBJECTS = {
    "flask": Subject(
        "shop",
        "/notes",
        test_flask.visit,
        lambda browser: browser.post("/login", {"user": "ann"}),
        lambda browser: browser.post("/setup", {}),
    ),
    "django": Subject(
        "project.wsgi", "/", test_django.visit, test_django.log_in, setup="setup_site"
    ),
}


@dataclass
class Soak:
    """What a soak has found.

    :ivar seen: swap → each worker's census.
    :ivar visits: how many there were.
    :ivar missed: versions that no visitor saw.
    :ivar broken: the rules that were broken, in words.
    """

    swaps: int
    seen: dict[int, dict[int, Census]] = field(default_factory=dict)
    visits: int = 0
    missed: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


def soak(
    name: str,
    base: Path,
    swaps: int,
    *arguments: str,
    every: Callable[[int, dict[int, Census]], object] = lambda *_: None,
) -> Soak:
    """Swap ``swaps`` times under load and look what is left.

    :param name: of :data:`SUBJECTS`.
    :param base: an empty folder.
    :param every: told of each census: the swap, and each worker's.
    :raises tests.frameworks.served.Offence: a visitor saw something that must not happen.
    """
    subject, result = SUBJECTS[name], Soak(swaps)
    began = time.monotonic()
    with ExitStack() as stack:
        site = stack.enter_context(
            serving_site(name, base, subject.target, *arguments, setup=subject.setup)
        )
        browsers = [site.browser() for _ in range(VISITORS)]
        subject.prepare(browsers[0])
        for browser in browsers:
            subject.enter(browser)
        visits = stack.enter_context(visiting(browsers, subject.visit))
        visits.wait_for("v0", VISITORS)
        for number in range(1, swaps + 1):
            site.deploy(f"v{number}")
            visits.wait_for(f"v{number}")
            if number in (1, SETTLED, swaps) or number % 50 == 0:
                result.seen[number] = site.wait_collected()
                every(number, result.seen[number])
        result.visits = visits.versions.total()
        result.missed = swaps + 1 - len(visits.versions)
    result.seconds = time.monotonic() - began
    check(result)
    return result


def check(result: Soak) -> None:
    """Write down which rules were broken."""
    first, last = result.seen[1], result.seen[result.swaps]
    result.broken += differences(first, last)
    for pid, before in result.seen.get(SETTLED, {}).items():
        if pid in last and last[pid].rss > before.rss * (1 + GROWTH):
            grown = last[pid].rss / before.rss - 1
            result.broken.append(f"worker {pid}: memory grew by {grown:.1%}")


def _row(number: int, seen: dict[int, Census]) -> None:
    for pid, one in seen.items():
        print(
            f"{number:5}  {pid:7}  {one.rss / 2**20:7.1f}  {one.tables:11}  {len(one.threads):7}"
            f"  {one.handlers:8}  {one.files:5}  {one.atexit:6}  {one.blocks:8}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("name", choices=sorted(SUBJECTS))
    parser.add_argument("--swaps", type=int, default=100)
    options, rest = parser.parse_known_args(arguments)
    print(" swap   worker  RSS MiB  generations  threads  handlers  files  atexit    blocks")
    base = Path(tempfile.mkdtemp(prefix="genwsgi-soak"))
    try:
        result = soak(options.name, base, options.swaps, *rest, every=_row)
    except BaseException:
        # What the server has said of it would go with the folder.
        print(f"ended before its end; the folder of the site stays, with its log: {base}")
        raise
    shutil.rmtree(base)
    print(
        f"{result.swaps} swaps and {result.visits} visits in {result.seconds:.0f} s;"
        " no request failed, no connection was closed, no version was mixed"
    )
    for rule in result.broken:
        print(f"BROKEN: {rule}")
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())

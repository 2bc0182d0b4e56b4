"""``python -m benchmarks``: what a deploy costs, beside other servers, as a document."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks.cases import (
    freshness,
    growth,
    idle,
    latency,
    memory,
    middleware,
    sync,
    throughput,
)
from benchmarks.goals import GOALS
from benchmarks.plan import Plan, slowness
from benchmarks.plots import PLOTS
from benchmarks.report import comparable, findings, regressions, render
from benchmarks.results import Results, machine
from benchmarks.section import Section

ROOT = Path(__file__).resolve().parent.parent

#: Where the report, its plots and its data are.
DOCUMENT = ROOT / "docs" / "performance.md"
FOLDER = ROOT / "docs" / "performance"
RESULTS = FOLDER / "results.json"

#: In the order in which they are measured and shown.
CASES = {
    "throughput": throughput,
    "middleware": middleware,
    "latency": latency,
    "freshness": freshness,
    "memory": memory,
    "idle": idle,
    "growth": growth,
    "sync": sync,
}

#: What --quick measures.
QUICK = ("throughput", "latency", "freshness")

DESCRIPTION = """\
Measures the cases one after the other and writes docs/performance.md with its plots. Nothing is
installed; servers that are not there are left out. What was measured is kept as soon as a case has
ended, and a later run of some cases on the same machine adds to it. The exit status is 1 if a part
could not be measured or, with --quick, if something is grossly worse than what is kept."""


def measure(names: Sequence[str], plan: Plan, results: Results, path: Path | None) -> None:
    """Measure the cases, each of which is kept whatever becomes of the others.

    :param path: of the results file; ``None``: they are not kept.
    """
    for name in names:
        plan.failures = []
        began = time.monotonic()
        results.cases[name] = {}
        try:
            with plan.part(f"== {name}"):
                CASES[name].measure(plan, results.cases[name])
        finally:
            results.failures[name] = plan.failures
            results.took[name] = time.monotonic() - began
            if path is not None:
                results.write(path)
        plan.say(f"-- {name}: {results.took[name]:.0f} s")


def sections(results: Results) -> list[Section]:
    """Return what every measured case has to say; one that can't say it is a failure of its own."""
    found = []
    for name, case in CASES.items():
        if results.cases.get(name):
            try:
                found.append(case.summary(results.cases[name]))
            except Exception as error:  # noqa: BLE001 -- in the report, which has all others
                line = f"{name}: not enough was measured to be shown ({error!r})"
                if line not in results.failures.setdefault(name, []):
                    results.failures[name].append(line)
    return found


def write(results: Results, document: Path, folder: Path) -> None:
    """Write the report and its plots; plots that can't be drawn are said."""
    folder.mkdir(parents=True, exist_ok=True)
    told = sections(results)
    document.write_text(render(results, told, folder.name))
    if importlib.util.find_spec("matplotlib") is None:
        print("matplotlib is not installed: the plots are as they were")
        return
    for name, draw in PLOTS.items():
        if results.cases.get(name):
            try:
                draw(results.cases[name], folder)
            except Exception as error:  # noqa: BLE001 -- told; the others are drawn
                print(f"no plot of {name}: not enough was measured ({error!r})")


def quick(names: Sequence[str], plan: Plan, path: Path) -> int:
    """Measure little, print it, and return 1 if it is grossly worse than what ``path`` holds.

    What is worse is measured once more, and the better figures count: a machine may be busy for a
    moment.  Where it is busy for longer its times are not compared.  A failed request or a closed
    connection is never made good.
    """
    kept = Results.read(path)
    known = findings(sections(kept))

    def worse(slow: float) -> list[str]:
        return regressions(now, comparable(known, kept.machine, machine(), slow))

    now, wrong, slow = _little(names, plan)
    if worse(slow):
        print("\nonce more, for something is worse")
        again, more, then = _little(names, plan)
        now = {name: GOALS[name].better(now.get(name, one), one) for name, one in again.items()}
        wrong += more
        slow = max(slow, then)
    wrong += worse(slow)
    print(f"a computation took {slow:.1f} times as long as it computed")
    for name, figure in now.items():
        print(f"{GOALS[name].what}: {GOALS[name].shown(figure)}")
    for line in wrong:
        print(f"WORSE: {line}")
    return 1 if wrong else 0


def _little(names: Sequence[str], plan: Plan) -> tuple[dict[str, float], list[str], float]:
    """Measure little and print it.

    :returns: the figures that have goals, what failed, and how slow the machine was at most.
    """
    results = Results.begin(Path("/nonexistent"))
    slow = [slowness()]
    for name in names:
        measure([name], plan, results, None)
        slow.append(slowness())
    told = sections(results)
    for section in told:
        print(f"\n{section.title}")
        for row in (section.head, *section.rows):
            print("  ".join(cell.rjust(12) for cell in row))
    failed = [line for lines in results.failures.values() for line in lines]
    return findings(told), failed, max(slow)


def _end(_number: int, _frame: FrameType | None) -> None:
    # An exception, so that everything that was started is ended.
    sys.exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=DESCRIPTION)
    parser.add_argument("case", nargs="*", help=f"{', '.join(CASES)} [all]")
    parser.add_argument("--rounds", type=int, help="in which pairs are compared [10]")
    parser.add_argument("--seconds", type=float, help="for each measurement under load [5]")
    parser.add_argument("--quick", action="store_true", help="measure little and write nothing")
    parser.add_argument("--render", action="store_true", help="only write the report again")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="the report")
    options = parser.parse_args(arguments)
    unknown = set(options.case) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    folder = options.document.with_suffix("")
    if options.render:
        if not options.results.exists():
            parser.error(f"{options.results}: nothing is measured yet; run it without --render")
        write(Results.read(options.results), options.document, folder)
        return 0
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="genwsgi-bench") as base:
        # What servers remember of their deploys is no business of the user's.
        os.environ["XDG_STATE_HOME"] = base
        plan = Plan(Path(base), quick=options.quick)
        plan.rounds = options.rounds or (2 if options.quick else 10)
        plan.seconds = options.seconds or (3.0 if options.quick else 5.0)
        if options.quick:
            return quick(options.case or QUICK, plan, options.results)
        results = Results.begin(options.results)
        try:
            measure(options.case or list(CASES), plan, results, options.results)
        finally:
            write(results, options.document, folder)
    failed = [line for lines in results.failures.values() for line in lines]
    for line in failed:
        print(f"FAILED: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

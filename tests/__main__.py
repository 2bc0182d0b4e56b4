"""``python -m tests``: every check that a change has to pass, with a summary."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

from tests.jobs import ROOT, Done, Job, run_all
from tests.plan import ENVIRONMENTS, LONG, Plan, checks
from tests.pythons import SUPPORTED, Pythons, find

#: How many files of tests run at a time: one more than can work, for there is one that only waits.
AT_ONCE = len(os.sched_getaffinity(0)) + 1

DESCRIPTION = """\
Runs ruff, mypy, import-linter and interrogate, the tests of isolation on every other CPython that
is found, and all tests under coverage. With arguments of pytest's (paths, -k …) it runs pytest with
those and nothing else. The exit status is 0 only if everything passed."""


def lacking(pythons: Pythons) -> str:
    """Return what is to be done before isolation is tried on as many CPythons as it has to be."""
    # On somebody's own machine one is fine; a change that lands was tried on two.
    if len(pythons.found) > 1 or os.environ.get("CI") != "true":
        return ""
    first, last = min(SUPPORTED), max(SUPPORTED)
    return (
        f"CI is true, and only CPython {pythons.version} is found here: "
        f"install another CPython of 3.{first} to 3.{last}, for example with pyenv, or unset CI"
    )


def run(name: str, jobs: list[Job], at_once: int = AT_ONCE) -> list[Done]:
    """Run ``jobs`` below a line that names them, tell how each went, and return that."""
    print(f"\n== {name}", flush=True)
    begun = time.monotonic()
    done = []
    with closing(run_all(jobs, at_once)) as ended:
        for one in ended:
            print(one, flush=True)
            done.append(one)
    print(f"-- {name}: {time.monotonic() - begun:.1f} s", flush=True)
    return done


def counts(results: Path, broken: int = 0) -> str:
    """Return ``N passed, N failed, N skipped`` for all JUnit XML below a folder.

    :param broken: commands that did not get as far as that.
    """
    total = Counter(errors=broken, tests=broken)
    for path in results.rglob("*.xml"):
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):
            for name in ("tests", "failures", "errors", "skipped"):
                total[name] += int(suite.get(name, "0"))
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    return f"{passed} passed, {failed} failed, {total['skipped']} skipped"


def main() -> int:
    """Do what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=DESCRIPTION)
    parser.add_argument("--quick", action="store_true", help="leave out the tests of processes")
    options, rest = parser.parse_known_args()
    if rest:
        ignored = [f"--ignore=tests/{name}" for name in LONG] if options.quick else []
        pytest = [sys.executable, "-m", "pytest", *ignored, *rest]
        return subprocess.run(pytest, cwd=ROOT, check=False).returncode and 1
    pythons = find()
    print(f"found: {', '.join(sorted(pythons.found))}", flush=True)
    if lack := lacking(pythons):
        print(lack, file=sys.stderr)
        return 1
    # Either ends what runs; a shell may have had the first ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch, "results")
        plan = Plan(pythons, results, Path(scratch), options.quick)
        done = run("checks", checks())
        if all(one.good for one in done if one.job == ENVIRONMENTS):
            done += (begun := run("collection", plan.begin()))
            if all(one.good for one in begun):
                done += run("tests", plan.together())
                done += run("tests that measure", plan.alone(), at_once=1)
                done += run("coverage", plan.end(), at_once=1)
        failed = [one for one in done if not one.good]
        for one in failed:
            print(f"\n== {one.job.name}\n{one}")
        print(f"\n== summary\n{len(done) - len(failed)} commands passed, {len(failed)} FAILED")
        for one in failed:
            print(f"FAILED  {one.job.name}")
        for version in pythons.found:
            print(f"on {version}: {counts(results / version)}", flush=True)
        # Of pytest's and of all checks' statuses 0 and 1 are the ones with a result.
        print(counts(results, sum(one.status not in (0, 1) for one in done)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

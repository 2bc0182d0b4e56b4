"""``python -m tests``: every check that a change has to pass, in order, with a summary."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from tests.pythons import environment, find_others

ROOT = Path(__file__).resolve().parent.parent

#: Environments of the other CPythons, kept from one run to the next.
CACHE = ROOT / ".tests-cache"

#: What can differ from one CPython to another in ways that matter: how modules are imported.
ISOLATION = ("tests/generations", "tests/isolation", "tests/test_build.py", "tests/hotupdate")

#: While an exception sent to a blocked thread has not arrived there, this CPython enters no
#: function that is traced: a measured worker would hang as soon as it gives up such a build.
CANT_MEASURE = "3.11"

#: The folders of tests that --quick leaves out.
QUICK = ("process", "frameworks")

DESCRIPTION = """\
Runs ruff, mypy, import-linter and interrogate, the tests of isolation on every other CPython that
is found, and all tests under coverage. With arguments of pytest's (paths, -k …) it runs pytest with
those and nothing else. The exit status is 0 only if everything passed."""


def run(*command: str | Path, output: IO[str] | None = None) -> bool:
    """Run ``command`` in the project's folder; tell whether it succeeded.

    :param output: gets what it prints, which is shown at once otherwise.
    """
    done = subprocess.run(
        command, cwd=ROOT, check=False, stdout=output, stderr=output and subprocess.STDOUT
    )
    return done.returncode == 0


def module(*arguments: str) -> bool:
    """Run ``python -m`` with ``arguments``; tell whether it succeeded."""
    return run(sys.executable, "-m", *arguments)


def prepare(version: str, python: str, extra: str, output: IO[str] | None = None) -> str | None:
    """Return another CPython's environment with the project and ``extra``; ``None``: it failed."""
    try:
        inside = environment(CACHE / version, python)
    except subprocess.CalledProcessError as error:
        print(error, file=output, flush=True)
        return None
    install = ("-m", "pip", "install", "--quiet", "--editable", f".[{extra}]")
    return inside if run(inside, *install, output=output) else None


def isolation(others: dict[str, str]) -> bool:
    """Run the tests of isolation on the other CPythons, as many at once as there are processors.

    Each file in a process of its own: when very many of these tests come together in one, the
    collector of CPython 3.12.1 has ended in an endless loop over a free list of its ``_asyncio``.
    """
    files = sorted(file for path in ISOLATION for file in _test_files(ROOT / path))
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider")

    def on(version: str, python: str) -> bool:
        begun = time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            inside = prepare(version, python, "isolation-test", output)
            passed = [inside and run(inside, *pytest, file, output=output) for file in files]
            good = all(passed)
            output.seek(0)
            took = time.monotonic() - begun
            outcome = "passed" if good else "FAILED"
            # In one piece: the others print as well.
            print(f"{output.read()}-- on {version}: {outcome}, {took:.1f} s\n", end="", flush=True)
        return good

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return all([*pool.map(on, others.keys(), others.values())])


def _test_files(path: Path) -> list[Path]:
    """Return the files with tests that ``path`` is, or that are below it."""
    return [path] if path.is_file() else list(path.rglob("test_*.py"))


def enough(versions: list[str]) -> bool:
    """Tell whether isolation is tried on as many CPythons as it has to be."""
    print(f"found: {', '.join(sorted(versions))}", flush=True)
    # On somebody's own machine one is fine; a change that lands was tried on two.
    return len(versions) > 1 or os.environ.get("CI") != "true"


class Main:
    """The run of all tests, and the measure of what they cover.

    Each file in a process of its own, so that no test meets what another file's has loaded.

    :param version: of the CPython that runs them.
    :param python: that CPython.
    :param results: the folder where pytest writes its results, as JUnit XML, a file for each file.
    :param quick: without the tests of processes, and so without the gate.
    """

    def __init__(self, version: str, python: str, results: Path, quick: bool) -> None:
        self.version = version
        self.gate = not quick and version != CANT_MEASURE
        self.files = sorted(_test_files(ROOT / "tests"))
        if quick:
            self.files = [file for file in self.files if not set(file.parts) & set(QUICK)]
        self._python = python
        self._results = results

    def test(self) -> bool:
        """Run the tests, under coverage where this CPython can."""
        if self._python != sys.executable:
            inside = prepare(self.version, self._python, "test")
            if inside is None:
                return False
            self._python = inside
        command = [self._python, "-m", "pytest", "-q"]
        if self.version == CANT_MEASURE:
            print(f"coverage is not measured: {self.version} can't, and is the only CPython here")
        elif run(self._python, "-m", "coverage", "erase"):
            command = [self._python, "-m", "coverage", "run", "-m", "pytest", "-q"]
        else:
            return False
        passed = [
            run(*command, f"--junit-xml={self._results / str(number)}.xml", file)
            for number, file in enumerate(self.files)
        ]
        return all(passed)

    def cover(self) -> bool:
        """Join what each process measured and report it, against the gate in setup.cfg."""
        combined = run(self._python, "-m", "coverage", "combine", "--quiet")
        return combined and run(self._python, "-m", "coverage", "report")


def counts(results: Path, files: int) -> str:
    """Return ``N passed, N failed, N skipped`` for a folder of JUnit XML, one for each of so many.

    A file whose pytest did not get to its end counts as one that failed.
    """
    total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    ended = 0
    for path in results.glob("*.xml"):
        try:
            suites = ElementTree.parse(path).getroot().findall("testsuite")
        except ElementTree.ParseError:
            continue
        ended += 1
        for suite in suites:
            for name in total:
                total[name] += int(suite.get(name, "0"))
    failed = total["failures"] + total["errors"] + files - ended
    passed = total["tests"] - total["failures"] - total["errors"] - total["skipped"]
    return f"{passed} passed, {failed} failed, {total['skipped']} skipped"


def main() -> int:
    """Do what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=DESCRIPTION)
    parser.add_argument("--quick", action="store_true", help="leave out the tests of processes")
    options, rest = parser.parse_known_args()
    if rest:
        ignored = [f"--ignore=tests/{name}" for name in QUICK] if options.quick else []
        return 0 if module("pytest", *ignored, *rest) else 1
    pythons = {f"3.{sys.version_info.minor}": sys.executable, **find_others()}
    # The running CPython is the first, and the one for all tests if it can be.
    version = next((v for v in pythons if v != CANT_MEASURE), CANT_MEASURE)
    others = {other: python for other, python in pythons.items() if other != version}
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch)
        tests = Main(version, pythons[version], results, options.quick)
        steps: list[tuple[str, Callable[[], bool]]] = [
            ("ruff check", lambda: module("ruff", "check")),
            ("ruff format", lambda: module("ruff", "format", "--check")),
            ("mypy", lambda: module("mypy")),
            ("import-linter", lambda: run(Path(sys.executable).with_name("lint-imports"))),
            ("interrogate", lambda: module("interrogate", "--verbose", "tests")),
            ("CPythons", lambda: enough(list(pythons))),
            *([(f"isolation on {', '.join(others)}", lambda: isolation(others))] if others else []),
            (f"tests on {version}", tests.test),
        ]
        if tests.gate:
            steps.append(("coverage", tests.cover))
        passed = [perform(*step) for step in steps]
        print("\n== summary")
        for (name, _), good in zip(steps, passed, strict=True):
            print(f"{'passed' if good else 'FAILED'}  {name}")
        print(counts(results, len(tests.files)), flush=True)
    return 0 if all(passed) else 1


def perform(name: str, step: Callable[[], bool]) -> bool:
    """Do one step between a line that names it and one that tells how it went."""
    print(f"\n== {name}", flush=True)
    begun = time.monotonic()
    good = step()
    outcome = "passed" if good else "FAILED"
    print(f"-- {name}: {outcome}, {time.monotonic() - begun:.1f} s", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())

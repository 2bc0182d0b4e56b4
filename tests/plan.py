"""What is run on which CPython, in which order, and what may run at the same time."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from tests.jobs import DEADLINE, ROOT, Job
from tests.pythons import CANT_MEASURE, SUPPORTED, Pythons

#: What can differ from one CPython to another in ways that matter: how modules are imported.
ISOLATION = ("tests/generations", "tests/isolation", "tests/test_build.py", "tests/hotupdate")

#: The folders of tests that --quick leaves out, and that are begun first: they take the longest.
LONG = ("process", "frameworks")

#: Files that need the machine for themselves: what they measure is in the way of what others do.
ALONE = {
    "tests/process/test_pauses.py": "how long requests take while a deploy goes on",
}

#: A few of the benchmarks, which fail only if something is grossly worse than it was.
BENCHMARKS = Job("benchmarks", (sys.executable, "-m", "benchmarks", "--quick"))

#: Tests that are not measured, by folder or file: they run hardly a line that no others do, and a
#: tracer makes large sites, and servers under load, slow.
UNMEASURED = {
    "frameworks",
    "test_load.py",
    "test_pauses.py",
    "test_recycling.py",
    "test_streams.py",
}

#: Modules are compiled once, and never those that tests write: one of the same size, written within
#: the same second, would pass for the one before.
COMPILE = {"PYTHONDONTWRITEBYTECODE": ""}
COMPILED = {"PYTHONDONTWRITEBYTECODE": "1"}

#: Makes what the tests on other CPythons run in, one after the other: each has a deadline's time.
ENVIRONMENTS = Job(
    "environments",
    (sys.executable, "-m", "tests.pythons"),
    deadline=DEADLINE * len(SUPPORTED),
)


def checks() -> list[Job]:
    """Return what comes before the tests, the longest first."""
    module = (sys.executable, "-m")
    return [
        ENVIRONMENTS,
        Job("mypy", (*module, "mypy")),
        Job("import-linter", (Path(sys.executable).with_name("lint-imports"),)),
        Job("interrogate", (*module, "interrogate", "--verbose", "tests")),
        Job("ruff check", (*module, "ruff", "check")),
        Job("ruff format", (*module, "ruff", "format", "--check")),
    ]


class Plan:
    """All tests on one CPython, and those of isolation on the others.

    Each file in a process of its own, so that no test meets what another file's has loaded.

    :param results: the folder where pytest writes its results as JUnit XML: a folder for each
        version, with a file for each job.
    :param scratch: where each job has a folder for what its tests make; with a short path.
    :param quick: without the tests of processes, and so without the gate.
    """

    def __init__(self, pythons: Pythons, results: Path, scratch: Path, quick: bool) -> None:
        self.gate = not quick and pythons.version != CANT_MEASURE
        self._pythons = pythons
        self._results = results
        self._scratch = scratch
        self._numbers = count()
        self._left_out = set(LONG) if quick else set()
        self._python = pythons.inside(pythons.version)
        self._files = self._below("tests")

    def begin(self) -> list[Job]:
        """Return what compiles the modules for each CPython, and clears old measurements away."""
        jobs = [
            Job(
                f"collection on {version}",
                (self._pythons.inside(version), *_pytest("--collect-only", "-qq", *paths)),
                COMPILE,
            )
            for version in self._pythons.found
            for paths in [["tests"] if version == self._pythons.version else ISOLATION]
        ]
        erase = Job("coverage erase", (self._python, "-m", "coverage", "erase"))
        return [*jobs, erase] if self.gate else jobs

    def together(self) -> list[Job]:
        """Return what can run beside others, the longest first."""
        files = [file for file in self._files if file not in ALONE]
        long = [file for file in files if set(Path(file).parts) & set(LONG)]
        return [
            *self._main(long),
            *self._main(file for file in files if file not in long),
            *(
                self._job(file, version, self._pythons.inside(version))
                for version in self._pythons.others
                for file in self._below(*ISOLATION)
            ),
        ]

    def alone(self) -> list[Job]:
        """Return what runs when nothing else does."""
        tests = self._main(file for file in self._files if file in ALONE)
        return [*tests, BENCHMARKS] if self.gate else tests

    def end(self) -> list[Job]:
        """Return what joins and reports what each process measured, against setup.cfg's gate."""
        coverage = (self._python, "-m", "coverage")
        combine = Job("coverage combine", (*coverage, "combine", "--quiet"))
        return [combine, Job("coverage report", (*coverage, "report"))] if self.gate else []

    def _main(self, files: Iterable[str]) -> list[Job]:
        coverage = ("-m", "coverage", "run")
        version = self._pythons.version
        return [
            self._job(file, version, self._python, *(coverage if self._is_measured(file) else ()))
            for file in files
        ]

    def _is_measured(self, file: str) -> bool:
        return self.gate and not UNMEASURED & set(Path(file).parts)

    def _job(self, file: str, version: str, *python: str) -> Job:
        results = self._results / version / f"{file.replace('/', '.')}.xml"
        # A folder of its own: in one for all of them each would clear away what others are at.  The
        # name is short, because sockets are made in it.
        folder = self._scratch / f"t{next(self._numbers)}"
        command = (*python, *_pytest(f"--junit-xml={results}", f"--basetemp={folder}", file))
        return Job(f"{file} on {version}", command, COMPILED)

    def _below(self, *paths: str) -> list[str]:
        """Return the files with tests that ``paths`` are, or that are below them."""
        found = [
            file.relative_to(ROOT)
            for path in map(ROOT.joinpath, paths)
            for file in ([path] if path.is_file() else path.rglob("test_*.py"))
        ]
        return sorted(str(file) for file in found if not self._left_out & set(file.parts))


def _pytest(*arguments: str | Path) -> tuple[str | Path, ...]:
    # Its cache is for those who run it by hand; here several would write it at once.
    return ("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)

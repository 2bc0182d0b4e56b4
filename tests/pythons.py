"""Every CPython of this machine that genwsgi supports, and a virtual environment for each.

``python -m tests.pythons`` makes these environments, or brings them up to date.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.jobs import ROOT

#: The minor versions of Python 3 that genwsgi supports.
SUPPORTED = (10, 11, 12, 13)

#: Environments of the other CPythons, kept from one run to the next.
CACHE = ROOT / ".tests-cache"

#: While an exception sent to a blocked thread has not arrived there, this CPython enters no
#: function that is traced: a measured worker would hang as soon as it gives up such a build.
CANT_MEASURE = "3.11"

#: Printed by an interpreter that can make a virtual environment.
PROBE = "import ensurepip, sys, venv; print(sys.implementation.name, *sys.version_info[:2])"


@dataclass(frozen=True)
class Pythons:
    """The CPythons of this machine.

    :ivar version: of the one that all tests run on, and are measured on if it can be.
    :ivar found: version → interpreter, the running one first.
    """

    version: str
    found: dict[str, str]

    @property
    def others(self) -> list[str]:
        """The versions that only the tests of isolation run on."""
        return [version for version in self.found if version != self.version]

    def inside(self, version: str) -> str:
        """Return the interpreter of that version's environment; the running one is in its own."""
        python = self.found[version]
        return python if python == sys.executable else str(CACHE / version / "bin" / "python")

    def prepare(self) -> None:
        """Make the environments that are not there, with the project and what its tests need.

        One after the other: each installs the project from the same folder.

        :raises subprocess.CalledProcessError: one can't be made.
        """
        for version, python in self.found.items():
            if python != sys.executable:
                inside = environment(CACHE / version, python)
                extra = "test" if version == self.version else "isolation-test"
                install = ("-m", "pip", "install", "--quiet", "--editable", f".[{extra}]")
                subprocess.run([inside, *install], cwd=ROOT, check=True)


def find() -> Pythons:
    """Look for the CPythons of this machine."""
    found = {f"3.{sys.version_info.minor}": sys.executable, **find_others()}
    # The running CPython is the first, and the one for all tests if it can be.
    return Pythons(next((v for v in found if v != CANT_MEASURE), CANT_MEASURE), found)


def find_others() -> dict[str, str]:
    """Return version → interpreter for the supported CPythons but this one, newest first."""
    found = {}
    for minor in sorted(SUPPORTED, reverse=True):
        if minor == sys.version_info.minor:
            continue
        for candidate in _candidates(f"python3.{minor}"):
            # Asked, because a name can be a shim that starts nothing, or lack ensurepip.
            if _ask(candidate) == f"cpython 3 {minor}":
                found[f"3.{minor}"] = candidate
                break
    return found


def environment(folder: Path, python: str) -> str:
    """Return the interpreter of a virtual environment in ``folder``, made by ``python``.

    :raises subprocess.CalledProcessError: it can't be made.
    """
    inside = folder / "bin" / "python"
    if _ask(str(inside)) != _ask(python):
        # Absent, of another version, or of an interpreter that was removed.
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    return str(inside)


def _candidates(name: str) -> Iterator[str]:
    """Yield the files called ``name`` where interpreters are usually installed."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [
        *map(Path, os.get_exec_path()),
        *sorted((root / "versions").glob("*/bin"), reverse=True),
        Path("/usr/bin"),
        Path("/usr/local/bin"),
        *sorted(Path("/opt").glob("*/bin")),
    ]
    for folder in folders:
        if (folder / name).is_file():
            yield str(folder / name)


def _ask(python: str) -> str:
    """Return what the probe says under ``python``; empty when it can't be run there."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    try:
        find().prepare()
    except subprocess.CalledProcessError as failure:
        sys.exit(str(failure))

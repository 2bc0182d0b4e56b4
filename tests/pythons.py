"""Every CPython of this machine that genwsgi supports, and a virtual environment for each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: The minor versions of Python 3 that genwsgi supports.
SUPPORTED = (10, 11, 12, 13)

#: Printed by an interpreter that can make a virtual environment.
PROBE = "import ensurepip, sys, venv; print(sys.implementation.name, *sys.version_info[:2])"


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

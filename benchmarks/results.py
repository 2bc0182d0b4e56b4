"""The results file: everything that was measured, and where, so that it can be shown again."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Whose versions are told.
PACKAGES = ("genwsgi", "gunicorn", "gevent", "uwsgi", "granian", "flask", "django")


def machine() -> dict[str, str]:
    """Return what is to be known of this machine, and the versions of what is compared."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _first("/proc/cpuinfo", "model name"),
        "processors": str(os.cpu_count()),
        "memory": f"{int(_first('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        **versions,
    }


def _first(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "0"


@dataclass
class Results:
    """What was measured.

    :ivar cases: the data of each case, by its name.
    :ivar failures: of each case's parts, in words.
    :ivar took: how long each case was measured, in seconds.
    :ivar load: the load average when the run began; its own work is not in it.
    :ivar day: of the last measurement, as ISO 8601 has it.
    """

    machine: dict[str, str] = field(default_factory=dict)
    cases: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    load: float = 0.0
    day: str = ""

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return what ``path`` holds; nothing if there is no such file."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    @classmethod
    def begin(cls, path: Path) -> Results:
        """Return what ``path`` holds if it was measured here, to be added to; else nothing."""
        found, here = cls.read(path), machine()
        if found.machine != here:
            found = cls(machine=here)
        found.load = os.getloadavg()[0]
        found.day = time.strftime("%Y-%m-%d")
        return found

    def write(self, path: Path) -> None:
        """Keep it, the old file until the new one is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        beside.write_text(json.dumps(asdict(self), separators=(",", ":")) + "\n")
        os.replace(beside, path)

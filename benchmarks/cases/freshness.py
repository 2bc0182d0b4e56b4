"""From a saved file to the first response of its code, with hardly anybody there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan, pause
from benchmarks.section import Section, median, ms
from benchmarks.servers import KINDS, OURS, Kind, Ours, installed, serving
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.visiting import visiting

APPLICATIONS = ("flask", "django")

#: Requests per second; what is seen first is seen within some 3 ms.
RATE = 200.0

#: Imports an application, forgets what a generation would import afresh, and times it once more.
BARE = """\
import importlib, sys, time
module, scope = sys.argv[1], sys.argv[2:]
importlib.import_module(module)
for name in list(sys.modules):
    if name.partition(".")[0] in scope:
        del sys.modules[name]
began = time.perf_counter()
importlib.import_module(module)
print(time.perf_counter() - began)
"""


def bare(root: Path, subject: Subject, times: int) -> list[float]:
    """Return how long the bare import of what a generation imports afresh takes, in seconds."""
    subject.lay(root)
    explained = subprocess.run(
        [sys.executable, "-m", "genwsgi", "--explain-scope", subject.target],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    scope = re.findall(r"^(\S+) +in ", explained, re.MULTILINE)
    command = [sys.executable, "-c", BARE, subject.target.partition(":")[0], *scope]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return [
        float(subprocess.check_output(command, cwd=root, env=environment, timeout=120))
        for _ in range(times)
    ]


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Measure the bare import, and then each server."""
    kinds = installed(OURS if plan.quick else tuple(KINDS))
    for name in APPLICATIONS[: 1 if plan.quick else None]:
        found: dict[str, Any] = data.setdefault("subjects", {}).setdefault(name, {})
        with plan.part(f"freshness: bare import of {name}"):
            found["bare"] = bare(plan.room(), SUBJECTS[name], 3 if plan.quick else 7)
        found["servers"] = {}
        for kind in kinds:
            with plan.part(f"freshness: {name}, {kind.name}"):
                many = 5 if plan.quick else (plan.rounds if kind.ours else plan.rounds // 2) or 1
                found["servers"][kind.name] = _measure(plan, kind, SUBJECTS[name], many)


def _measure(plan: Plan, kind: Kind, subject: Subject, many: int) -> dict[str, list[float]]:
    first, deployed, committed = [], [], []
    with (
        serving(kind, plan.room(), subject) as running,
        visiting(running.port, "/", RATE, 8) as visit,
    ):
        for number in range(1, many + 1):
            pause(max(0.5, running.rest))
            written = time.monotonic()
            running.deploy(f"v{number}")
            first.append(visit.wait_for(f"v{number}", 120) - written)
            running.wait_deployed()
            deployed.append(time.monotonic() - written)
        if isinstance(running, Ours):
            took = re.findall(r"is live after ([\d.]+) s", running.server.log())
            committed = [float(one) for one in took]
    return {"first": first, "deployed": deployed, "committed": committed}


def summary(data: dict[str, Any]) -> Section:
    """Say how soon new code answers."""
    rows, figures = [], {}
    for name, found in data.get("subjects", {}).items():
        import_takes = median(found.get("bare", []))
        for kind, times in found.get("servers", {}).items():
            first = median(times["first"])
            if kind == "genwsgi gthread" and found.get("bare"):
                figures[f"freshness {name}"] = (first - import_takes) * 1000
            rows.append(
                [
                    f"{name}, {kind}",
                    ms(first),
                    f"{ms(min(times['first']))} to {ms(max(times['first']))}",
                    ms(median(times["deployed"])),
                    ms(median(times["committed"])) if times["committed"] else "-",
                    ms(import_takes),
                ]
            )
    return Section(
        "From a saved file to its first response",
        f"""\
Two workers, {RATE:g} requests/s. The new file is renamed over the old one, which is when the time
begins; the servers that don't look themselves are told at once. *everywhere* is when all workers
have the new code, as far as a server's log tells; *order to commit* leaves out what the file
watch takes. The bare import is that of the modules that a generation imports afresh, in a process
that has all others.""",
        [
            "",
            "first response",
            "fastest to slowest",
            "everywhere",
            "order to commit",
            "bare import",
        ],
        rows,
        figures,
        {"freshness": "From the saved file to the first new response, median."},
    )

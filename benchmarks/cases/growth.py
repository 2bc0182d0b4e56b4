"""How a deploy grows with the application, and with the number of workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan, pause
from benchmarks.section import Section, median, ms
from benchmarks.servers import KINDS, Ours, serving
from benchmarks.subjects import generated
from benchmarks.visiting import visiting

MODULES = (10, 100, 1000, 5000)
WORKERS = (1, 2, 4, 8)

#: Workers while modules grow, and modules while workers grow.
FEW_WORKERS, SOME_MODULES = 2, 100

#: Requests per second meanwhile.
RATE = 100.0

DEPLOYS = 3

#: How long a build may take, in seconds; by default that is less than many modules may need.
LONG = 120


def processor_time(pid: int) -> float:
    """Return the seconds that all threads of a process have had a processor for."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Measure each size of the application, and then each number of workers."""
    data["modules"], data["workers"] = {}, {}
    for modules in MODULES:
        with plan.part(f"growth: {modules} modules"):
            data["modules"][str(modules)] = _measure(plan, modules, FEW_WORKERS)
    for workers in WORKERS:
        with plan.part(f"growth: {workers} workers"):
            data["workers"][str(workers)] = _measure(plan, SOME_MODULES, workers)


def _measure(plan: Plan, modules: int, workers: int) -> dict[str, Any]:
    subject = generated(modules)
    coordinator = []
    kind = KINDS["genwsgi gthread"]
    with serving(kind, plan.room(), subject, f"--build-timeout={LONG}", workers=workers) as running:
        assert isinstance(running, Ours)
        with visiting(running.port, "/", RATE, 8) as quiet:
            pause(plan.seconds)
        with visiting(running.port, "/", RATE, 8) as busy:
            for number in range(1, DEPLOYS + 1):
                before = processor_time(running.server.coordinator())
                running.deploy(f"v{number}")
                running.wait_deployed()
                pause(0.5)
                coordinator.append(processor_time(running.server.coordinator()) - before)
        took = re.findall(r"is live after ([\d.]+) s", running.server.log())
    return {
        "seconds": [float(one) for one in took],
        "coordinator": coordinator,
        "quiet": quiet.to_json(),
        "busy": busy.to_json(),
    }


def summary(data: dict[str, Any]) -> Section:
    """Say how it grows."""
    rows = []
    figures = {}
    each = {}
    for what in ("modules", "workers"):
        for number, found in data[what].items():
            took = median(found["seconds"])
            if what == "modules":
                each[int(number)] = took / int(number)
            rows.append(
                [
                    f"{int(number):,} {what if number != '1' else 'worker'}",
                    ms(took),
                    ms(took / int(number)) if what == "modules" else "-",
                    ms(median(found["coordinator"])),
                    ms(found["quiet"]["times"]["longest"]),
                    ms(found["busy"]["times"]["longest"]),
                    f"{found['busy']['failed'] + found['busy']['closed']}",
                ]
            )
    if len(each) > 1:
        *_, before, last = sorted(each)
        figures["growth modules"] = each[last] / each[before]
    if len(data["workers"]) > 1:
        parts = {int(one): median(found["coordinator"]) for one, found in data["workers"].items()}
        figures["growth workers"] = parts[max(parts)] / parts[min(parts)]
    return Section(
        "Growth",
        f"""\
Generated modules of 40 lines, all imported by the first one, and two workers; then {SOME_MODULES}
modules and so many workers, on {RATE:g} requests/s. From order to commit, median of {DEPLOYS}
deploys; the coordinator's part is the processor time that its process takes for a deploy. The
slowest requests are those without deploys and with them.""",
        [
            "",
            "order to commit",
            "for each module",
            "coordinator",
            "slowest, quiet",
            "slowest, deploys",
            "failed or closed",
        ],
        rows,
        figures,
        {"growth": "Order to commit by modules, and the coordinator's processor time by workers."},
    )

"""What generations weigh: one of them, a deploy at its peak, and what very many leave behind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan, pause
from benchmarks.section import Section, median
from benchmarks.servers import KINDS, serving
from benchmarks.soak import SETTLED, SUBJECTS
from benchmarks.subjects import SUBJECTS as PAGES
from tests.frameworks.served import serving_site

APPLICATIONS = ("flask", "django")

#: Deploys of the long series for each round that pairs are compared in.
DEPLOYS = 100

#: Between two looks at the memory, in deploys.
LOOK = 50

#: How long a replaced generation may take to be collected, in seconds, and a little more.
GONE = 1.5

MIB = 2**20


def resident(pid: int, what: str = "VmRSS") -> int:
    """Return a process's resident memory in bytes, or its peak: ``VmHWM``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{what} of {pid} is not told by this kernel")


def forget_peak(pids: Iterable[int]) -> None:
    """Have the peak of each process be what it takes now."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Measure all three."""
    for name in APPLICATIONS:
        with plan.part(f"memory: one generation of {name}"):
            data.setdefault("generation", {})[name] = held(name, plan.room())
        with plan.part(f"memory: the peak of a deploy of {name}"):
            data.setdefault("peak", {})[name] = peaks(plan, name)
    with plan.part("memory: very many deploys"):
        data["series"] = []
        series(plan, DEPLOYS * plan.rounds, data["series"])


def held(name: str, base: Path) -> list[int]:
    """Return how much each generation that is kept alive adds to a worker's memory, in bytes."""
    subject = SUBJECTS[name]
    with serving_site(name, base, subject.target, setup=subject.setup, workers=1) as site:
        browser = site.browser()
        subject.prepare(browser)
        subject.enter(browser)
        subject.visit(browser)
        # A request whose body does not come holds its generation.
        (before,) = site.take_census().values()
        sizes = []
        for number in range(1, 4):
            holder = site.browser()
            holder.cookies.update(browser.cookies)
            holder.begin(subject.form)
            site.deploy(f"v{number}")
            subject.visit(browser)
            (after,) = site.take_census().values()
            sizes.append(after.rss - before.rss)
            before = after
        assert after.tables == 4, "a generation was not held"
    return sizes


def peaks(plan: Plan, name: str) -> list[list[int]]:
    """Return, for several deploys and the worker that peaks most, bytes before and at the peak."""
    found = []
    with serving(KINDS["genwsgi gthread"], plan.room(), PAGES[name]) as running:
        for number in range(1, 6):
            pids = running.workers()
            before = {pid: resident(pid) for pid in pids}
            forget_peak(pids)
            running.deploy(f"v{number}")
            running.wait_deployed()
            pause(GONE)
            pairs = [[before[pid], resident(pid, "VmHWM")] for pid in pids]
            found.append(max(pairs, key=lambda pair: pair[1] - pair[0]))
    return found


def series(plan: Plan, deploys: int, found: list[list[int]]) -> None:
    """Deploy again and again; add its number and the larger worker's bytes to ``found``."""
    with serving(KINDS["genwsgi gthread"], plan.room(), PAGES["flask"]) as running:
        for number in range(1, deploys + 1):
            running.deploy(f"v{number}")
            running.wait_deployed()
            if number == SETTLED or number % LOOK == 0:
                pause(GONE)
                found.append([number, max(resident(pid) for pid in running.workers())])
                if number % (2 * LOOK) == 0:
                    plan.say(f"  {number} of {deploys}: {found[-1][1] / MIB:.1f} MiB")


def summary(data: dict[str, Any]) -> Section:
    """Say what generations weigh."""
    rows, figures = [], {}
    for name, sizes in data.get("generation", {}).items():
        rows.append([f"one more generation, {name} site", f"{median(sizes) / MIB:.1f} MiB"])
    for name, pairs in data.get("peak", {}).items():
        added = median([peak - before for before, peak in pairs])
        before = median([before for before, _ in pairs])
        rows.append(
            [
                f"peak of a deploy, {name}, beyond {before / MIB:.0f} MiB",
                f"{added / MIB:.1f} MiB",
            ]
        )
    found = dict(data.get("series", []))
    if SETTLED in found:
        last = max(found)
        grown = (found[last] / found[SETTLED] - 1) * 100
        if last > SETTLED:
            figures["memory"] = grown
        rows.append([f"after {SETTLED} deploys", f"{found[SETTLED] / MIB:.1f} MiB"])
        rows.append([f"after {last:,} deploys", f"{found[last] / MIB:.1f} MiB ({grown:+.1f} %)"])
    return Section(
        "Memory",
        """\
Resident memory of a worker. A further generation is held by a request whose body does not come,
of the sites that the tests serve (the Flask one has a database, the Django one the REST
framework). The peak is the kernel's, of the worker that needs most, and that of the benchmarks'
own small sites, as is the long series of deploys, one as soon as the one before it is live.""",
        ["a worker", "memory"],
        rows,
        figures,
        {"memory": "A worker's memory over very many deploys, the Flask page."},
    )

"""A sync of very many files, as deploy tools write them, and the deploys that it makes."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan, pause
from benchmarks.section import Section, median, ms
from benchmarks.servers import KINDS, Ours, serving
from benchmarks.subjects import Subject, generated
from tests.process.harness import put

FILES = 2000

#: Between two files, in seconds: a local copy, and one over a network.
PACES = {"at once": 0.0, "2 ms apart": 0.002}


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Sync the tree several times at each pace."""
    subject = generated(FILES)
    data["files"] = len(subject.files) + 1
    data["syncs"] = {}
    with (
        plan.part("sync: the server"),
        serving(KINDS["genwsgi gthread"], plan.room(), subject) as running,
    ):
        assert isinstance(running, Ours)
        for pace, apart in PACES.items():
            with plan.part(f"sync: {pace}"):
                data["syncs"][pace] = [
                    _sync(running, subject, apart, f"{pace} {number}")
                    for number in range(max(2, plan.rounds // 3))
                ]


def _sync(running: Ours, subject: Subject, apart: float, mark: str) -> list[float]:
    """Write every file anew; seconds of writing, from the last write to live, and the deploys."""
    root: Path = running.server.root
    before = _committed(running)
    began = time.monotonic()
    for number, name in enumerate(sorted((*subject.files, subject.changing))):
        path = root / name
        put(path, f"{path.read_text().partition('# synced')[0]}# synced {mark}\n")
        # As long as it takes to the next one's turn, without a system call for each look.
        while time.monotonic() < began + number * apart:
            pass
    last = time.monotonic()
    quiet = live = last
    seen = before
    # The last deploy is the one after which nothing more comes.
    while time.monotonic() < quiet + 3 or seen == before:
        if time.monotonic() > last + 120:
            raise AssertionError(f"no deploy after {mark}")
        now = _committed(running)
        if now != seen:
            seen = now
            quiet = live = time.monotonic()
        pause(0.02)
    return [last - began, live - last, float(seen - before)]


def _committed(running: Ours) -> int:
    return len(re.findall(r"committed: release ", running.server.log()))


def summary(data: dict[str, Any]) -> Section:
    """Say how soon and in how many deploys a sync is live."""
    rows, deploys = [], []
    for pace, found in data["syncs"].items():
        counts = [round(one[2]) for one in found]
        deploys += counts
        rows.append(
            [
                pace,
                ms(median([one[0] for one in found])),
                ms(median([one[1] for one in found])),
                f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}",
            ]
        )
    return Section(
        "A sync of many files",
        f"""\
A tree of {data["files"]:,} files, each of which is renamed over the old one; two workers that
rebuild all of it. Medians.""",
        ["files", "writing takes", "last write to committed", "deploys"],
        rows,
        {"sync deploys": float(max(deploys))} if deploys else {},
    )

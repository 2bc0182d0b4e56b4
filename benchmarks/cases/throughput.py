"""What a request costs while nothing is deployed: genwsgi beside plain gunicorn."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

from benchmarks.histogram import Histogram
from benchmarks.plan import Plan, pause
from benchmarks.section import Section, median, ms
from benchmarks.servers import KINDS, Running, serving
from benchmarks.subjects import SUBJECTS
from benchmarks.visiting import visiting

#: Connections of the client that asks as much as it can.
CONNECTIONS = 16

APPLICATIONS = ("nothing", "flask", "django")
PAIR = ("genwsgi gthread", "gunicorn gthread, HUP")

#: In each round each server of a pair is measured so often, in turns, for so many seconds.  The
#: fastest counts: whatever else a machine does makes one slower, and often by half.
TURNS, SECONDS = 3, 1.0


def throughput(port: int, seconds: float) -> float:
    """Return the requests per second that a server answers on kept-alive connections.

    The client is ``wrk``, and ours where that is not installed.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        with visiting(port, "/", 0, CONNECTIONS) as visit:
            pause(seconds)
        return visit.ok / visit.seconds
    address = f"http://127.0.0.1:{port}/"
    shown = subprocess.run(
        # A busy machine lets an answer wait for longer than the 2 s that wrk calls an error after.
        [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout=60", address],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    if "Non-2xx" in shown or "Socket errors" in shown:
        raise AssertionError(shown)
    found = re.search(r"Requests/sec:\s+([\d.]+)", shown)
    if found is None:
        raise AssertionError(shown)
    return float(found[1])


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Measure round by round, the servers of a pair in turns; both run, and one of them idles."""
    data["client"] = "wrk" if shutil.which("wrk") else "the project's own client"
    data["subjects"] = {}
    for name in APPLICATIONS[: 2 if plan.quick else None]:
        with plan.part(f"throughput: {name}"):
            found: dict[str, Any] = {"rounds": [], "times": {}}
            data["subjects"][name] = found
            subject = SUBJECTS[name]
            with (
                serving(KINDS[PAIR[0]], plan.room(), subject) as ours,
                serving(KINDS[PAIR[1]], plan.room(), subject) as theirs,
            ):
                _compare(plan, ours, theirs, subject.rate, found)


def _compare(
    plan: Plan, ours: Running, theirs: Running, rate: float, found: dict[str, Any]
) -> None:
    pair = (ours.port, theirs.port)
    for port in pair:
        throughput(port, 1)
    for number in range(plan.rounds):
        rates = dict.fromkeys(pair, 0.0)
        for turn in range(TURNS):
            for port in pair if (number + turn) % 2 else pair[::-1]:
                rates[port] = max(rates[port], throughput(port, SECONDS))
        found["rounds"].append([rates[port] for port in pair])
        plan.say(f"  {rates[pair[0]]:.0f} to {rates[pair[1]]:.0f} requests/s")
    if plan.quick:
        return
    for kind, port in zip(PAIR, pair, strict=True):
        with visiting(port, "/", rate) as visit:
            pause(plan.seconds)
        found["times"][kind] = visit.times.to_json()


def summary(data: dict[str, Any]) -> Section:
    """Say how the two compare."""
    rows, figures = [], {}
    for name, found in data["subjects"].items():
        ratios = sorted(ours / theirs for ours, theirs in found["rounds"])
        if not ratios:
            continue
        figures[f"throughput {name}"] = median(ratios)
        times = [Histogram.from_json(found["times"][one]) for one in PAIR if one in found["times"]]
        rows.append(
            [
                name,
                f"{median(ratios):.3f}",
                f"{ratios[0]:.3f} to {ratios[-1]:.3f}",
                *(f"{median([pair[place] for pair in found['rounds']]):,.0f}" for place in (0, 1)),
                *(
                    " / ".join(ms(one.quantile(share)) for one in times) or "-"
                    for share in (0.5, 0.99)
                ),
            ]
        )
    rounds = max((len(one["rounds"]) for one in data["subjects"].values()), default=0)
    text = f"""\
Two gthread workers with 4 threads each, {CONNECTIONS} kept-alive connections of {data["client"]},
{rounds} rounds in which each is measured {TURNS} times for {SECONDS:g} s, in turns, and the fastest
counts. The ratio is genwsgi's throughput to gunicorn's, and the times, of genwsgi and gunicorn, are
those at a moderate rate, from each request's arrival."""
    return Section(
        "Without deploys",
        text,
        [
            "application",
            "ratio, median",
            "lowest to highest",
            "genwsgi, requests/s",
            "gunicorn, requests/s",
            "median",
            "p99",
        ],
        rows,
        figures,
        {"throughput": "Each round's ratio of throughput, and the goal."},
    )

"""A deploy every two seconds under steady load: what those who visit meanwhile notice."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.histogram import Histogram
from benchmarks.plan import Plan, pause
from benchmarks.section import Section, median, ms
from benchmarks.servers import KINDS, OURS, Kind, installed, serving
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.visiting import visiting

APPLICATIONS = ("flask", "django", "import")

#: Seconds from one deploy to the next; more where the last one is not live before.
EVERY = 2.0

#: How often the servers take turns, of ten rounds where pairs are compared.
SHARE = 0.2


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Measure without and with deploys, each server in turn, several times."""
    kinds = installed(OURS if plan.quick else tuple(KINDS))
    data["every"] = EVERY
    data["subjects"] = {}
    for number in range(max(1, round(plan.rounds * SHARE))):
        for name in APPLICATIONS[: 1 if plan.quick else None]:
            for kind in kinds:
                with plan.part(f"latency: {name}, {kind.name}, round {number + 1}"):
                    found = _measure(plan, kind, SUBJECTS[name])
                    data["subjects"].setdefault(name, {}).setdefault(kind.name, []).append(found)


def _measure(plan: Plan, kind: Kind, subject: Subject) -> dict[str, Any]:
    deploys: list[float] = []
    with serving(kind, plan.room(), subject) as running:
        with visiting(running.port, "/", subject.rate):
            pause(1)
        with visiting(running.port, "/", subject.rate) as quiet:
            pause(plan.seconds)
        with visiting(running.port, "/", subject.rate) as busy:
            began = time.monotonic()
            while time.monotonic() < began + plan.seconds:
                version = f"v{len(deploys) + 1}"
                written = time.monotonic()
                running.deploy(version)
                deploys.append(busy.wait_for(version, 120) - written)
                running.wait_deployed()
                pause(max(0.2, written + EVERY - time.monotonic()))
    return {"quiet": quiet.to_json(), "busy": busy.to_json(), "deploys": deploys}


def joined(rounds: list[dict[str, Any]], which: str, times: str = "times") -> Histogram:
    """Return the times of all rounds together.

    :param which: ``quiet`` or ``busy``.
    :param times: ``times``, or those of the checks, ``late`` and ``witness``.
    """
    return Histogram.joined(Histogram.from_json(one[which][times]) for one in rounds)


def summary(data: dict[str, Any]) -> Section:
    """Say what deploys add."""
    rows, figures, reasons = [], {}, []
    offences = 0
    late, first, second = [], [], []
    for name, kinds in data["subjects"].items():
        for kind, rounds in kinds.items():
            quiet, busy = joined(rounds, "quiet"), joined(rounds, "busy")
            deploys = sum(len(one["deploys"]) for one in rounds)
            lost = {
                what: sum(one[which][what] for one in rounds for which in ("quiet", "busy"))
                for what in ("failed", "closed", "refused")
            }
            rows.append(
                [
                    f"{name}, {kind}",
                    *(
                        f"{ms(quiet.quantile(share))} → {ms(busy.quantile(share))}"
                        for share in (0.5, 0.99, 0.999, 1)
                    ),
                    f"{lost['failed'] + lost['refused']:,}",
                    f"{lost['closed'] / deploys:,.1f}" if deploys else "-",
                    f"{deploys}",
                ]
            )
            late.append(joined(rounds, "busy", "late"))
            first.append(busy.quantile(0.5))
            second.append(joined(rounds, "busy", "witness").quantile(0.5))
            server, _, worker = kind.partition(" ")
            if server != "genwsgi":
                continue
            for figure, share in (("p99.9", 0.999), ("slowest", 1.0)):
                added = busy.quantile(share) - quiet.quantile(share)
                figures[f"latency {name} {worker} {figure}"] = added * 1000
            if any(lost.values()):
                reasons += [f"{kind}, {name}: {one['busy']['reasons']}" for one in rounds]
            offences += sum(lost.values())
    if rows:
        figures["offences"] = offences
    return Section(
        "Deploys under load",
        f"""\
A deploy every {data["every"]:g} s, later where the last one was not live before; two workers, 32
connections, requests that arrive at random at a steady rate, and times that count from the
arrival. Each cell shows the time without deploys → with them. Closed connections are for each
deploy, failed requests are all of them. *import* burns 3 s of processor time at import.""",
        ["", "median", "p99", "p99.9", "slowest", "failed", "closed / deploy", "deploys"],
        rows,
        figures,
        {
            f"latency-{name}": f"Times of {name} with deploys (solid) and without (dashed)."
            for name in data["subjects"]
        },
        [*_checked(late, first, second), *reasons],
    )


def _checked(late: list[Histogram], first: list[float], second: list[float]) -> list[str]:
    """Say whether the client was the bottleneck.

    :param first: the medians of what it found, in seconds; of each server.
    :param second: those that a second client found at the same time.
    """
    whole = Histogram.joined(late)
    return [
        f"""\
The check of the client: it began a request that found a free connection
{ms(whole.quantile(0.5))} after its arrival (median; p99.9: {ms(whole.quantile(0.999))}), and a
second client, with a process, two connections and 25 requests/s of its own, found a median of
{ms(median(second))} where the first found {ms(median(first))} (medians of all servers)."""
    ]

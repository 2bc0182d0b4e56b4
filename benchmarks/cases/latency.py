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
                pause(max(0.2, running.rest, written + EVERY - time.monotonic()))
    return {"quiet": quiet.to_json(), "busy": busy.to_json(), "deploys": deploys}


def joined(rounds: list[dict[str, Any]], which: str, times: str = "times") -> Histogram:
    """Return the times of all rounds together.

    :param which: ``quiet`` or ``busy``.
    :param times: ``times``, or those of the checks, ``late`` and ``witness``.
    """
    return Histogram.joined(Histogram.from_json(one[which][times]) for one in rounds)


def summary(data: dict[str, Any]) -> Section:
    """Say what deploys add."""
    rows, notes = [], []
    figures: dict[str, float] = {}
    offences = 0
    everything = []
    for name, kinds in data["subjects"].items():
        for kind, rounds in kinds.items():
            everything.append(rounds)
            rows.append(_row(f"{name}, {kind}", rounds))
            server, _, worker = kind.partition(" ")
            if server == "genwsgi":
                figures |= _added(f"latency {name} {worker}", rounds)
                lost = sum(_lost(rounds, what) for what in ("failed", "closed", "refused"))
                offences += lost
                if lost:
                    notes += [f"{name}, {kind}: {one['busy']['reasons']}" for one in rounds]
    if rows:
        figures["offences"] = offences
        notes.insert(0, _checked(everything))
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
        notes,
    )


def _lost(rounds: list[dict[str, Any]], what: str) -> int:
    return sum(one[which][what] for one in rounds for which in ("quiet", "busy"))


def _row(name: str, rounds: list[dict[str, Any]]) -> list[str]:
    quiet, busy = joined(rounds, "quiet"), joined(rounds, "busy")
    deploys = sum(len(one["deploys"]) for one in rounds)
    return [
        name,
        *(
            f"{ms(quiet.quantile(share))} → {ms(busy.quantile(share))}"
            for share in (0.5, 0.99, 0.999, 1)
        ),
        f"{_lost(rounds, 'failed') + _lost(rounds, 'refused'):,}",
        f"{_lost(rounds, 'closed') / deploys:,.1f}",
        f"{deploys}",
    ]


def _added(name: str, rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Return, in milliseconds, what deploys add to the times that have goals."""
    quiet, busy = joined(rounds, "quiet"), joined(rounds, "busy")
    return {
        f"{name} {figure}": (busy.quantile(share) - quiet.quantile(share)) * 1000
        for figure, share in (("p99.9", 0.999), ("slowest", 1.0))
    }


def _checked(everything: list[list[dict[str, Any]]]) -> str:
    """Say whether the client was the bottleneck, from the rounds of each server."""
    late = Histogram.joined(joined(rounds, "busy", "late") for rounds in everything)
    first, second = (
        median([joined(rounds, "busy", times).quantile(0.5) for rounds in everything])
        for times in ("times", "witness")
    )
    return f"""\
The check of the client: it began a request that found a free connection {ms(late.quantile(0.5))}
after its arrival (median; p99.9: {ms(late.quantile(0.999))}), and a second client, with a process,
two connections and 25 requests/s of its own, found {ms(second)} where the first found {ms(first)}
(the median of all servers' medians)."""

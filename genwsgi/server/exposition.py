"""A host's figures as metrics of Prometheus.

The names, labels and meanings are in docs/observing.md, for those who write rules with them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping

import gunicorn
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from genwsgi._version import __version__
from genwsgi.deploy.control import Status
from genwsgi.deploy.figures import Distribution, Figures
from genwsgi.deploy.protocol import Outcome, label
from genwsgi.generations.counts import BOUNDS, Tally
from genwsgi.generations.status import GenerationStatus

_BY_GENERATION = ("release", "generation")
_OUTCOMES = tuple(
    value for name, value in vars(Outcome).items() if name.isupper() and name != "PREPARED"
)


class Exposition:
    """What a scrape collects: the metrics of one moment."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Each of the metrics, as prometheus_client asks for them."""
        figures = self._figures
        yield from _about(figures.status)
        yield from _requests(figures.requests)
        yield from _generations(figures.status)
        outcomes = {kind: figures.outcomes.get(kind, 0) for kind in _OUTCOMES}
        yield _counter("genwsgi_orders", "Orders by how they ended.", "outcome", outcomes)
        yield _histogram(
            "genwsgi_build_seconds", "How long workers built a generation.", figures.builds
        )
        yield _histogram(
            "genwsgi_drain_seconds",
            "How long replaced generations still owed a response.",
            figures.drains,
        )
        yield from _triggers(figures.status.triggers)


def _about(status: Status) -> Iterator[Metric]:
    versions = {
        "version": __version__,
        "gunicorn": gunicorn.__version__,
        "python": platform.python_version(),
    }
    yield InfoMetricFamily("genwsgi_build", "The versions that run.", value=versions)
    release = {"release": label(status.release), "trigger": status.release.trigger}
    yield InfoMetricFamily("genwsgi_release", "The committed release.", value=release)
    yield GaugeMetricFamily(
        "genwsgi_release_number", "The committed release's number.", value=status.release.number
    )
    yield GaugeMetricFamily(
        "genwsgi_deploying", "Whether a deploy is under way.", value=status.phase != "idle"
    )
    yield GaugeMetricFamily(
        "genwsgi_paused", "Whether automatic deploys are paused.", value=status.paused is not None
    )
    yield GaugeMetricFamily(
        "genwsgi_workers", "Workers that are connected.", value=len(status.workers)
    )
    memory = {str(one.pid): one.memory for one in status.workers if one.memory is not None}
    yield _gauge("genwsgi_worker_memory_bytes", "Memory of a worker (RSS).", "worker", memory)
    problems = GaugeMetricFamily(
        "genwsgi_problem",
        "What is wrong now, each with the value 1; the status says what to do.",
        labels=("problem", "worker"),
    )
    for name, pid in dict.fromkeys((one.name, one.pid) for one in status.problems):
        problems.add_metric((name, "" if pid is None else str(pid)), 1)
    yield problems


def _requests(requests: Mapping[tuple[str, int], Tally]) -> Iterator[Metric]:
    count = CounterMetricFamily(
        "genwsgi_requests", "Requests that have ended.", labels=_BY_GENERATION
    )
    errors = CounterMetricFamily(
        "genwsgi_request_errors",
        "Requests answered with a status of 5xx (status), or that raised (exception).",
        labels=(*_BY_GENERATION, "kind"),
    )
    durations = HistogramMetricFamily(
        "genwsgi_request_duration_seconds",
        "How long requests took, from the call until the body was closed.",
        labels=_BY_GENERATION,
    )
    for (release, generation), tally in requests.items():
        labels = (release, str(generation))
        count.add_metric(labels, tally.requests)
        errors.add_metric((*labels, "status"), tally.errors)
        errors.add_metric((*labels, "exception"), tally.exceptions)
        durations.add_metric(labels, _buckets(BOUNDS, tally.durations), tally.seconds)
    yield from (count, errors, durations)


def _generations(status: Status) -> Iterator[Metric]:
    every = [one for worker in status.workers for one in worker.generations]
    in_flight = GaugeMetricFamily(
        "genwsgi_requests_in_flight", "Requests under way.", labels=_BY_GENERATION
    )
    open_leases: dict[tuple[str, str], int] = {}
    for one in every:
        key = (one.release, str(one.number))
        open_leases[key] = open_leases.get(key, 0) + one.leases
    for key, leases in open_leases.items():
        in_flight.add_metric(key, leases)
    yield in_flight
    states = {"current": 0, "draining": 0, "retired": 0}
    for one in every:
        states[one.state] = states.get(one.state, 0) + 1
    yield _gauge("genwsgi_generations", "Generations of all workers.", "state", states)
    yield GaugeMetricFamily(
        "genwsgi_generations_held",
        "Retired generations that something keeps alive; the status names it.",
        value=sum(1 for one in every if one.holder),
    )
    yield GaugeMetricFamily(
        "genwsgi_oldest_request_seconds",
        "How long the oldest response has been owed that a replaced generation owes.",
        value=max((_owed(one) for one in every), default=0.0),
    )


def _owed(one: GenerationStatus) -> float:
    return one.oldest or 0.0 if one.state != "current" else 0.0


def _triggers(triggers: Mapping[str, object]) -> Iterator[Metric]:
    told = {name: one for name, one in triggers.items() if isinstance(one, Mapping)}
    yield _gauge(
        "genwsgi_trigger_ok",
        "Whether a trigger has no problem.",
        "trigger",
        {name: not one.get("problem") for name, one in told.items()},
    )
    for name, key, text in (
        ("genwsgi_broker_connected", "connected", "Whether the broker of a trigger is connected."),
        ("genwsgi_watched_directories", "watching", "Directories that are watched for changes."),
        ("genwsgi_watch_polling", "polling", "Whether the files are looked at instead of watched."),
    ):
        values = {trigger: one[key] for trigger, one in told.items() if key in one}
        numbers = {key: value for key, value in values.items() if isinstance(value, (int, float))}
        yield _gauge(name, text, "trigger", numbers)


def _gauge(name: str, text: str, label_name: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label_name,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _counter(name: str, text: str, label_name: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label_name,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _histogram(name: str, text: str, times: Distribution) -> Metric:
    return HistogramMetricFamily(
        name, text, buckets=_buckets(times.bounds, times.counts), sum_value=times.seconds
    )


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Return the counts as Prometheus has them: each with all that took less."""
    ends = [*map(str, bounds), "+Inf"]
    total, buckets = 0, []
    for end, count in zip(ends, counts, strict=True):
        total += count
        buckets.append((end, float(total)))
    return buckets

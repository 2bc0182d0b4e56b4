"""Tests of genwsgi.server.exposition: what Prometheus reads is what the host has."""

from __future__ import annotations

import dataclasses

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from genwsgi.deploy.control import Pause, Status, WorkerStatus
from genwsgi.deploy.figures import Distribution, Figures
from genwsgi.deploy.protocol import Problem, Release
from genwsgi.generations.counts import BOUNDS, Tally
from genwsgi.generations.status import GenerationStatus
from genwsgi.server.exposition import Exposition

NONE = Distribution((1.0,), (0, 0), 0.0)
STATUS = Status(Release(2, "b" * 64, "watch", "", 0.0), "idle", (), {}, None)


def read(
    status: Status = STATUS, requests: dict[tuple[str, int], Tally] | None = None, **given: object
) -> dict[tuple[str, ...], float]:
    """What Prometheus understands of a host: name and label values, and the value."""
    figures = Figures(status, requests or {}, {}, NONE, NONE)
    text = generate_latest(Exposition(dataclasses.replace(figures, **given))).decode()  # type: ignore[arg-type]
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def generation(number: int, state: str, leases: int, **given: object) -> GenerationStatus:
    made = GenerationStatus(number, f"{number}-x", state, leases, None, "")
    return dataclasses.replace(made, **given)  # type: ignore[arg-type]


def test_an_idle_host():
    """What there is to know is there from the start, with nothing in it."""
    found = read()
    assert found["genwsgi_release_info", "2-bbbbbbbb", "watch"] == 1
    assert found["genwsgi_release_number",] == 2
    assert found["genwsgi_deploying",] == found["genwsgi_paused",] == found["genwsgi_workers",] == 0
    kinds = ("committed", "failed", "superseded", "refused", "unchanged")
    assert [found["genwsgi_orders_total", kind] for kind in kinds] == [0] * 5
    assert found["genwsgi_build_seconds_count",] == found["genwsgi_drain_seconds_count",] == 0
    assert found["genwsgi_generations", "draining"] == found["genwsgi_generations_held",] == 0


def test_requests_by_generation():
    """Each generation has its requests, its errors of either kind, and durations that add up."""
    durations = (3, 2, *[0] * (len(BOUNDS) - 2), 1)
    found = read(requests={("2-b", 4): Tally(6, 2, 1, 12.5, durations)})
    assert found["genwsgi_requests_total", "4", "2-b"] == 6
    assert found["genwsgi_request_errors_total", "4", "status", "2-b"] == 2
    assert found["genwsgi_request_errors_total", "4", "exception", "2-b"] == 1
    name = "genwsgi_request_duration_seconds"
    ends = ("0.001", "0.0025", "0.005", "10.0", "+Inf")
    assert [found[f"{name}_bucket", "4", end, "2-b"] for end in ends] == [3, 5, 5, 5, 6]
    assert (found[f"{name}_count", "4", "2-b"], found[f"{name}_sum", "4", "2-b"]) == (6, 12.5)


def test_generations_and_what_they_owe():
    """Open responses are added up over workers; states are counted, and who is held."""
    workers = (
        WorkerStatus(
            11,
            2,
            (
                generation(1, "draining", 2, oldest=7.5),
                generation(2, "current", 3, oldest=90.0),
            ),
            memory=4096,
        ),
        WorkerStatus(12, 2, (generation(1, "retired", 0, holder="x"), generation(2, "current", 1))),
    )
    found = read(dataclasses.replace(STATUS, workers=workers))
    assert found["genwsgi_requests_in_flight", "2", "2-x"] == 4
    assert found["genwsgi_requests_in_flight", "1", "1-x"] == 2
    states = ("current", "draining", "retired")
    assert [found["genwsgi_generations", state] for state in states] == [2, 1, 1]
    assert found["genwsgi_generations_held",] == 1
    # The current generation's are no matter of draining.
    assert found["genwsgi_oldest_request_seconds",] == 7.5
    assert found["genwsgi_workers",] == 2
    assert found["genwsgi_worker_memory_bytes", "11"] == 4096
    assert ("genwsgi_worker_memory_bytes", "12") not in found


def test_what_is_wrong():
    """Each problem is there once, with the worker that has it, and whether deploys are paused."""
    problems = (
        Problem("disk", "full", 0.0),
        Problem("descriptors", "none left", 0.0, 11),
        Problem("descriptors", "none left", 1.0, 11),
    )
    status = dataclasses.replace(
        STATUS, problems=problems, paused=Pause("somebody", 0.0), phase="canary"
    )
    found = read(status)
    assert (
        found["genwsgi_problem", "disk", ""] == found["genwsgi_problem", "descriptors", "11"] == 1
    )
    assert found["genwsgi_paused",] == found["genwsgi_deploying",] == 1


def test_triggers():
    """Watch and broker say how they stand; a trigger of somebody else's may say what it likes."""
    triggers: dict[str, object] = {
        "watch": {"watching": 12, "polling": False, "problem": None},
        "amqp": {"connected": False, "problem": "refused"},
        "other": "all is well",
        "odd": {"watching": "many"},
    }
    found = read(dataclasses.replace(STATUS, triggers=triggers))
    assert (found["genwsgi_trigger_ok", "watch"], found["genwsgi_trigger_ok", "amqp"]) == (1, 0)
    assert found["genwsgi_watched_directories", "watch"] == 12
    assert found["genwsgi_watch_polling", "watch"] == 0
    assert found["genwsgi_broker_connected", "amqp"] == 0
    assert ("genwsgi_trigger_ok", "other") not in found
    assert ("genwsgi_watched_directories", "odd") not in found


def test_builds_drains_and_outcomes():
    """Times are histograms, and orders are counted by how they ended."""
    found = read(
        builds=Distribution((1.0, 2.0), (3, 1, 1), 20.0),
        drains=Distribution((5.0,), (1, 0), 4.0),
        outcomes={"committed": 4, "failed": 1},
    )
    assert found["genwsgi_build_seconds_bucket", "2.0"] == 4
    assert (found["genwsgi_build_seconds_count",], found["genwsgi_build_seconds_sum",]) == (5, 20)
    assert found["genwsgi_drain_seconds_bucket", "5.0"] == 1
    assert found["genwsgi_orders_total", "committed"] == 4
    assert found["genwsgi_orders_total", "failed"] == 1

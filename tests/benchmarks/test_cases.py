from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.cases import (
    freshness,
    growth,
    idle,
    latency,
    memory,
    middleware,
    sync,
    throughput,
)
from benchmarks.goals import GOALS
from benchmarks.histogram import Histogram
from benchmarks.plan import Plan
from tests.benchmarks.measured import MEASURED, counted, visit

CASES = {
    "throughput": throughput,
    "middleware": middleware,
    "latency": latency,
    "freshness": freshness,
    "memory": memory,
    "idle": idle,
    "growth": growth,
    "sync": sync,
}


@pytest.mark.parametrize("name", CASES)
def test_a_summary_has_a_table_and_figures_with_goals(name):
    """Every row is as long as the table's head, and every figure has a goal."""
    section = CASES[name].summary(json.loads(json.dumps(MEASURED[name])))
    assert section.rows
    assert {len(row) for row in section.rows} == {len(section.head)}
    assert section.figures.keys() <= GOALS.keys()


def test_every_goal_has_a_figure():
    """No goal is left out: all cases together have a figure for each."""
    figures = {
        name for case, module in CASES.items() for name in module.summary(MEASURED[case]).figures
    }
    assert figures == GOALS.keys()


def test_throughput_is_the_median_of_the_rounds_ratios():
    """Ratios are taken within a round, since what disturbs one disturbs both servers of it."""
    data = {"client": "wrk", "subjects": {"flask": {"times": {}}}}
    data["subjects"]["flask"]["rounds"] = [[99, 100], [10, 10], [400, 800]]  # type: ignore[index]
    assert throughput.summary(data).figures == {"throughput flask": 0.99}


def test_latency_counts_what_deploys_add():
    """The figure is the time during deploys beyond that without, of all rounds together."""
    rounds = [_round(0.010, 0.015, deploys=2), _round(0.020, 0.055, deploys=3)]
    data = {"every": 2, "subjects": {"flask": {"genwsgi gthread": rounds}}}
    section = latency.summary(data)
    assert section.figures["latency flask gthread slowest"] == pytest.approx(35)
    assert section.figures["offences"] == 0
    assert section.rows[0][-1] == "5"


def test_latency_holds_offences_against_genwsgi_alone():
    """A closed connection of another server is shown, and is no offence of ours."""
    bad = _round(0.010, 0.015, deploys=2, failed=1, closed=3)
    theirs = {"gunicorn gthread, HUP": [bad]}
    data: dict[str, Any] = {"every": 2, "subjects": {"flask": theirs}}
    section = latency.summary(data)
    assert section.figures["offences"] == 0
    assert section.rows[0][-3:-1] == ["1", "1.5"]
    theirs["genwsgi gthread"] = [bad]
    assert latency.summary(data).figures["offences"] == 4


def _round(quiet: float, busy: float, *, deploys: int, **lost: int) -> dict[str, Any]:
    return {
        "quiet": visit(counted(quiet)),
        "busy": visit(counted(busy), **lost),
        "deploys": [0.1] * deploys,
    }


def test_freshness_leaves_the_bare_import_out():
    """The figure is what a deploy takes beyond the application's own import."""
    servers = {"genwsgi gthread": {"first": [0.1, 0.2, 0.3], "deployed": [0.3], "committed": []}}
    data = {"subjects": {"django": {"bare": [0.14, 0.16, 0.15], "servers": servers}}}
    assert freshness.summary(data).figures["freshness django"] == pytest.approx(50)


def test_memory_is_compared_with_that_after_the_twentieth_deploy():
    """What the first deploys need is not growth."""
    data = {"series": [[20, 100 << 20], [40, 110 << 20], [60, 102 << 20]]}
    assert memory.summary(data).figures["memory"] == pytest.approx(2)


def test_a_connection_that_does_not_answer_counts_as_closed():
    """An idle connection is kept only if a request on it is answered afterwards."""
    servers = {"genwsgi gevent": {"connections": 5000, "closed": 0, "answered": 4998}}
    section = idle.summary({"deploys": 20, "servers": servers})
    assert section.figures == {"idle genwsgi gevent": 2}


def test_growth_is_by_module_and_by_worker():
    """Growth compares the two largest applications, and the most workers with the fewest."""

    def found(seconds: float, coordinator: float) -> dict[str, Any]:
        whole = visit(Histogram())
        return {"seconds": [seconds], "coordinator": [coordinator], "quiet": whole, "busy": whole}

    data = {
        "modules": {"10": found(1, 1), "100": found(1, 1), "1000": found(12, 1)},
        "workers": {"1": found(1, 0.01), "8": found(4, 0.03)},
    }
    figures = growth.summary(data).figures
    assert figures["growth modules"] == pytest.approx(1.2)
    assert figures["growth workers"] == pytest.approx(3)


def test_a_part_that_fails_ends_no_other(tmp_path, capsys):
    """A failure in one part is written down with its name, and the next part is measured."""
    plan = Plan(tmp_path)
    with plan.part("the first"):
        raise ValueError("no such thing\nand more")
    with plan.part("the second"):
        pass
    assert plan.failures == ["the first: ValueError: no such thing"]
    assert "the second" in capsys.readouterr().out
    assert plan.room() != plan.room()

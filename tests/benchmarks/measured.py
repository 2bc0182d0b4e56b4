"""A little of what each case measures, as it stands in a results file."""

from __future__ import annotations

from typing import Any

from benchmarks.histogram import Histogram

WORKERS = ("genwsgi gthread", "genwsgi gevent", "gunicorn gthread, HUP")


def counted(*times: float) -> Histogram:
    """Return a histogram of ``times``, in seconds."""
    histogram = Histogram()
    for seconds in times:
        histogram.add(seconds)
    return histogram


def visit(times: Histogram, **lost: int) -> dict[str, Any]:
    """Return a visit with these times, and nothing lost but what is named."""
    one = times.to_json()
    counts = {"ok": 100, "failed": 0, "closed": 0, "refused": 0, **lost}
    return {**counts, "reasons": {}, "times": one, "late": one, "witness": one}


def _visits() -> dict[str, Any]:
    return {"quiet": visit(counted(0.001, 0.002)), "busy": visit(counted(0.001, 0.003))}


def _freshness() -> dict[str, Any]:
    times = {"first": [0.05, 0.06], "deployed": [0.07], "committed": [0.04]}
    return {"bare": [0.01], "servers": dict.fromkeys(WORKERS, times)}


def _growth() -> dict[str, Any]:
    return {"seconds": [0.1, 0.2], "coordinator": [0.01], **_visits()}


MEASURED: dict[str, Any] = {
    "throughput": {
        "client": "wrk",
        "subjects": {
            name: {
                "rounds": [[990, 1000], [995, 1000]],
                "times": dict.fromkeys(WORKERS, counted(0.001).to_json()),
            }
            for name in ("nothing", "flask", "django")
        },
    },
    "middleware": {"bodies": {"listed": [500, 300], "generated": [900, 600], "file": [950, 600]}},
    "latency": {
        "every": 2.0,
        "subjects": {
            name: {worker: [{**_visits(), "deploys": [0.1, 0.1]}] for worker in WORKERS}
            for name in ("flask", "django", "import")
        },
    },
    "freshness": {"subjects": {"flask": _freshness(), "django": _freshness()}},
    "memory": {
        "generation": {"flask": [1 << 20, 2 << 20, 3 << 20]},
        "peak": {"flask": [[50 << 20, 53 << 20]]},
        "series": [[20, 50 << 20], [40, 51 << 20]],
    },
    "idle": {
        "deploys": 20,
        "servers": {name: {"connections": 9, "closed": 0, "answered": 9} for name in WORKERS},
    },
    "growth": {
        "modules": {"10": _growth(), "100": _growth()},
        "workers": {"1": _growth(), "8": _growth()},
    },
    "sync": {"files": 2000, "syncs": {"at once": [[0.2, 0.5, 1.0], [0.2, 0.6, 1.0]]}},
}

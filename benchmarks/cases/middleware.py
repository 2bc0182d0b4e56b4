"""The middleware alone, without a server."""

from __future__ import annotations

from typing import Any

from benchmarks.middleware import added
from benchmarks.plan import Plan
from benchmarks.section import Section


def measure(plan: Plan, data: dict[str, Any]) -> None:
    """Measure each kind of body."""
    with plan.part("middleware"):
        data["bodies"] = added()


def summary(data: dict[str, Any]) -> Section:
    """Say what the middleware adds to a request."""
    rows, figures = [], {}
    for kind, (whole, more) in data["bodies"].items():
        rows.append([kind, f"{whole:,.0f} ns", f"{more:,.0f} ns"])
        if kind == "listed":
            figures["middleware list"] = more
    return Section(
        "The middleware alone",
        """\
The thread's own time on the processor, for applications that answer with a list of one block, a
generator of one and the server's file wrapper; against calling the application directly.""",
        ["body", "a request", "of which the middleware"],
        rows,
        figures,
    )

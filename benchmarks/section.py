"""What a case has to say: a part of the report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Section:
    """A case's part of the report.

    :ivar text: what was done, in Markdown.
    :ivar head: of the table.
    :ivar figures: by the name of their goal.
    :ivar plots: the names of the plots that belong here, and what they show.
    :ivar notes: below the table.
    """

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: dict[str, float] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; all but the first column are figures."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def ms(seconds: float) -> str:
    """Return a time in milliseconds, with as many digits as say something."""
    value = seconds * 1000
    return f"{value:.1f} ms" if abs(value) < 100 else f"{value:,.0f} ms"


def median(values: Sequence[float]) -> float:
    """Return the median; ``nan`` of nothing."""
    return statistics.median(values) if values else float("nan")

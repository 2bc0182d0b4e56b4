"""The report in Markdown, from what was measured (pure)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from benchmarks.goals import GOALS
from benchmarks.results import Results
from benchmarks.section import Section, table

#: How the parts of the machine's description are called.
NAMES = {"uwsgi": "uWSGI", "flask": "Flask", "django": "Django", "python": "CPython"}

#: What the report names that need not be installed.
PEERS = ("gunicorn", "gevent", "uwsgi", "granian")

#: A machine is quiet if it had less to do than this before the run: half of two processors.
QUIET = 1.0

#: Times are not compared if a computation took so many times as long as it computed: others had a
#: third of the processor.
BUSY = 1.5

BEGIN = """\
# Performance

What a deploy costs those who visit meanwhile, and what generations cost while nothing is
deployed, beside other servers. `python -m benchmarks` measures it and writes this page; it needs
`pip install -e '.[bench]'`, and leaves out what isn't installed. Ratios and differences say more
than the figures themselves, which are this machine's.

"""


def findings(sections: Sequence[Section]) -> dict[str, float]:
    """Return every figure that has a goal, in the order of the goals."""
    found = {name: value for section in sections for name, value in section.figures.items()}
    return {name: found[name] for name in GOALS if name in found}


def comparable(
    figures: dict[str, float], there: dict[str, str], here: dict[str, str], slowness: float = 1.0
) -> dict[str, float]:
    """Return of what was measured ``there`` what is the same ``here``: no times of others.

    :param slowness: how many times as long as it computes a computation takes here.  A busy machine
        is another one: each of a deploy's many steps waits for its turn.
    """
    facts = ("processor", "processors")
    same = slowness < BUSY and all(there.get(fact) == here.get(fact) for fact in facts)
    return {name: one for name, one in figures.items() if same or GOALS[name].unit != "ms"}


def regressions(now: dict[str, float], known: dict[str, float]) -> list[str]:
    """Return, in words, what is grossly worse than what is known, or must never be."""
    found = []
    for name, figure in now.items():
        goal = GOALS[name]
        if goal.unit == "n" and not goal.met(figure):
            found.append(f"{goal.what}: {goal.shown(figure)}, not {goal.limit_shown()}")
        elif name in known and goal.grossly_worse(figure, known[name]):
            found.append(f"{goal.what}: {goal.shown(figure)}, and was {goal.shown(known[name])}")
    return found


def goals(figures: dict[str, float]) -> str:
    """Return the table of goals, and below it why some are missed."""
    rows: list[list[str]] = []
    reasons: dict[str, int] = {}
    for name, figure in figures.items():
        goal = GOALS[name]
        met = goal.met(figure)
        verdict = "yes" if met else "**no**"
        if not met and goal.reason:
            number = reasons.setdefault(goal.reason, len(reasons) + 1)
            verdict += f" ({number})"
        rows.append([goal.what, goal.shown(figure), goal.limit_shown(), verdict])
    text = table(["goal, on two cores", "measured", "limit", "met"], rows)
    return text + "".join(f"\n({number}) {reason}\n" for reason, number in reasons.items())


def place(results: Results) -> str:
    """Return where and with what it was measured."""
    facts = dict(results.machine)
    cores = f"{facts.pop('processors')} processors ({facts.pop('processor')})"
    host = f"{cores}, {facts.pop('memory')} of memory, Linux {facts.pop('kernel')}"
    versions = ", ".join(f"{NAMES.get(name, name)} {version}" for name, version in facts.items())
    text = f"Measured on {results.day}: {host}; {versions}."
    missing = [NAMES.get(name, name) for name in PEERS if name not in results.machine]
    if missing:
        text += f" Not installed, and so not compared: {', '.join(missing)}."
    text += f" As it began the machine's load average was {results.load:.2f}"
    text += ": it was **not quiet**, so the times mean little." if results.load >= QUIET else "."
    return textwrap.fill(text, 98, break_on_hyphens=False) + "\n"


def render(results: Results, sections: Sequence[Section], plots: str) -> str:
    """Return the page.

    :param plots: the folder of the plots, as links from the page begin.
    """
    parts = [BEGIN, place(results), "\n## Against the goals\n\n", goals(findings(sections))]
    for section in sections:
        parts.append(f"\n## {section.title}\n\n{section.text}\n\n")
        parts.append(table(section.head, section.rows))
        parts += [f"\n{note}\n" for note in section.notes]
        parts += [f"\n![{alt}]({plots}/{name}.svg)\n" for name, alt in section.plots.items()]
    failed = [line for lines in results.failures.values() for line in lines]
    if failed:
        parts.append("\n## What could not be measured\n\n")
        parts += [f"- `{line.replace('`', chr(39))}`\n" for line in failed]
    return "".join(parts)

"""The plots, as SVG; from the same data as the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cases.latency import joined
from benchmarks.goals import GOALS
from benchmarks.section import median

#: Of every plot, in inches.
WIDTH, HEIGHT = 8.0, 4.2

#: Of each server, the same in every plot.
COLOURS = {
    "genwsgi gthread": "#0b6e4f",
    "genwsgi gevent": "#58b368",
    "gunicorn gthread, HUP": "#c1292e",
    "gunicorn gevent, HUP": "#f26b6f",
    "uWSGI, chain reload": "#235789",
    "granian, HUP": "#f1a208",
}

MIB = 2**20


@contextmanager
def _figure(folder: Path, name: str, **options: Any) -> Iterator[Any]:
    """A figure's axes, which are written to ``name`` when the block ends."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # The same data is the same file, and text is text.
    with pyplot.rc_context({"svg.hashsalt": "genwsgi", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT), layout="constrained", **options)
        try:
            yield axes
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        finally:
            pyplot.close(figure)


def throughput(data: dict[str, Any], folder: Path) -> None:
    """Draw each round's ratio."""
    with _figure(folder, "throughput") as axes:
        names = list(data["subjects"])
        for place, name in enumerate(names):
            ratios = [ours / theirs for ours, theirs in data["subjects"][name]["rounds"]]
            axes.plot([place] * len(ratios), ratios, "o", alpha=0.5, color="#0b6e4f")
            axes.plot([place - 0.15, place + 0.15], [median(ratios)] * 2, color="#0b6e4f")
        axes.axhline(GOALS["throughput nothing"].limit, color="grey", linestyle=":", label="goal")
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("throughput, genwsgi / gunicorn")
        axes.legend()


def latency(data: dict[str, Any], folder: Path) -> None:
    """Draw, for each application, the times by the share of requests that took longer."""
    for name, kinds in data["subjects"].items():
        with _figure(folder, f"latency-{name}") as axes:
            for kind, rounds in kinds.items():
                for which, style in (("busy", "-"), ("quiet", "--")):
                    points = joined(rounds, which).curve()
                    # The last point's share is all, which has no place on this scale.
                    axes.plot(
                        [1 / (1 - share) for _, share in points[:-1]],
                        [seconds * 1000 for seconds, _ in points[:-1]],
                        style,
                        color=COLOURS[kind],
                        linewidth=1.2 if which == "busy" else 0.7,
                        label=kind if which == "busy" else None,
                    )
            axes.set_xscale("log")
            axes.set_yscale("log")
            shares = [2, 10, 100, 1000, 10000]
            axes.set_xticks(shares, [f"{100 - 100 / share:g} %" for share in shares])
            axes.set_xlabel(f"share of requests that took no longer ({name})")
            axes.set_ylabel("ms")
            axes.legend(loc="upper left")


def freshness(data: dict[str, Any], folder: Path) -> None:
    """Draw the medians from a saved file to its first response."""
    subjects = data["subjects"]
    with _figure(folder, "freshness", ncols=len(subjects), sharey=True) as axes:
        for one, (name, found) in zip(axes, subjects.items(), strict=True):
            kinds = [kind for kind in COLOURS if kind in found["servers"]]
            times = [median(found["servers"][kind]["first"]) * 1000 for kind in kinds]
            one.barh(kinds[::-1], times[::-1], color=[COLOURS[kind] for kind in kinds[::-1]])
            one.axvline(median(found["bare"]) * 1000, color="grey", linestyle=":")
            one.set_xscale("log")
            one.set_xlabel(f"{name}: ms to the first new response (dotted: bare import)")


def memory(data: dict[str, Any], folder: Path) -> None:
    """Draw a worker's memory over very many deploys."""
    with _figure(folder, "memory") as axes:
        numbers, sizes = zip(*data["series"], strict=True)
        axes.plot(numbers, [size / MIB for size in sizes], color=COLOURS["genwsgi gthread"])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("deploys")
        axes.set_ylabel("MiB")


def growth(data: dict[str, Any], folder: Path) -> None:
    """Draw order to commit by modules, and the coordinator's part by workers."""
    with _figure(folder, "growth", ncols=2) as (left, right):
        for axes, what, figure in (
            (left, "modules", "seconds"),
            (right, "workers", "coordinator"),
        ):
            numbers = [int(number) for number in data[what]]
            times = [median(found[figure]) * 1000 for found in data[what].values()]
            axes.plot(numbers, times, "o-", color=COLOURS["genwsgi gthread"])
            axes.set_xlabel(what)
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_ylabel("order to commit, ms")
        right.set_ylim(bottom=0)
        right.set_ylabel("coordinator's processor time, ms")


#: By the name of the case.
PLOTS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "throughput": throughput,
    "latency": latency,
    "freshness": freshness,
    "memory": memory,
    "growth": growth,
}

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import plan
from benchmarks.goals import GOALS, Goal
from benchmarks.plan import slowness
from benchmarks.plots import PLOTS
from benchmarks.report import comparable, findings, goals, place, regressions, render
from benchmarks.results import Results, machine
from benchmarks.section import table
from tests.benchmarks.measured import MEASURED

MACHINE = {
    "processor": "a fine one",
    "processors": "2",
    "memory": "8 GiB",
    "kernel": "6.1",
    "python": "3.13.0",
    "genwsgi": "1.0",
    "gunicorn": "27.0",
}


@pytest.fixture
def results() -> Results:
    """All cases, measured."""
    return Results(machine=MACHINE, cases=json.loads(json.dumps(MEASURED)), day="2026-01-02")


def test_a_goal_is_met_on_its_right_side():
    """Of some figures more is good, of others less; the limit itself is good."""
    least, most = Goal("a", 0.99, least=True), Goal("b", 10, "ms")
    assert least.met(1.2)
    assert least.met(0.99)
    assert not least.met(0.98)
    assert most.met(10)
    assert not most.met(10.1)
    assert (least.limit_shown(), most.limit_shown()) == ("≥ 0.990", "≤ 10.0 ms")


def test_the_reason_stands_where_a_goal_is_missed_and_nowhere_else():
    """A reason is shown below the table, once, and only if a goal that has it is missed."""
    reason = GOALS["latency django gevent slowest"].reason
    missed = {"latency django gevent slowest": 500.0, "latency django gevent p99.9": 400.0}
    text = goals({**missed, "throughput flask": 1.0})
    assert text.count(reason) == 1
    assert text.count("**no** (1)") == 2
    assert reason not in goals(dict.fromkeys(missed, 1.0))
    assert "| yes |" in goals({"throughput flask": 1.0})


def test_times_of_another_machine_are_not_compared():
    """Ratios and counts are the same everywhere; one that is busy is another machine."""
    figures = {"freshness flask": 60.0, "throughput flask": 1.0, "offences": 0.0}
    here = {"processor": "fast", "processors": "2", "python": "3.13"}
    assert comparable(figures, {**here, "python": "3.12"}, here) == figures
    others = comparable(figures, {**here, "processor": "slow"}, here)
    assert others.keys() == {"throughput flask", "offences"}
    assert comparable(figures, here, here, 1.4) == figures
    assert comparable(figures, here, here, 1.6) == others


class Half:
    """Stands in for the time where there is half of a processor to have."""

    used = 0.0

    def thread_time(self) -> float:
        self.used += 0.01
        return self.used

    def monotonic(self) -> float:
        return 2 * self.used


def test_a_machine_is_as_slow_as_a_computation_waits(monkeypatch):
    """Half of a processor makes a computation take twice as long as it computes."""
    monkeypatch.setattr(plan, "time", Half())
    assert slowness() == pytest.approx(2, rel=0.1)


def test_the_better_figure_counts_and_of_what_is_wrong_the_worse_one():
    """A busy moment makes nothing a regression; a failed request is never made good."""
    assert GOALS["freshness flask"].better(90.0, 60.0) == 60.0
    assert GOALS["throughput flask"].better(0.5, 1.0) == 1.0
    assert GOALS["offences"].better(1.0, 0.0) == 1.0


def test_gross_regressions_are_told_and_small_ones_are_not():
    """Told are a factor of 2 in what is steady, and everything that must never be."""
    known = {"throughput flask": 1.0, "freshness flask": 40.0, "latency flask gthread slowest": 5.0}
    fine = {"throughput flask": 0.6, "freshness flask": 79.0, "offences": 0.0}
    # Within its limit, or too much of a chance to be compared.
    fine |= {"latency flask gthread slowest": 300.0}
    assert regressions(fine, known) == []
    assert regressions({"freshness flask": 49.0}, {"freshness flask": 1.0}) == []
    worse = {"throughput flask": 0.4, "freshness flask": 81.0, "offences": 1.0}
    assert len(regressions(worse, known)) == 3
    assert len(regressions(worse, {})) == 1


def test_a_report_has_the_machine_every_goal_and_every_section(results):
    """The page tells where it was measured, each figure beside its goal, and each case's table."""
    told = command.sections(results)
    page = render(results, told, "performance")
    assert "Measured on 2026-01-02: 2 processors (a fine one)" in page
    assert "Not installed, and so not compared: gevent, uWSGI, granian." in page.replace("\n", " ")
    assert all(goal.what in page for goal in GOALS.values())
    assert all(f"## {section.title}" in page for section in told)
    assert findings(told).keys() == GOALS.keys()
    assert "could not be measured" not in page


def test_a_busy_machine_is_told():
    """A machine that had other things to do when the run began is said to have had them."""
    assert "quiet" not in place(Results(machine=MACHINE, load=0.1))
    told = " ".join(place(Results(machine=MACHINE, load=3.0)).split())
    assert "load average was 3.00: it was **not quiet**" in told


def test_a_table_has_its_figures_to_the_right():
    """The first column is text, the others are figures."""
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"


def test_what_was_measured_is_shown_whatever_else_failed(results):
    """A case that measured too little is named in the report, which has all others."""
    results.cases["growth"] = {"modules": {}}
    results.failures["idle"] = ["idle: genwsgi gevent: OSError: too many `files`"]
    told = command.sections(results)
    page = render(results, told, "performance")
    assert len(told) == len(MEASURED) - 1
    assert "- `growth: not enough was measured" in page
    assert "- `idle: genwsgi gevent: OSError: too many 'files'`" in page


def test_results_are_added_to_on_the_same_machine_only(tmp_path):
    """What another machine has measured, or other versions, is not mixed with what is new."""
    path = tmp_path / "folder" / "results.json"
    Results(machine=machine(), cases={"idle": {"deploys": 1}}).write(path)
    assert Results.begin(path).cases == {"idle": {"deploys": 1}}
    Results(machine=MACHINE, cases={"idle": {"deploys": 1}}).write(path)
    again = Results.begin(path)
    assert (again.cases, again.machine) == ({}, machine())
    assert Results.read(path).machine == MACHINE
    assert Results.read(tmp_path / "none") == Results()


def written(results: Results, folder: Path) -> list[str]:
    results.write(folder / "results.json")
    page = folder / "page.md"
    assert not command.main(
        ["--render", f"--results={folder / 'results.json'}", f"--document={page}"]
    )
    assert page.read_text().startswith("# Performance")
    return sorted(path.name for path in (folder / "page").iterdir())


def test_plots_are_drawn_from_the_results_file(results, tmp_path):
    """Each plot that the page shows is drawn, and the same data is the same file."""
    shown = {f"{name}.svg" for one in command.sections(results) for name in one.plots}
    assert set(written(results, tmp_path)) == shown
    PLOTS["growth"](results.cases["growth"], tmp_path)
    again = (tmp_path / "growth.svg").read_bytes()
    assert again == (tmp_path / "page" / "growth.svg").read_bytes()


def test_a_report_needs_nothing_to_draw_with(results, tmp_path, monkeypatch, capsys):
    """Without matplotlib the page is written, and it is said that the plots are not."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert written(results, tmp_path) == []
    assert "matplotlib is not installed" in capsys.readouterr().out


def test_an_unknown_case_is_named(capsys):
    """A case that there is not ends the command, which names those that there are."""
    with pytest.raises(SystemExit):
        command.main(["speed"])
    assert "no such case: speed; there are throughput" in capsys.readouterr().err


def test_nothing_is_rendered_from_nothing(tmp_path, capsys):
    """Without a results file there is nothing to show, and the page is left as it is."""
    with pytest.raises(SystemExit):
        command.main(["--render", f"--results={tmp_path / 'none'}", f"--document={tmp_path}/a.md"])
    assert "nothing is measured yet" in capsys.readouterr().err
    assert not (tmp_path / "a.md").exists()

"""Tests of genwsgi.triggers.amqp.trigger."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from genwsgi.deploy.protocol import OrderOutcome, Release
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.triggers.amqp.builder import Request, Result
from genwsgi.triggers.amqp.trigger import CoordinatorBuilder, make

LOG = logging.getLogger("genwsgi")


def test_it_is_installed_as_any_other_trigger_is():
    """It is found by its entry point."""
    (entry,) = entry_points(group="genwsgi.triggers", name="amqp")
    assert entry.load() is make


def test_without_a_broker_there_is_none(tmp_path: Path):
    """No --amqp, no trigger; with it there is one that is not connected before it is started."""
    assert make({"watch": True}, lambda *_: None, LOG) is None
    options = {"amqp": "amqp://h/", "amqp_allow_unsigned": True, "run_dir": str(tmp_path)}
    made = make(options, lambda *_: None, LOG)
    assert made is not None
    assert made.name == "amqp"
    assert made.status()["connected"] is False


def test_requests_become_orders_and_outcomes_results(tmp_path: Path):
    """What is requested is submitted under its id, and the outcome comes back."""
    submitted: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    directory = RunDirectory(str(tmp_path))

    def submit(*words: str, **order: Any) -> None:
        submitted.append((words, order))

    builder = CoordinatorBuilder(submit, directory, "shop:app")
    told: list[Result] = []
    builder.request(Request("a", "v2: shop", "/srv/2", ("shop",), 30.0), told.append)
    words, order = submitted.pop()
    then = order.pop("then")
    assert words == ("amqp", "v2: shop")
    assert order == {"id": "a", "path": "/srv/2", "modules": ("shop",), "hold": 30.0}
    then(OrderOutcome("a", "failed", 3, "why", "Traceback", 0.5, 2))
    assert told == [Result("failed", 3, 2, 0.5, "why")]
    builder.withdraw("a", "called off")
    assert submitted == [(("amqp", "called off"), {"id": "a", "withdraw": True})]


def test_what_is_committed_is_what_the_run_directory_says(tmp_path: Path):
    """Where it can't be read, it is what it was."""
    directory = RunDirectory(str(tmp_path))
    builder = CoordinatorBuilder(lambda *_: None, directory, "")
    assert builder.committed() == 0
    directory.record(Release(4, "digest", "amqp", "", 0.0, ("/srv/2",)))
    assert builder.committed() == 4
    assert directory.committed().path == ("/srv/2",)
    (tmp_path / "committed").unlink()
    assert builder.committed() == 4

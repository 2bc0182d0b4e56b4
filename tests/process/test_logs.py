"""What the logs of the real command have for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import wait_until
from tests.process.harness import Server, application, put, serving

ATOMS = "%(s)s %({genwsgi.generation}e)s %({genwsgi.release}e)s"


def steps(server: Server) -> list[dict[str, Any]]:
    """The steps that are in the log; every line of it is one object of JSON."""
    lines = [
        json.loads(line) for line in server.log().splitlines(keepends=True) if line[-1] == "\n"
    ]
    return [line for line in lines if "step" in line]


@pytest.mark.parametrize("worker_class", ["gthread", "gevent", "sync"])
def test_the_logs_tell_programs_everything(tmp_path: Path, worker_class: str) -> None:
    """The error log has each step of a deploy, the access log which code answered each request."""
    application(tmp_path, "v0")
    access = tmp_path / "access.log"
    options = (
        "--log-json",
        "--verify=/",
        f"--access-logfile={access}",
        f"--access-logformat={ATOMS}",
    )
    with serving(tmp_path, *options, f"--worker-class={worker_class}") as server:
        first = server.get().split()[1:]
        application(tmp_path, "v1")
        # Each worker collects what it has replaced, whether or not the outcome is there already.
        ends = ["collected", "collected", "committed"]
        wait_until(
            lambda: sorted(s["step"] for s in steps(server) if s["step"] in ends) == ends,
            what="its end",
        )
        second = server.get().split()[1:]
        wait_until(lambda: len(access.read_text().splitlines()) == 2, what="both requests")
        assert access.read_text().splitlines() == [
            " ".join(("200", *first)),
            " ".join(("200", *second)),
        ]
        found = [s for s in steps(server) if s.get("release") == second[1]]
        assert [s["step"] for s in found if "worker" not in s] == ["read", "ready", "committed"]
        (order,) = {s["order"] for s in found if "order" in s}
        ordered = next(s for s in steps(server) if s.get("order") == order)
        assert (ordered["step"], ordered["trigger"]) == ("ordered", "watch")
        old = [s for s in steps(server) if s.get("release") == first[1]]
        for pid in server.workers():
            mine = [(s["step"], s["generation"]) for s in found if s.get("worker") == pid]
            assert mine == [("built", 2), ("verified", 2), ("swapped", 2)]
            mine = [(s["step"], s["generation"]) for s in old if s.get("worker") == pid]
            assert mine[0] == ("built", 1)
            assert mine[-2:] == [("retired", 1), ("collected", 1)]
        assert all(s["seconds"] >= 0 for s in found)
        put(tmp_path / "myapp.py", "import not_installed_anywhere\n")
        (failed,) = wait_until(
            lambda: [s for s in steps(server) if s["step"] == "failed"], what="the failure"
        )
        assert failed["release"].startswith("3-")
        assert "ModuleNotFoundError" in failed["message"].splitlines()[-1]

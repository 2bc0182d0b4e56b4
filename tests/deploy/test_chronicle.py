"""Tests of genwsgi.deploy.chronicle."""

from __future__ import annotations

import logging

import pytest

from genwsgi.deploy.actions import Order
from genwsgi.deploy.chronicle import Chronicle
from genwsgi.deploy.orders import Pending
from genwsgi.deploy.protocol import OrderOutcome, Outcome, Release
from genwsgi.deploy.running import Deploy
from genwsgi.isolation.scope import Addition
from genwsgi.steps import FIELDS

OLD = Release(1, "a" * 64, "start", "", 0.0)
NEW = Release(2, "b" * 64, "watch", "", 0.0)
ORDER = Order("o1", "watch", False, "changed: a.py")


@pytest.fixture
def chronicle(caplog: pytest.LogCaptureFixture) -> Chronicle:
    """One that writes into ``caplog``."""
    caplog.set_level(logging.INFO, logger="tests.chronicle")
    return Chronicle(logging.getLogger("tests.chronicle"))


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    """The lines, and the fields of each."""
    return [
        (one.getMessage(), {name: vars(one)[name] for name in FIELDS if name in vars(one)})
        for one in caplog.records
    ]


def deploy(release: Release | None) -> Deploy:
    """A deploy for ORDER that began at 10."""
    return Deploy(Pending(ORDER, 10.0, False, False), 10.0, 70.0, release=release)


def outcome(kind: str, number: int | None, reason: str = "", traceback: str = "") -> OrderOutcome:
    return OrderOutcome(ORDER.id, kind, number, reason, traceback, 0.5)


def fields(name: str, release: str = "", seconds: float | None = None) -> dict[str, object]:
    """What a step of ORDER has."""
    found: dict[str, object] = {"step": name, "order": "o1", "trigger": "watch"}
    if release:
        found["release"] = release
    if seconds is not None:
        found["seconds"] = seconds
    return found


def test_a_deploy_step_by_step(chronicle, caplog):
    """From the order to the commit each step is one line, with what it is about and its time."""
    chronicle.ordered(ORDER)
    chronicle.read(deploy(NEW), 10.25)
    chronicle.ready(deploy(NEW), 10.5)
    chronicle.ended(ORDER, outcome(Outcome.COMMITTED, 2, "a note"), NEW)
    assert told(caplog) == [
        ("order o1: deploy by watch: changed: a.py", fields("ordered")),
        ("release 2-bbbbbbbb is read after 0.250 s", fields("read", "2-bbbbbbbb", 0.25)),
        (
            "release 2-bbbbbbbb is ready in all workers after 0.500 s",
            fields("ready", "2-bbbbbbbb", 0.5),
        ),
        (
            "order o1 by watch: committed: release 2-bbbbbbbb is live after 0.500 s; a note",
            fields("committed", "2-bbbbbbbb", 0.5),
        ),
    ]


def test_a_failure_is_about_the_release_that_failed(chronicle, caplog):
    """The line says what serves on, the field which release it was, and the traceback is whole."""
    chronicle.read(deploy(NEW), 10.25)
    failed = outcome(Outcome.FAILED, 2, "no module x", "Traceback ...")
    chronicle.ended(ORDER, failed, OLD)
    assert told(caplog)[1:] == [
        (
            "order o1 by watch: failed: no module x; release 1-aaaaaaaa serves on\nTraceback ...",
            fields("failed", "2-bbbbbbbb", 0.5),
        )
    ]
    assert caplog.records[-1].levelno == logging.ERROR


def test_what_can_not_be_read_has_no_release(chronicle, caplog):
    """A deploy that ends before there is a release is about none."""
    chronicle.read(deploy(None), 10.25)
    chronicle.read(None, 10.25)
    chronicle.ready(None, 10.25)
    chronicle.ended(ORDER, outcome(Outcome.REFUSED, None, "not below a root"), OLD)
    assert told(caplog) == [
        (
            "order o1 by watch: refused: not below a root; release 1-aaaaaaaa serves on",
            fields("refused", seconds=0.5),
        )
    ]


def test_what_is_served_already_is_named(chronicle, caplog):
    """An order that changes nothing is about the release that serves."""
    chronicle.ended(ORDER, outcome(Outcome.UNCHANGED, 1, "this code already"), OLD)
    assert told(caplog) == [
        ("order o1 by watch: unchanged: this code already", fields("unchanged", "1-aaaaaaaa", 0.5))
    ]


def test_what_makes_a_deploy_longer_is_told(chronicle, caplog):
    """That the scope has grown, and that an order is held, is in the log too."""
    chronicle.grows(ORDER, [Addition("swapper", "it imports shop")])
    chronicle.held(Order("o2", "amqp", False, "", hold=30.0))
    (grown, _), (held, _) = told(caplog)
    assert grown == (
        "order o1 begins anew, for its scope was too small: "
        "swapper joins the scope: it imports shop"
    )
    assert held == "order o2 by amqp: prepared, and held for the word for 30 s at most"

"""Tests of genwsgi.steps."""

from __future__ import annotations

import logging
import os

from genwsgi.steps import FIELDS, step


def test_a_worker_s_step_has_its_pid():
    """What a generation does is done by a worker, and that is named."""
    assert step("built", release="2-abc", generation=3, seconds=0.12345678) == {
        "step": "built",
        "release": "2-abc",
        "generation": 3,
        "worker": os.getpid(),
        "seconds": 0.123457,
    }


def test_what_a_step_does_not_have_is_not_there():
    """An order without a release has no field for one; no time at all is a time."""
    assert step("failed", order="o", trigger="watch", seconds=0.0) == {
        "step": "failed",
        "order": "o",
        "trigger": "watch",
        "seconds": 0.0,
    }


def test_the_fields_fit_into_a_record():
    """None of the names is one that a log record has already, which would be refused."""
    whole = step("read", order="o", trigger="t", release="r", generation=1, seconds=1.0)
    assert tuple(whole) == FIELDS
    record = logging.getLogger("x").makeRecord("x", 20, "f", 1, "m", (), None, extra=whole)
    assert {name: vars(record)[name] for name in FIELDS} == whole

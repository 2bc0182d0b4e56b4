"""Tests of genwsgi.server.jsonlines."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from gunicorn.config import Config
from gunicorn.glogging import Logger

from genwsgi.server.jsonlines import JSONFormatter, with_json
from genwsgi.steps import step


def line_of(record: logging.LogRecord) -> dict[str, object]:
    """What the one line that a record makes says."""
    text = JSONFormatter().format(record)
    assert text.splitlines() == [text]
    found: dict[str, object] = json.loads(text)
    return found


def record(message: str = "said", **given: object) -> logging.LogRecord:
    """A record of genwsgi's."""
    made = logging.LogRecord("genwsgi", logging.INFO, "f", 1, message, (), None)
    vars(made).update(given)
    return made


def test_a_record_is_one_object():
    """Time in UTC, level, logger, process and message are always there, and nothing else."""
    assert line_of(record("two\nlines, ünïcode", created=1.5)) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "logger": "genwsgi",
        "pid": os.getpid(),
        "message": "two\nlines, ünïcode",
    }


def test_a_step_s_fields_are_there():
    """The fields of a step stand beside the message, with their types."""
    made = record()
    vars(made).update(step("built", release="2-a", generation=2, seconds=0.5))
    line = line_of(made)
    found = (line["step"], line["release"], line["generation"], line["worker"], line["seconds"])
    assert found == ("built", "2-a", 2, os.getpid(), 0.5)


def test_an_exception_has_its_traceback():
    """What was raised is in a field of its own, whole."""
    try:
        raise ValueError("wrong")
    except ValueError:
        made = record(exc_info=sys.exc_info())
    line = line_of(made)
    assert line["message"] == "said"
    assert str(line["traceback"]).startswith("Traceback (most recent call last):\n")
    assert str(line["traceback"]).endswith("ValueError: wrong")


def test_what_json_does_not_know_is_written_as_text():
    """A field of a kind that JSON has no word for does not lose the line."""
    assert line_of(record(seconds=Path("x")))["seconds"] == "x"


def test_only_the_error_log_is_json(tmp_path: Path):
    """The access log keeps its format, which is the operator's; so it stays when set up again."""
    cfg = Config()
    cfg.set("errorlog", str(tmp_path / "error.log"))
    cfg.set("accesslog", str(tmp_path / "access.log"))

    class Mine(Logger):
        """Somebody's own logger."""

    logger = with_json(Mine)(cfg)
    try:
        assert isinstance(logger, Mine)
        logger.info("first %s", "line")
        before = [*logger.error_log.handlers, *logger.access_log.handlers]
        logger.setup(cfg)
        for handler in before:
            handler.close()  # which gunicorn leaves open
        logger.warning("second")
        logger.access_log.info("GET /")
    finally:
        for log in (logger.error_log, logger.access_log):
            for handler in log.handlers[:]:
                handler.close()
                log.removeHandler(handler)
    lines = [json.loads(line) for line in (tmp_path / "error.log").read_text().splitlines()]
    assert [(one["level"], one["message"]) for one in lines] == [
        ("info", "first line"),
        ("warning", "second"),
    ]
    assert (tmp_path / "access.log").read_text() == "GET /\n"

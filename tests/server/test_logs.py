"""Tests of genwsgi.server.logs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from genwsgi.server import logs
from genwsgi.server.logs import join_error_log


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Put gunicorn's loggers and genwsgi's back as they were."""
    kept = [logging.getLogger(name) for name in ("gunicorn.error", "gunicorn.access", logs.NAME)]
    states = [(log, log.handlers[:], log.level, log.propagate) for log in kept]
    for log in kept:
        log.handlers[:] = []
    yield
    for log, handlers, level, propagate in states:
        for handler in log.handlers:
            if handler not in handlers:
                handler.close()
        log.handlers[:] = handlers
        log.setLevel(level)
        log.propagate = propagate


def gunicorn_log(path: Path, level: str = "info") -> Logger:
    """The logger of gunicorn, writing to ``path``."""
    cfg = Config()
    cfg.set("errorlog", str(path))
    cfg.set("loglevel", level)
    return Logger(cfg)


def test_it_writes_where_the_error_log_goes(tmp_path: Path) -> None:
    """A line of genwsgi's is in gunicorn's error log, once, from gunicorn's level on."""
    gunicorn_log(tmp_path / "error.log", "warning")
    log = join_error_log()
    log.warning("written")
    log.info("not written")
    logging.getLogger("genwsgi").error("too")
    lines = (tmp_path / "error.log").read_text().splitlines()
    assert [line.rpartition("] ")[2] for line in lines] == ["written", "too"]


def test_a_name_that_is_no_text_loses_no_line(tmp_path: Path) -> None:
    """A line with a file's name that has no UTF-8 is written, also after the file is reopened."""
    logger = gunicorn_log(tmp_path / "error.log")
    log = join_error_log()
    log.error("%s does not compile", os.fsdecode(b"one\xff.py"))
    logger.reopen_files()
    log.error("%s does not compile", os.fsdecode(b"two\xff.py"))
    lines = (tmp_path / "error.log").read_text().splitlines()
    names = [line.rpartition("] ")[2].split()[0] for line in lines]
    assert names == [r"one\udcff.py", r"two\udcff.py"]


def test_joining_again_writes_nothing_twice(tmp_path: Path) -> None:
    """It may be called in the master and again in a forked worker."""
    gunicorn_log(tmp_path / "error.log")
    join_error_log()
    join_error_log().info("once")
    assert (tmp_path / "error.log").read_text().count("once") == 1


def test_it_follows_an_error_log_that_was_set_up_anew(tmp_path: Path) -> None:
    """After gunicorn's reload gave its log another file, genwsgi's lines go there too."""
    logger = gunicorn_log(tmp_path / "old.log")
    join_error_log()
    (old,) = logging.getLogger("gunicorn.error").handlers
    logger.cfg.set("errorlog", str(tmp_path / "new.log"))
    logger.setup(logger.cfg)
    join_error_log().info("moved")
    old.close()
    assert "moved" in (tmp_path / "new.log").read_text()
    assert "moved" not in (tmp_path / "old.log").read_text()


def test_a_configuration_of_its_own_is_left_alone(tmp_path: Path) -> None:
    """Who has given genwsgi's logger a handler gets its lines there, and not in the error log."""
    gunicorn_log(tmp_path / "error.log")
    own = logging.FileHandler(tmp_path / "own.log")
    logging.getLogger("genwsgi").addHandler(own)
    logging.getLogger("genwsgi").setLevel(logging.DEBUG)
    join_error_log().debug("mine")
    assert "mine" in (tmp_path / "own.log").read_text()
    assert (tmp_path / "error.log").read_text() == ""

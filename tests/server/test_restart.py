"""Tests of genwsgi.server.restart."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.pidfile import Pidfile

from genwsgi.errors import OptionError
from genwsgi.server import restart
from genwsgi.server.settings import GenwsgiConfig


def configured(**values: object) -> GenwsgiConfig:
    """A configuration with these settings."""
    cfg = GenwsgiConfig()
    for name, value in values.items():
        cfg.set(name, value)
    return cfg


def test_what_can_be_served_is_taken(tmp_path: Path) -> None:
    """Other workers, logs and numbers are no mistake."""
    log = str(tmp_path / "error.log")
    after = configured(worker_class="sync", workers=3, errorlog=log, accesslog="-")
    restart.check(configured(), after)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bind": "127.0.0.1:1"}, r"the address \(bind\) can't be changed"),
        ({"worker_class": "gevnt"}, "^worker class gevnt can't be used: .* did you mean gevent"),
        ({"accesslog": "nowhere/log"}, "'nowhere/log' isn't writable"),
        ({"keyfile": "none.pem"}, "no TLS with certfile None, keyfile none.pem"),
    ],
)
def test_what_no_worker_could_serve_is_refused(values: dict[str, object], said: str) -> None:
    """One line says what is wrong."""
    with pytest.raises(OptionError, match=said) as caught:
        restart.check(configured(), configured(**values))
    assert len(str(caught.value).splitlines()) == 1


def test_a_log_that_can_not_be_opened_again_is_refused(tmp_path: Path) -> None:
    """Whoever has made it: gunicorn would have closed it by then, and every line would raise."""
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = logging.FileHandler(folder / "shop.log")
    logger = logging.getLogger("tests.restart.shop")
    logger.addHandler(handler)
    try:
        restart.check(configured(), configured())
        folder.rename(tmp_path / "gone")
        with pytest.raises(OptionError, match=r"shop\.log' isn't writable"):
            restart.check(configured(), configured())
    finally:
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("one"), "one"),
        (RuntimeError("one: \n\n[Traceback:\n  here\nE: three\n\n]"), "one: E: three"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("\n"), "RuntimeError"),
        (KeyError("one"), "KeyError: 'one'"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_reason_is_one_line(error: Exception, said: str) -> None:
    """What an error says, and its kind where that says more."""
    assert restart.reason(error) == said


class Log(logging.Logger):
    """A log that follows a configuration."""

    def __init__(self, cfg: Config) -> None:
        super().__init__("tests.restart")
        self.cfg = cfg

    def setup(self, cfg: Config) -> None:
        self.cfg = cfg


@pytest.fixture
def arbiter(tmp_path: Path) -> SimpleNamespace:
    """An arbiter with a pid file and one worker, of age 1."""
    cfg = configured()
    pidfile = Pidfile(str(tmp_path / "one.pid"))
    pidfile.create(os.getpid())
    killed: list[tuple[int, int]] = []
    return SimpleNamespace(
        app=SimpleNamespace(cfg=cfg, target="shop", app_uri="shop"),
        cfg=cfg,
        log=Log(cfg),
        pid=os.getpid(),
        pidfile=pidfile,
        worker_age=1,
        timeout=30,
        WORKERS={11: SimpleNamespace(age=1)},
        killed=killed,
        kill_worker=lambda pid, number: killed.append((pid, number)),
    )


def test_what_fails_half_way_leaves_nothing(
    arbiter: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configuration, log, pid file, environment, paths and workers are those from before."""
    monkeypatch.chdir(tmp_path)
    before = dict(vars(arbiter))
    app, environ, path = dict(vars(arbiter.app)), dict(os.environ), sys.path[:]

    def half_way() -> None:
        arbiter.cfg = arbiter.app.cfg = arbiter.log.cfg = configured(timeout=5)
        arbiter.timeout, arbiter.app.target = 5, "other"
        os.environ["GENWSGI_TEST"] = "left over"
        sys.path.insert(0, "/left-over")
        os.chdir("/")
        arbiter.pidfile.unlink()
        arbiter.pidfile = Pidfile(str(tmp_path / "two.pid"))
        arbiter.pidfile.create(arbiter.pid)
        arbiter.WORKERS[12] = SimpleNamespace(age=2)
        raise KeyError

    with pytest.raises(KeyError), restart.or_as_before(arbiter):
        half_way()
    assert vars(arbiter.app) == app
    assert vars(arbiter) == before
    assert arbiter.log.cfg is arbiter.cfg
    assert (dict(os.environ), sys.path, os.getcwd()) == (environ, path, str(tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == ["one.pid"]
    assert arbiter.killed == [(12, signal.SIGTERM)]


def test_what_goes_well_stays(arbiter: SimpleNamespace) -> None:
    """Without an error nothing is taken back."""
    with restart.or_as_before(arbiter):
        arbiter.timeout = 5
    assert arbiter.timeout == 5


def test_a_forked_worker_takes_nothing_back(arbiter: SimpleNamespace) -> None:
    """The end of a worker goes through, and touches nothing of the master's."""

    def end() -> None:
        arbiter.pid, arbiter.timeout = 1, 5
        raise SystemExit

    with pytest.raises(SystemExit), restart.or_as_before(arbiter):
        end()
    assert arbiter.timeout == 5


def test_a_working_directory_that_was_deleted_is_no_mistake(
    arbiter: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is none, there is none afterwards."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(KeyError), restart.or_as_before(arbiter):
        raise KeyError
    assert arbiter.pidfile.validate() == os.getpid()

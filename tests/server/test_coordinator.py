"""Tests of genwsgi.server.coordinator."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gunicorn import util
from gunicorn.config import Config

from genwsgi.deploy.protocol import Release
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.server import CoordinatorServer
from genwsgi.isolation.store import Store
from genwsgi.server import coordinator
from genwsgi.server.coordinator import LOG_SETTINGS, main, make_source
from tests.helpers import wait_until


class Trigger:
    """A trigger that keeps what happens to it."""

    name = "fake"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.happened: list[str] = []

    def start(self) -> None:
        self.happened.append("start")
        if self.fails:
            raise OSError("no more watches")

    def stop(self) -> None:
        self.happened.append("stop")

    def join(self, timeout: float) -> None:
        self.happened.append("join")

    def status(self) -> dict[str, object]:
        return {"happened": list(self.happened)}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of a server of ``myapp``, whose run directory holds the first release."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "myapp.py").write_text("app = print\n")
    directory = RunDirectory(str(tmp_path / "run"))
    for folder in (directory.path, directory._serving):
        os.mkdir(folder, 0o700)
    options = {
        "module": "myapp",
        "sys_path": [str(root)],
        "own": [str(root)],
        "roots": [str(root)],
        "scope": [],
        "share": [],
        "run_dir": directory.path,
        "watch": True,
        "watch_path": [],
        "watch_pattern": [],
        "watch_ignore": [],
        "watch_polling": False,
        "watch_interval": 1.0,
        "build_timeout": 5.0,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "initgroups": False,
        "handed": {},
        "log_json": False,
        "keep_releases": 5,
        "probation": None,
        "max_error_rate": 0.05,
        "state": str(tmp_path / "state"),
        "release_root": [],
        "log": {"errorlog": str(tmp_path / "error.log"), "loglevel": "info"},
    }
    digest = make_source(options, Store(directory.store)).take()
    directory.record(Release(1, digest, "start", "", 0.0))
    return options


@pytest.fixture
def run(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[int, Any]]:
    """Run ``main`` here with given triggers until the master's pipe ends; its signal handlers."""

    def run(*triggers: Trigger, when: Callable[[], object] = lambda: True) -> dict[int, Any]:
        pipe, master = os.pipe()
        handlers: dict[int, Any] = {}
        exits: list[int] = []
        servers: list[CoordinatorServer] = []
        loggers = [logging.getLogger(name) for name in ("gunicorn.error", "genwsgi")]
        before = [(log, log.handlers[:], log.level, log.propagate) for log in loggers]
        for log in loggers:
            log.handlers[:] = []
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["-c", str(pipe)])
            patch.setattr(signal, "signal", handlers.__setitem__)
            patch.setattr(os, "_exit", exits.append)
            patch.setattr(util, "_setproctitle", lambda title: None)
            patch.setattr(coordinator, "make_triggers", lambda *_: list(triggers))

            def make_server(*args: Any, **keywords: Any) -> CoordinatorServer:
                servers.append(CoordinatorServer(*args, **keywords))
                return servers[0]

            patch.setattr(coordinator, "CoordinatorServer", make_server)

            def end() -> None:
                wait_until(when, what="the moment to end")
                os.close(master)

            thread = threading.Thread(target=end)
            thread.start()
            try:
                main(options)
            finally:
                thread.join(10)
                os.close(pipe)
                for end_of_wake in (servers[0]._wake_in, servers[0]._wake_out):
                    end_of_wake.close()  # the end of the process does it
                servers[0]._selector.close()
                for log, kept, level, propagate in before:
                    for handler in log.handlers:
                        handler.close()
                    log.handlers[:] = kept
                    log.setLevel(level)
                    log.propagate = propagate
        assert exits == [0]
        return handlers

    return run


def _log(options: dict[str, Any]) -> str:
    return Path(options["log"]["errorlog"]).read_text()


def test_the_log_settings_are_gunicorns() -> None:
    """Each setting that goes to the coordinator exists, and none that decides on a log is left."""
    settings = Config().settings
    assert set(LOG_SETTINGS) <= set(settings)
    logs = {name for name, setting in settings.items() if setting.section == "Logging"}
    elsewhere = {name for name in logs if name.startswith(("access", "dogstatsd", "statsd"))}
    elsewhere |= {"disable_redirect_access_to_syslog", "capture_output", "enable_stdio_inheritance"}
    elsewhere |= {"enable_backlog_metric"}
    assert logs - elsewhere <= set(LOG_SETTINGS)


def test_the_source_is_read_as_the_options_say(options: dict[str, Any], tmp_path: Path) -> None:
    """Module, path, scope, share and patterns decide what a snapshot holds."""
    root = tmp_path / "root"
    (root / "shared.py").write_text("")
    (tmp_path / "lib" / "named").mkdir(parents=True)
    (tmp_path / "lib" / "named" / "__init__.py").write_text("")
    (root / "page.html").write_text("one")
    more = {
        "sys_path": [str(root), str(tmp_path / "lib")],
        "scope": ["named"],
        "share": ["shared"],
        "watch_pattern": ["*.html"],
    }
    source = make_source({**options, **more}, Store(str(tmp_path / "store")))
    assert sorted(source.scope().packages) == ["myapp", "named"]
    first = source.take()
    (root / "page.html").write_text("two")
    assert source.take() != first


def test_it_runs_until_the_master_is_gone(
    options: dict[str, Any], run: Callable[..., dict[int, Any]]
) -> None:
    """It listens, runs its triggers, looks at the files once, and ends them when the pipe ends."""
    trigger = Trigger()
    socket = os.path.join(options["run_dir"], "coordinator.sock")
    run(trigger, when=lambda: os.path.exists(socket) and "unchanged" in _log(options))
    assert trigger.happened == ["start", "stop", "join"]
    assert "deploy by watch: a look at the files as the watch begins" in _log(options)


def test_without_a_watch_it_does_not_look_at_the_files(
    options: dict[str, Any], run: Callable[..., dict[int, Any]]
) -> None:
    """With ``--no-watch`` no order is given by itself."""
    options["watch"] = False
    run(when=lambda: os.path.exists(os.path.join(options["run_dir"], "coordinator.sock")))
    assert _log(options) == ""


def test_its_signals(run: Callable[..., dict[int, Any]]) -> None:
    """SIGTERM and SIGUSR1 are handled, and what a terminal or a logout sends is ignored."""
    handlers = run()
    assert handlers[signal.SIGINT] is signal.SIG_IGN
    assert handlers[signal.SIGHUP] is signal.SIG_IGN
    assert callable(handlers[signal.SIGUSR1])
    assert callable(handlers[signal.SIGTERM])


def test_a_trigger_that_can_not_start_is_left_out(
    options: dict[str, Any], run: Callable[..., dict[int, Any]]
) -> None:
    """One trigger's failure is in the log, and the others start all the same."""
    broken, sound = Trigger(fails=True), Trigger()
    run(broken, sound, when=lambda: "start" in sound.happened)
    assert broken.happened == ["start"]
    assert sound.happened == ["start", "stop", "join"]
    assert "the trigger fake can't start; its orders will not come" in _log(options)
    assert "OSError: no more watches" in _log(options)


def test_what_ends_it_is_in_the_log(
    options: dict[str, Any], run: Callable[..., dict[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of its own is logged with its traceback before it ends."""

    def run_server(self: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(CoordinatorServer, "run", run_server)
    run()
    assert "the coordinator stumbled and ends; the master starts another" in _log(options)
    assert "RuntimeError: a bug" in _log(options)


def test_metrics_that_can_not_be_given_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong with the metrics is in the log, and the coordinator goes on."""
    server: Any = None
    coordinator._answer_scrapes(-1, server, logging.getLogger("tests.coordinator"))
    assert "the metrics can't be given" in caplog.text

"""Tests of genwsgi.server.application, and of what it leans on in gunicorn."""

from __future__ import annotations

import inspect
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gunicorn.app.base import Application, BaseApplication
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError

import genwsgi
from genwsgi.deploy.notices import places
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import BuildError, GenwsgiError, RunDirectoryError, TargetError
from genwsgi.isolation.store import Store
from genwsgi.server import application
from genwsgi.server.application import GenwsgiApplication
from genwsgi.server.coordinator import make_source

Command = Callable[..., GenwsgiApplication]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Read a command line, in a folder with the application ``myapp``, as the command does."""
    (tmp_path / "myapp.py").write_text("def app(environ, start_response):\n    return []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__config__", sys)  # so that it is removed again
    for name in ("GUNICORN_CMD_ARGS", "GUNICORN_PID", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    # Short, because a unix socket's path must be.
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")

    def command(*arguments: str, file: str = "") -> GenwsgiApplication:
        (tmp_path / "config.py").write_text(file)
        # gunicorn has taken this process's folder for --chdir when it was imported.
        given = ["--chdir", str(tmp_path), "-c", str(tmp_path / "config.py"), *arguments]
        monkeypatch.setattr(sys, "argv", ["genwsgi", *given])
        return GenwsgiApplication(prog="genwsgi")

    return command


# -- what we lean on in gunicorn -------------------------------------------------------------------


def test_gunicorns_run_methods_lead_to_ours() -> None:
    """WSGIApplication has no ``run`` of its own, and Application's ends in the next one's."""
    assert "run" not in vars(WSGIApplication)
    assert inspect.getsource(Application.run).rstrip().endswith("super().run()")
    order = GenwsgiApplication.__mro__
    assert order.index(Application) < order.index(application._Run) < order.index(BaseApplication)


def test_gunicorn_loads_the_callable_once(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """A worker asks with ``app.wsgi()``, which calls ``load`` once and keeps what it returned."""
    app = command("myapp")
    calls: list[object] = []

    def load() -> object:
        calls.append(1)
        return print

    monkeypatch.setattr(app, "load", load)
    assert app.wsgi() is app.wsgi() is print
    assert calls == [1]


def test_gunicorn_prints_an_app_import_error_as_it_is() -> None:
    """The text of an AppImportError is what a worker that can't load shows, without a traceback."""
    source = inspect.getsource(Arbiter.spawn_worker)
    assert "except AppImportError as e:" in source
    assert 'print("%s" % e, file=sys.stderr)' in source


# -- the configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "file", "target"),
    [
        (("myapp:app",), "", "myapp:app"),
        ((), "wsgi_app = 'myapp:app'", "myapp:app"),
        (("myapp",), "wsgi_app = 'other:app'", "myapp"),
    ],
)
def test_the_target(command: Command, arguments: tuple[str, ...], file: str, target: str) -> None:
    """It is the command line's, or the config file's ``wsgi_app``."""
    assert command(*arguments, file=file).target.text == target


@pytest.mark.parametrize(
    ("arguments", "file", "line"),
    [
        ((), "", "nothing to serve: write MODULE[:NAME], such as myapp:create_app"),
        (("myapp", "other"), "", "one MODULE[:NAME] is served, and this is more: other"),
        (("myapp:",), "", "target 'myapp:': no NAME after the colon"),
        ((), "paste = 'x.ini'", "--paste loads an application that has no module"),
        (("myapp",), "preload_app = True", "--preload (preload_app) can't be combined"),
    ],
)
def test_what_can_not_be_served_is_refused(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    file: str,
    line: str,
) -> None:
    """The reason is one line, and the exit status not zero."""
    with pytest.raises(SystemExit) as caught:
        command(*arguments, file=file)
    assert caught.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"Error: {line}")
    assert "\n" not in said


def test_the_options_for_the_coordinator_are_plain_and_absolute(
    command: Command, tmp_path: Path
) -> None:
    """All of them survive JSON; paths mean the same in every folder; ours keep their values."""
    app = command(
        "--pythonpath=lib,more", "--watch-path=data", "--scope=a,b", "--no-watch",
        "--log-level=debug", "--error-logfile=error.log", "myapp:app",
    )  # fmt: skip
    app.directory = RunDirectory(str(tmp_path / "run"))
    options = app.options()
    assert json.loads(json.dumps(options)) == {
        name: list(value) if isinstance(value, tuple) else value for name, value in options.items()
    }
    assert options["module"] == "myapp"
    assert options["own"] == [str(tmp_path), str(tmp_path / "lib"), str(tmp_path / "more")]
    assert options["watch_path"] == [str(tmp_path / "data")]
    assert (list(options["scope"]), options["watch"]) == (["a", "b"], False)
    assert "__pycache__" in options["watch_ignore"]
    assert (options["log"]["loglevel"], options["log"]["errorlog"]) == ("debug", "error.log")


def test_the_coordinator_boots_from_no_folder_of_the_application(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may write there, and it may be root still; but where genwsgi is it has to look."""
    checkout = os.path.dirname(os.path.dirname(genwsgi.__file__))
    app = command("--pythonpath=lib", "myapp:app")
    app.directory = RunDirectory(str(tmp_path / "run"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "lib"), "/site", checkout])
    assert app.options()["boot_path"] == ["/site", checkout]
    app.cfg.set("chdir", checkout)
    assert checkout in app.options()["boot_path"]


def test_what_only_the_config_file_knows_is_left_out(command: Command, tmp_path: Path) -> None:
    """A class or an object of the config file's can't be told to the coordinator."""
    file = (
        "from gunicorn.glogging import Logger\n"
        "class Mine(Logger): pass\n"
        "logger_class = Mine\n"
        "logconfig_dict = {'filters': {'x': {'()': Mine}}}\n"
        "proc_name = 'mine'\n"
    )
    app = command("myapp", file=file)
    app.directory = RunDirectory(str(tmp_path / "run"))
    log = app.options()["log"]
    assert "logger_class" not in log
    assert "logconfig_dict" not in log
    assert log["proc_name"] == "mine"
    json.dumps(log)


# -- the master ------------------------------------------------------------------------------------


def test_open_commits_the_code_it_starts_with(command: Command, tmp_path: Path) -> None:
    """There is a private run directory with a snapshot and settings; ``close`` removes it."""
    app = command("--run-dir=run", "myapp")
    app.open()
    directory = app.directory
    assert directory is not None
    assert directory.path == str(tmp_path / "run")
    assert stat.S_IMODE(os.stat(directory.path).st_mode) == 0o700
    release = directory.committed()
    assert (release.number, release.trigger) == (1, "start")
    settings = json.loads(app.told)
    assert settings["roots"] == [str(tmp_path)]
    snapshot = Store(directory.store).open(release.digest)
    assert str(tmp_path / "myapp.py") in snapshot.files
    snapshot.release()
    assert make_source(settings, Store(directory.store)).take() == release.digest
    app.close()
    assert not os.path.exists(directory.path)


def test_a_run_directory_with_a_name_is_found_as_long_as_the_server_is_there(
    command: Command, tmp_path: Path
) -> None:
    """A notice leads to it; a check, which leaves it alone, puts up none."""
    place = str(tmp_path / "run")
    for options, found in ((["--check-config"], False), ([], True)):
        app = command(*options, "--run-dir=run", "myapp:app")
        app.open()
        assert (place in places()) is found
        assert app.directory is not None
        assert app.directory.server() == (os.getpid(), "myapp:app")
        app.close()
        assert place not in places()


def test_a_server_that_no_place_can_tell_of_serves_without(
    command: Command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no folder of temporary files can be written, one line says how it is found."""

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    app = command("--run-dir", "run", "myapp")
    try:
        app.open()
        assert app.directory is not None
        shown = f"genwsgictl finds this server with --run-dir {app.directory.path} only: "
        assert shown in caplog.text
    finally:
        app.close()


def test_a_second_server_on_the_way_to_replace_the_first(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGUSR2 the run directory is beside that of the first, and only then."""
    first, second, third = (command("--run-dir=run", "myapp") for _ in range(3))
    first.open()
    with pytest.raises(RunDirectoryError, match="in use by a running server"):
        second.open()
    monkeypatch.setenv("GUNICORN_PID", "1")
    second.open()
    assert first.directory is not None
    assert second.directory is not None
    assert second.directory.path == first.directory.path + ".2"
    with pytest.raises(RunDirectoryError, match=r"run\.2: is in use"):
        third.open()
    for app in (first, second, third):
        app.close()


@pytest.mark.parametrize("error", [GenwsgiError("the moon"), RuntimeError("the moon")])
def test_a_mistake_ends_with_one_line(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """What the master can't start with is one line and exit status 2."""

    class Failing:
        def __init__(self, app: object) -> None:
            pass

        def run(self) -> None:
            raise error

    app = command("myapp")
    monkeypatch.setattr(application, "GenwsgiArbiter", Failing)
    with pytest.raises(SystemExit) as caught:
        app.run()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "genwsgi: the moon\n"


# -- a worker --------------------------------------------------------------------------------------


@pytest.fixture
def opened(command: Command) -> Iterator[GenwsgiApplication]:
    """An application whose master has opened it."""
    app = command("--run-dir=run", "myapp")
    app.open()
    yield app
    app.close()


def test_the_first_worker_that_can_not_boot_shows_why(opened: GenwsgiApplication) -> None:
    """One shows the traceback whole, the others point to it; both halt the server."""
    error = BuildError("myapp", "ZeroDivisionError", "Traceback\n  line\nZeroDivisionError")
    with pytest.raises(AppImportError) as first:
        opened._refuse(error)
    assert str(first.value) == (
        "Traceback\n  line\nZeroDivisionError\ntarget 'myapp' could not be built: ZeroDivisionError"
    )
    with pytest.raises(AppImportError) as second:
        opened._refuse(error)
    assert str(second.value) == "(as the other worker said)"


def test_a_target_that_is_not_there_is_one_line(opened: GenwsgiApplication) -> None:
    """Without a traceback of the application there is none at all."""
    with pytest.raises(AppImportError, match=r"^target 'myapp:x': no such name$"):
        opened._refuse(TargetError("myapp:x", "no such name"))


def test_a_worker_that_can_not_boot_later_does_not_halt_the_server(
    opened: GenwsgiApplication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the release was served, a worker waits a moment and ends with a status of its own."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert opened.directory is not None
    opened.directory.first("served")
    with pytest.raises(SystemExit) as caught:
        opened._refuse(BuildError("myapp", "KeyError", "Traceback"))
    assert caught.value.code == 1
    assert pauses == [1.0]
    assert "this worker can't boot; another one will try\nTraceback" in caplog.text


def test_a_check_leaves_the_process_as_it_was(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """``--check-config`` builds in another process, and takes away all it needed for that."""
    (tmp_path / "run").mkdir(mode=0o755)
    app = command("--check-config", "--run-dir=run", "myapp")
    before = type(sys.modules), __import__, set(sys.modules)
    with pytest.raises(SystemExit) as caught:
        app.run()
    assert caught.value.code == 0
    assert (type(sys.modules), __import__) == before[:2]
    assert not {name for name in set(sys.modules) - before[2] if name.startswith("myapp")}
    assert app.directory is not None
    assert not os.path.exists(app.directory.path)
    wrong = command("--check-config", "myapp:ap")
    with pytest.raises(SystemExit) as caught:
        wrong.run()
    assert str(caught.value.code).startswith("target 'myapp:ap': module myapp has no 'ap'")
    assert capsys.readouterr().err == ""

"""Tests of genwsgi.server.probe: real probes, of builds that find what a test says."""

from __future__ import annotations

import logging
import os
import pwd
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.deploy.source import Source
from genwsgi.errors import BuildError, ScopeError, TargetError
from genwsgi.isolation.scope import Addition
from genwsgi.isolation.store import Store
from genwsgi.live import LiveApplication
from genwsgi.server import probe
from genwsgi.server.application import GenwsgiApplication
from genwsgi.server.coordinator import make_source
from genwsgi.server.probe import ROUNDS, Report, settle_scope
from genwsgi.target import parse

LOG = logging.getLogger("tests.probe")

APPLICATION = "def app(environ, start_response):\n    return []\n"

Master = Callable[..., GenwsgiApplication]


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that every user can read."""
    path = Path(tempfile.mkdtemp(prefix="gw"))
    path.chmod(0o755)
    (path / "site-packages").mkdir()
    for name in ("kit", "tool"):
        (path / "site-packages" / f"{name}.py").write_text("")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def master(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Master]:
    """Write the application and open it as a master does, up to the point where it probes."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [*sys.path, str(root / "site-packages")])
    monkeypatch.setitem(sys.modules, "__config__", sys)  # so that it is removed again
    for name in ("GUNICORN_CMD_ARGS", "GUNICORN_PID", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    opened: list[GenwsgiApplication] = []

    def master(code: str, *arguments: str) -> GenwsgiApplication:
        (root / "myapp.py").write_text(code + APPLICATION)
        (root / "config.py").write_text("")
        given = ["--chdir", str(root), "-c", str(root / "config.py"), *arguments, "myapp:app"]
        monkeypatch.setattr(sys, "argv", ["genwsgi", *given])
        app = GenwsgiApplication(prog="genwsgi")
        app.directory = app._make_directory()
        opened.append(app)
        return app

    yield master
    for app in opened:
        app.close()


def source_of(app: GenwsgiApplication) -> Source:
    """What reads its tree."""
    assert app.directory is not None
    return make_source(app.options(), Store(app.directory.store))


def needs(monkeypatch: pytest.MonkeyPatch, *additions: Addition) -> None:
    """Have builds find that one of ``additions`` after the other belongs in the scope."""

    def build(live: LiveApplication, digest: str, _release: str, **_options: Any) -> Any:
        snapshot = live._store.open(digest)
        missing = [one for one in additions if one not in snapshot.additions]
        if missing:
            raise ScopeError("myapp:app", missing[:1])
        raise BuildError("myapp:app", "it was built, which is enough", "")

    monkeypatch.setattr(LiveApplication, "build", build)


KIT = Addition("kit", "imports myapp (kit: import myapp)")
TOOL = Addition("tool", "imports kit (tool: import kit)")


def test_what_a_build_lacks_is_there_for_the_next(
    master: Master, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One probe after the other, until nothing more joins; each package has its line in the log."""
    caplog.set_level(logging.INFO)
    needs(monkeypatch, KIT, TOOL)
    app = master("")
    source = source_of(app)
    digest, report = settle_scope(app, source, LOG)
    assert report.reason.endswith("it was built, which is enough")
    assert source.rules.additions == (KIT, TOOL)
    snapshot = source.store.open(digest)
    snapshot.release()
    assert {"myapp", "kit", "tool"} <= set(snapshot.tops)
    assert "kit joins the scope: imports myapp (kit: import myapp)\n" in caplog.text
    assert "tool joins the scope: imports kit (tool: import kit)\n" in caplog.text


def test_a_good_build_is_the_end_of_it(
    master: Master, caplog: pytest.LogCaptureFixture, root: Path
) -> None:
    """If nothing is missing there is one probe, and the log says how long it took."""
    caplog.set_level(logging.INFO)
    app = master("open('built', 'a').write('x')\n")
    source = source_of(app)
    digest, report = settle_scope(app, source, LOG)
    assert report == Report()
    assert digest == source.take()
    assert (root / "built").read_text() == "x"
    assert re.search(r"the scope is settled after \d+\.\d\d s; builds that it took: 1", caplog.text)


def test_a_scope_that_grows_for_ever_is_taken_as_it_is(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many probes the server starts with what they found."""
    endless = [Addition(f"package{number}", "it is one of many") for number in range(ROUNDS + 1)]
    needs(monkeypatch, *endless)
    app = master("")
    source = source_of(app)
    digest, report = settle_scope(app, source, LOG)
    snapshot = source.store.open(digest)
    snapshot.release()
    assert snapshot.additions == tuple(endless[:ROUNDS])
    assert report.reason == (
        f"build {ROUNDS} of the application still found that package{ROUNDS - 1} joins the scope: "
        "it is one of many"
    )
    assert not report.met


def test_a_probe_that_finds_the_same_again_is_the_last(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the scope already can't be missing: nothing is tried for ever."""

    def build(*_: object, **_options: object) -> Any:
        raise ScopeError("myapp:app", [KIT])

    monkeypatch.setattr(LiveApplication, "build", build)
    app = master("")
    source = source_of(app)
    _, report = settle_scope(app, source, LOG)
    assert report.reason.startswith("build 2 of the application still found that kit joins the")
    assert source.rules.additions == (KIT,)


def test_a_system_that_can_not_fork(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """No probe is no reason not to try and start the workers."""

    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    app = master("")
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", fork)
    _, report = settle_scope(app, source_of(app), LOG)
    assert report.reason == ("no probe can be started: [Errno 11] Resource temporarily unavailable")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("code", "reason", "traceback"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero", "in <module>\n    1 / 0\n"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3", "SystemExit: 3"),
        ("import os; os._exit(3)\n", "the probe ended with status 3", ""),
        ("import os; os.abort()\n", "the probe was killed by signal 6 (Aborted)", ""),
        ("import threading; threading.Event().wait()\n", "the probe was not done within 0.7 s", ""),
        ("import os; os.closerange(3, 999)\n", "", ""),
    ],
    ids=["raises", "exits", "ends", "crashes", "hangs", "closes everything"],
)
def test_what_goes_wrong_is_said_and_does_no_harm(
    master: Master, code: str, reason: str, traceback: str
) -> None:
    """Whatever the application does while it is built, there is a report and a snapshot."""
    app = master(code, "--build-timeout=0.7" if "wait" in code else "--build-timeout=30")
    digest, report = settle_scope(app, source_of(app), LOG)
    assert digest
    assert reason in report.reason
    assert traceback in report.traceback


def test_threads_of_the_application_do_not_keep_the_probe(master: Master) -> None:
    """A thread that would never end, daemon or not, ends with it."""
    code = (
        "import threading, time\n"
        "for daemon in (True, False):\n"
        "    threading.Thread(target=time.sleep, args=(600,), daemon=daemon).start()\n"
    )
    app = master(code)
    assert settle_scope(app, source_of(app), LOG)[1] == Report()


def test_the_target_is_resolved_as_by_a_worker(master: Master) -> None:
    """A name that is not there is the error that a worker would have."""
    app = master("")
    app.target = parse("myapp:ap")
    _, report = settle_scope(app, source_of(app), LOG)
    assert report.reason == str(
        TargetError("myapp:ap", "module myapp has no 'ap': did you mean app?")
    )
    assert report.traceback == ""


def test_the_probe_sees_the_world_of_a_worker(master: Master, root: Path) -> None:
    """Gevent has patched what it patches in every worker, and ``--env`` is set."""
    code = (
        "import os, socket\n"
        "with open('seen', 'w') as file:\n"
        "    print(socket.socket.__module__, os.environ['COLOUR'], file=file)\n"
    )
    app = master(code, "--worker-class=gevent", "--env=COLOUR=blue")
    assert settle_scope(app, source_of(app), LOG)[1] == Report()
    assert (root / "seen").read_text() == "gevent._socket3 blue\n"
    assert os.environ.get("COLOUR") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_probe_is_the_user_that_the_workers_are(
    master: Master, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't read the store, which is root's as long as root writes to it, and needs not to."""
    (root / "seen").write_text("")
    (root / "seen").chmod(0o666)
    nobody = pwd.getpwnam("nobody")
    app = master("import os\nopen('seen', 'w').write(f'{os.geteuid()}')\n", "--user=nobody")
    (root / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root / "temporary"))
    assert settle_scope(app, source_of(app), LOG)[1] == Report()
    assert (root / "seen").read_text() == str(nobody.pw_uid)
    assert os.listdir(root / "temporary") == []


def test_a_report_that_is_none(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be understood is a failure of the probe, and not of the server."""
    app = master("")
    for text in ("no JSON", "[]", "{}"):
        monkeypatch.setattr(probe, "run_in_child", lambda *_, text=text: text)
        _, report = settle_scope(app, source_of(app), LOG)
        assert report.reason.startswith("the report of the probe can't be understood: ")


def test_a_worker_class_that_does_not_load(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker class with a way of its own is said to be why nothing is known."""
    app = master("")
    monkeypatch.setattr(app.cfg.worker_class, "init_process", lambda self: None)
    _, report = settle_scope(app, source_of(app), LOG)
    assert report.reason == "the worker of the probe did not load the application"
    monkeypatch.setattr(app.cfg.worker_class, "init_process", lambda self: 1 // 0)
    _, report = settle_scope(app, source_of(app), LOG)
    assert report.reason.startswith("the worker of the probe could not start: ZeroDivisionError")

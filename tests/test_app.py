"""Tests of genwsgi.app: one process, any WSGI server."""

from __future__ import annotations

import gc
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref import simple_server, validate
from wsgiref.util import setup_testing_defaults

import pytest
import waitress
import webtest
import webtest.lint

import genwsgi
from genwsgi.app import GenerationalApp
from genwsgi.background import BackgroundBuild
from genwsgi.deploy.protocol import Outcome
from genwsgi.errors import BuildError, GenwsgiError, TargetError, VerificationError
from genwsgi.live import LiveApplication
from genwsgi.triggers.reading import Reader
from tests.helpers import wait_until

ROOT = Path(__file__).parent.parent

#: Answers with its version; a lazy body, so that a lease lasts until it is closed.
CODE = """\
VERSION = {version!r}

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return iter([VERSION.encode()])
"""

FLASK = """\
import flask

app = flask.Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def index():
    return {version!r} + flask.request.get_data(as_text=True)


@app.route("/stream")
def stream():
    return flask.Response(iter([{version!r}, " streamed"]), mimetype="text/plain")
"""

BOTTLE = """\
import bottle

app = bottle.Bottle()


@app.route("/", method=["GET", "POST"])
def index():
    bottle.response.content_type = "text/plain"
    return {version!r} + bottle.request.body.read().decode()


@app.route("/stream")
def stream():
    bottle.response.content_type = "text/plain"
    yield {version!r}
    yield " streamed"
"""

Make = Callable[..., GenerationalApp]


def put(folder: Path, version: str, code: str = CODE) -> None:
    """Write the application's module, by renaming it into place."""
    part = folder / "webapp.py.tmp"
    part.write_text(code.format(version=version) if "{version" in code else code)
    os.replace(part, folder / "webapp.py")


def call(application: Any) -> str:
    """The body of one request."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    with closing(application(environ, lambda status, headers, *exc_info: None)) as body:
        return b"".join(body).decode()


def marks() -> dict[str, object]:
    """What genwsgi changes in a process while it is at work."""
    return {
        "modules": type(sys.modules),
        "names": sorted(name for name in sys.modules if name.startswith("webapp")),
        "import": __import__,
        "meta_path": list(sys.meta_path),
        "path": list(sys.path),
        "handlers": logging.Logger.callHandlers,
        "threads": sorted(t.name for t in threading.enumerate() if "genwsgi" in t.name),
        "folders": sorted(Path(tempfile.gettempdir()).glob("genwsgi-*")),
    }


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make applications of ``webapp.py`` in a folder of their own, and close them in the end."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    # However slow the machine is, all has ended when something is closed.
    monkeypatch.setattr(LiveApplication.close, "__defaults__", (60.0,))
    put(tmp_path, "v1")
    with ExitStack() as stack:

        def make(target: str = "webapp:app", **options: Any) -> GenerationalApp:
            options.setdefault("path", [str(tmp_path)])
            return stack.enter_context(GenerationalApp(target, **options))

        yield make
    # A build's thread ends after whoever waits for the build has been told.
    wait_until(lambda: not _builds(), what="the end of all builds")


# -- the scope -------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages of others are installed in."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("webparts", "webregistry"):
        sys.modules.pop(name, None)


def test_the_scope_grows_by_itself(
    make: Make, tmp_path: Path, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What belongs in the scope joins it at the start and in a deploy, and the log says why."""
    caplog.set_level("INFO", logger="genwsgi")
    (installed / "webparts.py").write_text("import webapp\n")
    (installed / "webregistry.py").write_text("listed = []\n")
    put(tmp_path, "v1", CODE + "import webparts\n")
    app = make()
    assert "webparts joins the scope: imports webapp (webparts: import webapp)" in caplog.text
    more = "import webregistry\nwebregistry.listed.append(app)\n"
    put(tmp_path, "v2", CODE + "import webparts\n" + more)
    assert app.deploy().outcome == Outcome.COMMITTED
    assert "webregistry joins the scope: holds webapp.app (webregistry.listed)" in caplog.text
    assert call(app) == "v2"
    assert [(v.name, v.inside) for v in app.explain()] == [
        ("webapp", True),
        ("webparts", True),
        ("webregistry", True),
    ]
    number = app.generation
    put(tmp_path, "v3", CODE)
    assert app.deploy().outcome == Outcome.COMMITTED
    assert app.generation == (number or 0) + 2, "one was built to explain, one to serve"
    app.close()
    with pytest.raises(GenwsgiError, match="closed"):
        app.explain()


# -- deploys ---------------------------------------------------------------------------------------


def test_a_deploy_of_new_code_is_committed(make: Make, tmp_path: Path) -> None:
    """After ``deploy`` returns ``committed``, requests get the new code."""
    app = make()
    assert (call(app), app.generation) == ("v1", 1)
    put(tmp_path, "v2")
    assert call(app) == "v1"
    outcome = app.deploy()
    assert (outcome.outcome, outcome.release, outcome.traceback) == (Outcome.COMMITTED, 2, "")
    assert 0 < outcome.seconds < 20
    assert (call(app), app.generation) == ("v2", 2)


def test_without_a_change_there_is_no_deploy_unless_forced(make: Make) -> None:
    """The same content is ``unchanged`` and builds nothing; ``force`` builds it anew."""
    app = make()
    outcome = app.deploy()
    assert (outcome.outcome, outcome.release, app.generation) == (Outcome.UNCHANGED, 1, 1)
    outcome = app.deploy(force=True)
    assert (outcome.outcome, outcome.release, app.generation) == (Outcome.COMMITTED, 2, 2)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def app(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import nosuch_module\n", "ModuleNotFoundError"),
    ],
)
def test_code_that_does_not_build_fails_and_the_old_serves_on(
    make: Make, tmp_path: Path, code: str, reason: str
) -> None:
    """A failed deploy says why, with the application's traceback, and the next good one works."""
    app = make()
    put(tmp_path, "", code)
    outcome = app.deploy()
    assert (outcome.outcome, outcome.release) == (Outcome.FAILED, 1)
    assert reason in outcome.traceback
    assert "webapp.py" in outcome.traceback
    assert call(app) == "v1"
    put(tmp_path, "v2")
    assert app.deploy().outcome == Outcome.COMMITTED
    assert call(app) == "v2"


def test_a_name_that_is_gone_fails_without_a_traceback(make: Make, tmp_path: Path) -> None:
    """A target that can't be found any more is a failure that says what is missing."""
    app = make()
    put(tmp_path, "", "application = None\n")
    outcome = app.deploy()
    assert (outcome.outcome, outcome.traceback) == (Outcome.FAILED, "")
    assert "no 'app'" in outcome.reason
    assert call(app) == "v1"


def test_a_tree_that_can_not_be_read_fails(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the file system fails the deploy and not whoever asked for it."""
    app = make()

    def take(*_: object) -> str:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(app._source, "read", take)
    outcome = app.deploy()
    assert (outcome.outcome, outcome.reason) == (Outcome.FAILED, "the disk is on fire")
    assert call(app) == "v1"


def test_a_build_that_never_ends_is_given_up(make: Make, tmp_path: Path) -> None:
    """After ``build_timeout`` the deploy fails, says where the build was, and leaves no thread."""
    app = make(build_timeout=2.0)
    put(tmp_path, "", "x = 0\nwhile True:\n    x += 1\n")
    outcome = app.deploy()
    assert outcome.outcome == Outcome.FAILED
    assert outcome.reason == "the build took more than 2.0 s"
    assert "webapp.py" in outcome.traceback
    wait_until(lambda: not _builds(), what="the end of the build")
    assert call(app) == "v1"
    app._deploys._build_timeout = 60.0
    put(tmp_path, "v2")
    assert app.deploy().outcome == Outcome.COMMITTED


def _builds() -> list[str]:
    """The threads of builds, and of what interrupts them."""
    return [t.name for t in threading.enumerate() if "genwsgi-build" in t.name]


def test_a_build_that_ends_just_too_late_is_discarded(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation that is ready when nobody waits any more is torn down and never serves."""
    ready, released, finished = threading.Event(), threading.Event(), threading.Event()

    class Late(BackgroundBuild):
        """A build whose end nobody hears of until ``released``."""

        def __init__(
            self, live: Any, digest: str, release: str, done: Callable[..., None], **more: Any
        ) -> None:
            def late(build: BackgroundBuild) -> None:
                ready.set()
                released.wait(10)
                done(build)
                finished.set()

            super().__init__(live, digest, release, late, **more)

        def abandon(self) -> None:
            """Give it up when it is ready, and not before."""
            assert ready.wait(10)
            super().abandon()

    app = make(build_timeout=0.2)
    discarded: list[Any] = []
    really = app._live.discard
    monkeypatch.setattr("genwsgi.alone.BackgroundBuild", Late)

    def discard(generation: Any) -> None:
        discarded.append(generation.number)
        really(generation)

    monkeypatch.setattr(app._live, "discard", discard)
    put(tmp_path, "v2")
    assert app.deploy().outcome == Outcome.FAILED
    released.set()
    assert finished.wait(10)
    assert discarded == [2]
    assert (call(app), app.generation) == ("v1", 1)


def test_deploys_are_done_one_after_another(make: Make, tmp_path: Path) -> None:
    """Deploys asked for at the same time each have an outcome; the last generation serves."""
    app = make()
    put(tmp_path, "v2")
    outcomes: list[str] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(app.deploy(force=True).outcome))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert outcomes == [Outcome.COMMITTED] * 4
    assert (call(app), app.generation) == ("v2", 5)


def test_an_open_response_stays_on_its_generation(make: Make, tmp_path: Path) -> None:
    """A response that has begun goes on in the code it began with; then that is dropped."""
    app = make()
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body: Any = app(environ, lambda *_: None)  # type: ignore[arg-type]
    put(tmp_path, "v2")
    app.deploy()
    assert (call(app), environ["genwsgi.generation"]) == ("v2", 1)
    assert b"".join(body) == b"v1"
    body.close()
    wait_until(lambda: not app._live.draining(), what="the end of generation 1")


# -- the options -----------------------------------------------------------------------------------


def test_watch_picks_up_an_edit(make: Make, tmp_path: Path) -> None:
    """With ``watch=True`` an edit is served without anybody asking."""
    app = make(watch=True)
    put(tmp_path, "v2")
    wait_until(lambda: call(app) == "v2", what="the edit")


def test_watch_misses_no_edit_made_during_the_first_build(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is edited after the first snapshot, before the constructor returns, is deployed."""
    seen, really = threading.Event(), Reader.note

    def note(self: Reader, *args: Any) -> None:
        really(self, *args)
        seen.set()

    monkeypatch.setattr(Reader, "note", note)
    monkeypatch.setattr("builtins.seen", seen, raising=False)
    later = CODE.format(version="v2")
    code = (
        "import os\n"
        f"with open({str(tmp_path / 'webapp.new')!r}, 'w') as file:\n    file.write({later!r})\n"
        f"os.replace({str(tmp_path / 'webapp.new')!r}, __file__)\n"
        # Imported as long as the watch has not seen the edit.
        "seen.wait(60)\n" + CODE.format(version="v1")
    )
    put(tmp_path, "", code)
    app = make(watch=True)
    wait_until(lambda: call(app) == "v2", what="the edit")


def test_the_other_options_reach_their_parts(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factory, header, patterns and shared packages do what they do on the command line."""
    monkeypatch.delitem(sys.modules, "common", raising=False)
    (tmp_path / "common.py").write_text("things = []\n")
    (tmp_path / "page.html").write_text("<p>")
    code = "import common\n" + CODE + "\ndef produce(*args):\n    common.things.append(1)\n"
    put(tmp_path, "v1", code + "    return app\n")
    app = make(
        "webapp:produce",
        factory=True,
        generation_header="X-Generation",
        watch_patterns=["*.html"],
        share=["common"],
        path=[str(tmp_path)],
    )
    (tmp_path / "page.html").write_text("<h1>")
    assert app.deploy().outcome == Outcome.COMMITTED
    headers: list[tuple[str, str]] = []
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)

    def start_response(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Any:
        headers.extend(given)

    body: Any = app(environ, start_response)
    body.close()
    assert ("X-Generation", "2") in headers
    assert sys.modules["common"].things == [1, 1]


# -- the end ---------------------------------------------------------------------------------------


def test_close_leaves_the_process_as_it_was(make: Make, tmp_path: Path) -> None:
    """After ``close`` nothing of genwsgi and of the application is left; it may be called again."""
    before = marks()
    app = make(watch=True)
    put(tmp_path, "v2")
    wait_until(lambda: call(app) == "v2", what="the edit")
    assert marks() != before
    app.close()
    wait_until(lambda: not _builds(), what="the end of the build")
    assert marks() == before
    app.close()
    assert app.generation is None


def test_it_is_a_context_manager(make: Make) -> None:
    """At the end of its ``with`` block it is closed."""
    before = marks()
    with make() as app:
        assert repr(app).startswith("<GenerationalApp <LiveApplication webapp:app ")
    assert app.generation is None
    assert marks() == before


def test_a_closed_application_refuses_deploys(make: Make, tmp_path: Path) -> None:
    """A deploy after ``close`` is ``refused`` and brings nothing back."""
    before = marks()
    app = make()
    app.close()
    put(tmp_path, "v2")
    outcome = app.deploy()
    assert (outcome.outcome, outcome.reason) == (Outcome.REFUSED, "the application is closed")
    assert marks() == before


def test_close_ends_a_deploy_under_way(make: Make, tmp_path: Path) -> None:
    """``close`` during a build refuses the deploy at once; its generation never serves."""
    before = marks()
    app = make()
    put(tmp_path, "", "open(__file__ + '.begun', 'w').close()\nwhile True:\n    pass\n")
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(app.deploy().outcome))
    thread.start()
    wait_until((tmp_path / "webapp.py.begun").exists, what="the build")
    app.close()
    thread.join(60)
    assert outcomes == [Outcome.REFUSED]
    wait_until(lambda: not _builds(), what="the end of the build")
    assert marks() == before


def test_a_signal_handler_on_the_thread_that_deploys_is_refused(make: Make, tmp_path: Path) -> None:
    """What would wait for the thread that it has interrupted is told so, and the deploy goes on."""
    app = make()
    within: list[object] = []

    def handler(*_: object) -> None:
        outcome = app.deploy(force=True)
        within.append((outcome.outcome, "in the middle of a deploy" in outcome.reason))
        with pytest.raises(GenwsgiError, match="in the middle of a deploy"):
            app.explain()

    put(tmp_path, "v2", CODE + "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\n")
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert app.deploy().outcome == Outcome.COMMITTED
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert within == [(Outcome.REFUSED, True)]
    assert call(app) == "v2"
    assert app.deploy().outcome == Outcome.UNCHANGED


FORKING = """\
import logging, os, sys
from genwsgi.app import GenerationalApp
from tests.test_app import call

logging.basicConfig(format="%(message)s", level="WARNING", stream=sys.stdout)
app = GenerationalApp("webapp:app", path=[sys.argv[1]])
child = os.fork()
if not child:
    print(call(app), call(app), app.deploy().reason[:32])
    try:
        app.explain()
    except Exception as error:
        print(type(error).__name__)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(os.path.isdir(app._folder.path), call(app), app.deploy().outcome)
"""


def test_a_fork_takes_no_new_code_and_leaves_the_snapshots(tmp_path: Path) -> None:
    """A process that is forked later serves, says that no new code comes, and removes nothing."""
    put(tmp_path, "v1")
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("the application was made before this process was forked")
    assert lines[1:] == [
        "v1 v1 the application was made before ",
        "GenwsgiError",
        "True v1 unchanged",
    ]


MAKING = """\
import genwsgi

application = genwsgi.GenerationalApp({target!r}, path=[{folder!r}])
from tools.sharp import wrap
later = wrap("run to its end")
"""

MADE = """\
import importlib
import sys
from tests.helpers import wait_until

folder, name = sys.argv[1:]
sys.path.insert(0, folder)
maker = importlib.import_module(name)
print(maker.later)
assert importlib.import_module(name) is sys.modules[name] is maker
for force in (False, True):
    print(maker.application.deploy(force=force).outcome)
assert importlib.import_module(name) is sys.modules[name] is maker
assert importlib.import_module("tools.sharp").wrap is maker.wrap
wait_until(lambda: len(maker.application.status()) == 1, 60, "the end of the first one")
print(*(one.number for one in maker.application.status()))
maker.application.close()
assert importlib.import_module(name) is sys.modules[name] is maker
"""


@pytest.mark.parametrize(
    ("maker", "target"),
    [
        ("serve", "webapp:app"),
        ("website/serve", "webapp:app"),
        ("website/serve", "website.webapp:app"),
    ],
)
def test_a_module_beside_the_application_makes_it(tmp_path: Path, maker: str, target: str) -> None:
    """The module that makes it may lie where the application does: it stays the host program's.

    So does what it imports later on, or that would keep the generation which is current then.
    """
    for name in ("website", "tools"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "tools" / "sharp.py").write_text("from tools import blunt\nwrap = blunt.wrap\n")
    (tmp_path / "tools" / "blunt.py").write_text("def wrap(it):\n    return it\n")
    put(tmp_path, "v1")
    put(tmp_path / "website", "v1")
    made = tmp_path / f"{maker}.py"
    made.write_text(MAKING.format(target=target, folder=str(tmp_path)))
    command = [sys.executable, "-c", MADE, str(tmp_path), maker.replace("/", ".")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["run to its end", "unchanged", "committed", "2", ""]


RUN = """\
import sys

sys.path.insert(0, sys.argv[1])
import one
import two
from tests.test_app import call

for maker in (one, two):
    print(maker.application.deploy(force=True).outcome, call(maker.application))
print(call(two.application), two.application.generation)
"""


def test_a_script_makes_several_in_modules_of_its_own(tmp_path: Path) -> None:
    """What a script imports is its own, in whichever application's folder, and outlives deploys."""
    put(tmp_path, "v1")
    for name in ("one", "two"):
        making = MAKING.format(target="webapp:app", folder=str(tmp_path)).splitlines()[:3]
        (tmp_path / f"{name}.py").write_text("\n".join(making))
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["committed v1", "committed v1", "v1 2", ""]


@pytest.mark.parametrize("target", ["website:app", "website.webapp:app"])
def test_what_would_make_itself_for_ever_is_told_so(tmp_path: Path, target: str) -> None:
    """Code that makes the application which serves that very code is refused, with what to do."""
    (tmp_path / "website").mkdir()
    making = MAKING.format(target=target, folder=str(tmp_path))
    (tmp_path / "website" / "__init__.py").write_text(making)
    put(tmp_path / "website", "v1")
    command = [sys.executable, "-c", MADE, str(tmp_path), "website"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == (
        f"genwsgi.errors.TargetError: target {target!r}: importing it makes the application that"
        " serves it; move that to another module"
    )


FEEDING = """\
import multiprocessing

def feed(queue):
    queue.put("x" * 1_000_000)

def app(environ, start_response):
    start_response("200 OK", [])
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    process = fork.Process(target=feed, args=(queue,))
    process.start()
    length = len(queue.get(timeout=20))
    process.join()
    return [str(length).encode()]
"""


def test_a_forked_process_sends_all_it_has_before_it_ends(tmp_path: Path) -> None:
    """What multiprocessing does at the end of a process that a request forks, is done there."""
    put(tmp_path, "v1", FEEDING)
    script = "import sys, genwsgi\nfrom tests.test_app import call\n"
    script += "print(call(genwsgi.GenerationalApp('webapp:app', path=[sys.argv[1]])))\n"
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("1000000\n", 0), done.stderr


@pytest.mark.parametrize(
    ("target", "code", "error"),
    [
        ("nosuch:app", CODE, TargetError),
        ("webapp:ap", CODE, TargetError),
        ("webapp:app:x", CODE, TargetError),
        ("webapp:VERSION", CODE, TargetError),
        ("webapp:app", "1 / 0\n", BuildError),
    ],
)
@pytest.mark.parametrize("watch", [False, True])
def test_what_can_not_be_built_at_first_leaves_nothing(
    make: Make, tmp_path: Path, target: str, code: str, error: type[Exception], watch: bool
) -> None:
    """The constructor raises what is wrong, and the process is as it was before."""
    before = marks()
    put(tmp_path, "v1", code)
    with pytest.raises(error):
        make(target, watch=watch)
    assert marks() == before


def test_it_is_collected_after_its_end(make: Make) -> None:
    """Nothing in the process remembers an application that was closed."""
    app = make()
    call(app)
    gone = weakref.ref(app._live.current)
    app.close()
    del app

    def collected() -> bool:
        gc.collect()
        return gone() is None

    wait_until(collected, what="its generation is collected")


# -- under real servers ----------------------------------------------------------------------------


@contextmanager
def under_waitress(app: GenerationalApp) -> Iterator[int]:
    """Serve with waitress; the port."""
    server = waitress.create_server(app, host="127.0.0.1", port=0, threads=2)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        # With nothing left to look after the loop ends; closed on the loop's own thread.
        server.trigger.pull_trigger(lambda: server.asyncore.close_all(server._map))
        thread.join(10)
        server.task_dispatcher.shutdown()
        assert not thread.is_alive()


class Quiet(simple_server.WSGIRequestHandler):
    """wsgiref's handler, which closes each connection, without its log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def under_wsgiref(app: GenerationalApp) -> Iterator[int]:
    """Serve with wsgiref, validating; the port."""
    with simple_server.make_server(
        "127.0.0.1", 0, validate.validator(app), handler_class=Quiet
    ) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


def test_live_swaps_under_waitress(make: Make, tmp_path: Path) -> None:
    """One keep-alive connection to waitress sees ten generations; it is never closed."""
    app = make()
    with under_waitress(app) as port:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            client.connect()
            socket = client.sock
            for number in range(1, 11):
                client.request("GET", "/")
                response = client.getresponse()
                assert (response.status, response.read().decode()) == (200, f"v{number % 10}")
                put(tmp_path, f"v{(number + 1) % 10}")
                assert app.deploy().outcome == Outcome.COMMITTED
            assert client.sock is socket


def test_live_swaps_under_wsgiref(make: Make, tmp_path: Path) -> None:
    """Under wsgiref, validated, each request after a deploy gets the new code; none fails."""
    app = make()
    with under_wsgiref(app) as port:
        for number in range(1, 11):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
                client.request("GET", "/")
                response = client.getresponse()
                assert (response.status, response.read().decode()) == (200, f"v{number % 10}")
            put(tmp_path, f"v{(number + 1) % 10}")
            assert app.deploy().outcome == Outcome.COMMITTED


PATCHED = """\
from gevent import monkey

monkey.patch_all()

import sys

import genwsgi
from tests.helpers import wait_until

folder = sys.argv[1]
with genwsgi.GenerationalApp("webapp:app", path=[folder], watch=True) as app:
    for number in (2, 3, 4):
        with open(folder + "/webapp.py", "a") as file:
            file.write("\\n")
        wait_until(lambda: app.generation == number, 60, "the edit")
        print(app.generation)
"""


def test_watch_where_gevent_has_patched_the_standard_library(tmp_path: Path) -> None:
    """With gevent's threads and queues every edit is seen too, and no thread ends by an error."""
    put(tmp_path, "v1")
    command = [sys.executable, "-c", PATCHED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["2", "3", "4"], "")


def test_swaps_between_the_requests_of_many_clients(make: Make, tmp_path: Path) -> None:
    """Clients on kept connections, deploys at any moment: every answer is whole and in order."""
    app = make()
    stop = threading.Event()
    seen: list[list[str]] = [[] for _ in range(3)]
    failures: list[BaseException] = []

    def client(answers: list[str], port: int) -> None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.auto_open = 0
                connection.connect()
                while not stop.is_set():
                    connection.request("GET", "/")
                    response = connection.getresponse()
                    assert response.status == 200
                    answers.append(response.read().decode())
        except Exception as error:  # noqa: BLE001 -- looked at below
            failures.append(error)

    def everybody_sees(version: str) -> bool:
        return all(answers and answers[-1] == version for answers in seen)

    with under_waitress(app) as port:
        threads = [threading.Thread(target=client, args=(answers, port)) for answers in seen]
        for thread in threads:
            thread.start()
        try:
            for number in range(2, 10):
                put(tmp_path, f"v{number}")
                assert app.deploy().outcome == Outcome.COMMITTED
                wait_until(partial(everybody_sees, f"v{number}"), what=f"v{number}")
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
    assert failures == []
    for answers in seen:
        assert answers == sorted(answers)
        assert set(answers) >= {f"v{number}" for number in range(2, 10)}


# -- validated on both sides -----------------------------------------------------------------------


def _demo(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    if not (ROOT / "demo_app" / "__init__.py").exists():
        pytest.skip("there is no demo_app beside the tests")
    (tmp_path / "webapp.py").write_text(
        "import wsgiref.validate\nimport demo_app\n"
        "app = wsgiref.validate.validator(demo_app.create_app())\n"
    )
    return "webapp:app", {"path": [str(tmp_path), str(ROOT)], "scope": ["demo_app"]}


def _framework(code: str) -> Callable[[Path], tuple[str, dict[str, Any]]]:
    def write(tmp_path: Path) -> tuple[str, dict[str, Any]]:
        wrap = "import wsgiref.validate\napp = wsgiref.validate.validator(app)\n"
        put(tmp_path, "v1", code + wrap)
        return "webapp:app", {}

    return write


APPLICATIONS = {"demo": _demo, "flask": _framework(FLASK), "bottle": _framework(BOTTLE)}


@pytest.fixture(params=APPLICATIONS)
def validated(
    request: pytest.FixtureRequest, make: Make, tmp_path: Path
) -> tuple[str, GenerationalApp, webtest.TestApp]:
    """An application with ``wsgiref.validate`` inside the middleware, and again outside."""
    target, options = APPLICATIONS[request.param](tmp_path)
    app = make(target, generation_header="X-Generation", **options)
    # TestApp wraps what it is given in WebTest's own lint.
    return request.param, app, webtest.TestApp(validate.validator(app), lint=True)


def test_the_middleware_passes_validate_on_both_sides_and_lint(
    validated: tuple[str, GenerationalApp, webtest.TestApp],
) -> None:
    """GET, HEAD, POST, a stream and a missing page are valid on both sides, before and after."""
    name, app, client = validated
    for _ in range(2):
        generation = str(app.generation)
        for method, path in [("GET", "/"), ("HEAD", "/"), ("GET", "/nowhere"), ("GET", "/stream")]:
            query = "?seconds=0" if path == "/stream" and name == "demo" else ""
            response = client.request(path + query, method=method, expect_errors=True)
            assert response.status_int == (404 if path == "/nowhere" else 200)
            assert response.headers["X-Generation"] == generation
            assert response.request.environ["genwsgi.generation"] == int(generation)
        uploaded = client.post("/echo" if name == "demo" else "/", b"abc")
        if name == "demo":
            assert json.loads(uploaded.body)["length"] == 3
        else:
            assert uploaded.body == b"v1abc"
        assert app.deploy(force=True).outcome == Outcome.COMMITTED


def test_a_new_version_is_served_by_a_framework(make: Make, tmp_path: Path) -> None:
    """Flask and Bottle applications are swapped like any other."""
    for code in (FLASK, BOTTLE):
        put(tmp_path, "one", code)
        app = make()
        client = webtest.TestApp(app, lint=True)
        put(tmp_path, "two", code)
        assert client.get("/").text == "one"
        assert app.deploy().outcome == Outcome.COMMITTED
        assert client.get("/stream").text == "two streamed"
        app.close()


def test_it_is_what_the_package_offers() -> None:
    """``genwsgi.GenerationalApp`` is it, loaded when it is asked for; other names are errors."""
    assert genwsgi.GenerationalApp is GenerationalApp
    with pytest.raises(AttributeError, match="no attribute 'GenerationApp'"):
        genwsgi.GenerationApp  # noqa: B018


def test_generation_that_does_not_answer_well(make: Make, tmp_path: Path) -> None:
    """Nothing serves that does not pass ``verify``: neither what is deployed nor the first one."""
    app = make(verify=["/"], verify_timeout=5.0, verify_host="shop.example")
    put(tmp_path, "v2", "def app(environ, start_response):\n    raise LookupError\n")
    outcome = app.deploy()
    assert (outcome.outcome, app.generation) == ("failed", 1)
    assert outcome.reason == "verification failed: GET / has raised LookupError"
    with pytest.raises(VerificationError, match="LookupError"):
        make(verify=["/"])

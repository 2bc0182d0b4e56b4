"""The real command: what it serves, what it refuses and how, its signals and its end."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from genwsgi import __version__
from tests.helpers import wait_until
from tests.process.harness import Server, application, put, run_command, scraped, serving

#: The console script beside this interpreter.
SCRIPT = Path(sys.executable).with_name("genwsgi")

#: A module for many targets; each serves its own name and arguments.
TARGETS = """\
def serving(text):
    def app(environ, start_response):
        body = text.encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return app


def make(colour, *, size=1):
    return serving(f"{colour} {size}")


class api:
    app = staticmethod(serving("dotted"))


def create_app():
    return serving("omitted")


def produce(*args):
    return serving("factory")


def get_handler(*args):
    return serving("no factory")(*args)


def environ():
    import os
    return serving(os.environ["GREETING"])


def worker():
    def app(environ, start_response):
        body = str(environ["wsgi.multithread"]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return app
"""

#: Arguments of a command, and what its application answers.
SERVED = {
    "a call with arguments": (["targets:make('blue', size=3)"], "blue 3"),
    "a dotted name": (["targets:api.app"], "dotted"),
    "an omitted name": (["targets"], "omitted"),
    "--factory": (["--factory", "targets:produce"], "factory"),
    "--no-factory": (["--no-factory", "targets:get_handler"], "no factory"),
    "--chdir": (["--chdir=below", "inner:app"], "below"),
    "--pythonpath": (["--pythonpath=library,below", "inner:app"], "below"),
    "GUNICORN_CMD_ARGS": (["targets:environ"], "from the environment"),
    "a config file": (["-c", "settings.py"], "from the file"),
    "--threads": (["--threads=2", "targets:worker"], "True"),
    "-k sync": (["-k", "sync", "targets:worker"], "False"),
    "-k gevent": (["-k", "gevent", "targets:worker"], "True"),
}

#: Arguments of a command that can't serve, and what the one line says that tells why.
REFUSED = {
    "no such module": (["nosuch:app"], r"target 'nosuch': no module named 'nosuch' in .*--chdir"),
    "no such submodule": (["targets.sub:app"], r"no module named 'targets\.sub'"),
    "a misspelt name": (["targets:create_ap"], r"no 'create_ap': did you mean create_app\?"),
    "not callable": (["plain:number"], r"number is an object of type int, which is not callable"),
    "None": (["plain:create_app"], r"create_app\(\) returned None, not a WSGI application"),
    "a path": (["targets.py"], r"a path, not a module: did you mean targets\?"),
    "no target": ([], r"nothing to serve: write MODULE\[:NAME\]"),
    "two targets": (["targets", "plain"], r"one MODULE\[:NAME\] is served, .* more: plain"),
    "an asgi worker": (["-k", "asgi", "targets"], r"worker class asgi can't be used: "),
    "a tornado worker": (["-k", "tornado", "targets"], r"worker class tornado can't be used: "),
    "no such worker": (["-k", "gevnt", "targets"], r"gevnt can't be used: .* did you mean gevent"),
    "--preload": (["--preload", "targets"], r"--preload \(preload_app\) can't be combined"),
    "--reload": (["--reload", "targets"], r"--reload is gunicorn's"),
    "--paste": (["--paste=x.ini", "targets"], r"--paste loads an application that has no module"),
    "--paste alone": (["--paste=x.ini"], r"--paste loads an application that has no module"),
    "an unknown option": (["--wrokers=2", "targets"], r"unknown option --wrokers: did you mean "),
    "an open run dir": (["--run-dir=open", "targets"], r"run directory \S+open: is open to others"),
    "a run dir of none": (["--run-dir=no/run", "targets"], r"no/run: can't be made: No such file"),
    "a run dir that is a file": (["--run-dir=plain.py", "targets"], r"is not a directory"),
    "a pid file in use": (["-p", "pid", "targets"], r"Already running on PID \d+"),
    "a port in use": (["--bind=127.0.0.1:{port}", "targets"], r"Can't connect to \('127\.0\.0\.1'"),
}  # fmt: skip


def processes(*words: str) -> list[int]:
    """The processes whose command line has one of the words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if any(word in line for word in words):
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules that the targets name."""
    root = tmp_path_factory.mktemp("root")
    (root / "targets.py").write_text(TARGETS)
    (root / "plain.py").write_text("number = 3\ndef create_app():\n    return None\n")
    for name in ("below", "library", "open"):
        (root / name).mkdir()
    (root / "open").chmod(0o755)
    (root / "below" / "inner.py").write_text("from greeting import app\n")
    (root / "below" / "greeting.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '5')])\n"
        "    return [b'below']\n"
    )
    (root / "settings.py").write_text(
        "wsgi_app = 'targets:environ()'\nraw_env = ['GREETING=from the file']\n"
    )
    (root / "pid").write_text(str(os.getpid()))
    return root


@pytest.fixture(scope="module")
def answers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each of :data:`SERVED` answers, or why it doesn't; they run at the same time."""
    bodies, servers = {}, {}
    with ExitStack() as stack:
        for name, (arguments, _) in SERVED.items():
            root = shutil.copytree(folder, tmp_path_factory.mktemp("served") / "root")
            env = {"GUNICORN_CMD_ARGS": "--env GREETING='from the environment'"}
            server = Server(root, *arguments, env=env if name == "GUNICORN_CMD_ARGS" else None)
            stack.callback(server.close)
            servers[name] = server
        for name, server in servers.items():
            try:
                bodies[name] = server.wait_ready().get()
            except AssertionError as error:
                bodies[name] = str(error)
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)
    return bodies


@pytest.fixture(scope="module")
def refusals(folder: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """How each of :data:`REFUSED` ends; four run at the same time."""

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        given = [argument.format(port=port) for argument in arguments]
        bind = [] if any("--bind" in argument for argument in given) else ["--bind=127.0.0.1:0"]
        return run_command(folder, *bind, *given)

    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with ThreadPoolExecutor(4) as pool:
            # The slowest first: gunicorn waits some seconds for a port.
            ends = {
                name: pool.submit(run, arguments)
                for name, (arguments, _) in reversed(REFUSED.items())
            }
    return {name: end.result() for name, end in ends.items()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests that only ask it something."""
    root = tmp_path_factory.mktemp("shared")
    application(root, "v1")
    with serving(root, "--generation-header", "--no-watch", workers=1) as server:
        yield server


def generations(server: Server) -> set[tuple[str, str]]:
    """The version and the generation in a dozen answers."""
    answers = [server.get().split() for _ in range(12)]
    return {(answer[0], answer[1]) for answer in answers}


def wait_for_end(*words: str) -> None:
    """Wait until no process has one of the words in its command line."""
    wait_until(lambda: not processes(*words), 60, f"no process of {words}")


# -- what it is ------------------------------------------------------------------------------------


def test_module_and_script_are_the_same_command(tmp_path: Path) -> None:
    """``genwsgi`` and ``python -m genwsgi`` say the same of themselves, under the same name."""
    said = []
    for command in ([str(SCRIPT)], [sys.executable, "-m", "genwsgi"]):
        for option in ("--version", "--help", "--wrong"):
            done = subprocess.run(
                [*command, option], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            said.append((done.returncode, done.stdout, done.stderr))
    assert said[:3] == said[3:]
    assert [code for code, _, _ in said[:3]] == [0, 0, 2]
    assert said[0][1].startswith(f"genwsgi {__version__} (gunicorn 27.")
    assert said[1][1].startswith("usage: genwsgi [options] MODULE[:NAME]\n")


def test_help_has_our_options_in_a_group_of_their_own(tmp_path: Path) -> None:
    """``--help`` lists genwsgi's options together, under genwsgi's name."""
    text = run_command(tmp_path, "--help").stdout
    (group,) = re.findall(r"^genwsgi:\n((?:  .*\n|\n)+)", text, re.MULTILINE)
    for option in ("--no-watch", "--watch-pattern", "--scope", "--factory", "--run-dir"):
        assert re.search(rf"^  .*{option}\b", group, re.MULTILINE), option
    assert "--workers" not in group
    assert "--workers" in text


@pytest.mark.parametrize("name", SERVED)
def test_serves(answers: dict[str, str], name: str) -> None:
    """Each way to name the application, and to give options, serves that application."""
    assert answers[name] == SERVED[name][1]


def test_the_generation_is_in_a_header_when_asked_for(shared: Server) -> None:
    """``--generation-header`` adds the generation's number to each response."""
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=20)
    with closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.getheader("X-Generation") == response.read().split()[1].decode()


# -- what it refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(refusals: dict[str, subprocess.CompletedProcess[str]], name: str) -> None:
    """What can't be served ends with a status and one line that says why; no traceback."""
    done = refusals[name]
    assert done.returncode > 0
    said = [line for line in done.stderr.splitlines() if re.search(REFUSED[name][1], line)]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_refuses_a_run_dir_in_use(shared: Server) -> None:
    """A second server can't have the run directory of the first; a check needs none."""
    run_dir = f"--run-dir={shared.run_dir}"
    done = run_command(shared.root, "--bind=127.0.0.1:0", run_dir, "myapp")
    assert done.returncode == 2
    assert done.stderr == (
        f"genwsgi: run directory {shared.run_dir}: is in use by a running server "
        f"(pid {shared.process.pid}); stop it or choose another\n"
    )
    assert shared.get().startswith("v1 ")
    checked = run_command(shared.root, "--check-config", run_dir, "myapp")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("def helper():\n    1 / 0\n\nhelper()\n", "ZeroDivisionError: division by zero"),
        ("def create_app()\n    pass\n", "SyntaxError: expected ':'"),
        ("import sys\nsys.exit('not today')\n", "SystemExit: not today"),
    ],
    ids=["exception", "syntax error", "SystemExit"],
)
def test_an_exception_at_first_start_is_shown_whole_and_once(
    tmp_path: Path, code: str, last: str
) -> None:
    """Two workers meet it; it is told once, ends the command, and leaves nothing behind."""
    (tmp_path / "broken.py").write_text(code)
    with tempfile.TemporaryDirectory(prefix="gw") as base:
        run_dir = os.path.join(base, "run")
        done = run_command(
            tmp_path, "--bind=127.0.0.1:0", "-w2", f"--run-dir={run_dir}", "broken:create_app"
        )
        assert done.returncode == 4
        assert done.stderr.count(f"\n{last}\n") == 1
        assert "genwsgi/" not in done.stderr
        assert os.listdir(base) == []
        wait_for_end(run_dir)


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_code_that_ends_its_process_ends_the_first_start(tmp_path: Path, end: str) -> None:
    """Workers are not started for ever where each ends before it serves; the last line says why."""
    (tmp_path / "ending.py").write_text(f"import os\n{end}\n")
    done = run_command(tmp_path, "--bind=127.0.0.1:0", "-w2", "--run-dir", "run", "ending")
    assert done.returncode == 3
    assert "workers have ended before any has served" in done.stderr
    assert not (tmp_path / "run").exists()


#: Says whether what was there before it is still passed over by the garbage collector.
FROZEN = """\
import gc
V = "{version}"

def app(environ, start_response):
    body = f"{{V}} {{gc.get_freeze_count() > 1000}}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_what_a_worker_has_before_the_application_stays_frozen(tmp_path: Path) -> None:
    """Each collection of a retired generation passes over it, and not the first one only."""
    put(tmp_path / "myapp.py", FROZEN.format(version="v0"))
    with serving(tmp_path, target="myapp:app", workers=1) as server:
        assert server.get() == "v0 True"
        put(tmp_path / "myapp.py", FROZEN.format(version="v1"))
        server.wait_for_log("generation 1 is collected")
        assert server.get() == "v1 True"


def test_check_config_builds_once_and_serves_nothing(folder: Path, tmp_path: Path) -> None:
    """``--check-config`` ends with 0 for what can be served, else with what is wrong; no trace."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    env = {"XDG_RUNTIME_DIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir(mode=0o700)
    good = run_command(folder, "--check-config", "targets:make('blue')", env=env)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    found = run_command(tmp_path, "--check-config", f"--pythonpath={folder}", "targets", env=env)
    assert (found.returncode, found.stderr) == (0, "")
    bad = run_command(tmp_path, "--check-config", "broken", env=env)
    assert bad.returncode == 1
    assert bad.stderr == (
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/broken.py", line 1, in <module>\n    1 / 0\n'
        + "    ~~^~~\n"
        * (sys.version_info >= (3, 11))
        + "ZeroDivisionError: division by zero\n"
        "target 'broken' could not be built: ZeroDivisionError: division by zero\n"
    )
    wrong = run_command(folder, "--check-config", "targets:mak", env=env)
    assert wrong.returncode == 1
    assert wrong.stderr == (
        "target 'targets:mak': module targets has no 'mak': did you mean make?\n"
    )
    assert os.listdir(tmp_path / "temporary") == []


# -- signals and ends ------------------------------------------------------------------------------


def test_sigterm_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM: exit status 0, no run directory, no process."""
    application(tmp_path, "v1")
    server = Server(tmp_path, "--workers=2", "myapp")
    try:
        server.wait_ready(2)
        assert len(processes(str(server.run_dir))) == 4
        assert server.stop() == 0
        assert not server.run_dir.exists()
        assert processes(str(server.run_dir)) == []
    finally:
        server.close()


def test_sighup_is_a_deploy_and_an_edit_alone_is_none_without_watch(tmp_path: Path) -> None:
    """SIGHUP deploys in the same processes, changed or not; ``--no-watch`` leaves edits alone."""
    application(tmp_path, "v1")
    with serving(tmp_path, "--no-watch") as server:
        workers = server.workers()
        assert generations(server) == {("v1", "1")}
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("by SIGHUP: committed")
        assert generations(server) == {("v1", "2")}
        application(tmp_path, "v2")
        # Long enough for a watch, which would have settled before this second deploy is done.
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("by SIGHUP: committed", count=2)
        assert generations(server) == {("v2", "3")}
        application(tmp_path, "v3")
        assert generations(server) == {("v2", "3")}
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("by SIGHUP: committed", count=3)
        assert generations(server) == {("v3", "4")}
        assert "by watch" not in server.log()
        assert server.workers() == workers


def test_a_template_is_code_when_a_pattern_says_so(tmp_path: Path) -> None:
    """With ``--watch-pattern`` an edited template, read at import, is deployed; others are not."""
    (tmp_path / "page.html").write_text("one")
    (tmp_path / "notes.txt").write_text("one")
    (tmp_path / "myapp.py").write_text(
        "import os\n"
        "page = open(os.path.join(os.path.dirname(__file__), 'page.html'), 'rb').read()\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', str(len(page)))])\n"
        "    return [page]\n"
    )
    with serving(tmp_path, "--watch-pattern=*.html", workers=1, target="myapp") as server:
        server.wait_for_log("by watch: unchanged")
        put(tmp_path / "notes.txt", "two")
        put(tmp_path / "page.html", "two")
        wait_until(lambda: server.get() == "two", what="the new page")
        server.wait_for_log("by watch: committed")
        assert "notes.txt" not in server.log()


def test_usr1_reopens_the_log_of_every_process(tmp_path: Path) -> None:
    """After SIGUSR1 the master, the workers and the coordinator write to the new file."""
    application(tmp_path, "v1")
    log, old = tmp_path / "error.log", tmp_path / "error.log.1"
    server = Server(tmp_path, "--workers=1", "--no-watch", f"--error-logfile={log}", "myapp")
    try:
        wait_until(lambda: server.workers(), 60, "a worker")
        server.wait_for_coordinator()
        log.rename(old)
        server.process.send_signal(signal.SIGUSR1)
        wait_until(log.exists, what="a new log")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "by SIGHUP: committed" in log.read_text(), what="its outcome in the log")
        text = log.read_text()
        (coordinator,) = re.findall(r"the coordinator runs \(pid (\d+)\)", old.read_text())
        for pid in (server.process.pid, server.workers()[0], coordinator):
            assert f"[{pid}] [INFO]" in text
        assert "SIGHUP" not in old.read_text()
    finally:
        server.close()


def test_nothing_outlives_a_killed_master(tmp_path: Path) -> None:
    """After kill -9 of the master all its processes end by themselves; another can take over."""
    application(tmp_path, "v1")
    server = Server(tmp_path, "--workers=2", "myapp")
    try:
        server.wait_ready(2)
        # One worker hangs, which must not keep the coordinator.
        worker, coordinator = server.workers()[0], server.coordinator()
        os.kill(worker, signal.SIGSTOP)
        server.process.kill()
        server.process.wait(10)
        wait_until(lambda: coordinator not in processes(str(server.run_dir)), what="its end")
        os.kill(worker, signal.SIGCONT)
        wait_for_end(str(server.run_dir))
        heir = Server(tmp_path, f"--run-dir={server.run_dir}", "myapp")
        try:
            heir.run_dir = server.run_dir
            assert heir.wait_ready().get().startswith("v1 ")
        finally:
            heir.close()
    finally:
        server.close()


@pytest.mark.parametrize("status", [3, 4])
def test_no_exit_status_of_a_deploy_ends_the_server(tmp_path: Path, status: int) -> None:
    """Code that ends its worker with one of gunicorn's own exit statuses ends no more than that."""
    application(tmp_path, "v1")
    with serving(tmp_path) as server:
        put(tmp_path / "myapp.py", f"import os\nos._exit({status})\n")
        server.wait_for_log(r"by watch: failed: ")
        server.wait_for_log(rf"exited with code {status}")
        application(tmp_path, "v2")
        wait_until(lambda: {v for v, _ in generations(server)} == {"v2"}, 20, "the next version")


def test_usr2_starts_another_server_beside_it_again_and_again(tmp_path: Path) -> None:
    """SIGUSR2 is gunicorn's: a second server on the same port, which may replace the first."""
    application(tmp_path, "v1")
    server = Server(tmp_path, "--no-watch", f"--metrics=unix:{tmp_path}/metrics", "myapp")
    try:
        server.wait_ready()
        masters = [server.process.pid]
        for count in (2, 3):
            os.kill(masters[-1], signal.SIGUSR2)
            listening = r"Listening at: \S+ \((\d+)\)"
            wait_until(partial(_logged, server, listening, count), 60, "another master")
            masters.append(int(re.findall(listening, server.log())[-1]))
            wait_until(partial(_logged, server, "by SIGHUP: committed", count - 2), 60)
            os.kill(masters[-1], signal.SIGHUP)
            wait_until(partial(_logged, server, "by SIGHUP: committed", count - 1), 60)
            os.kill(masters[-2], signal.SIGTERM)
            wait_until(partial(_logged, server, "Master has been promoted", count - 1), 60)
            assert server.get().startswith("v1 ")
            assert "genwsgi_release_number 2.0" in scraped(str(tmp_path / "metrics"))
    finally:
        for pid in masters:
            if pid in processes(str(server.run_dir)):
                os.kill(pid, signal.SIGTERM)
        wait_for_end(str(server.run_dir))
        server.close()


def _logged(server: Server, pattern: str, count: int) -> bool:
    return len(re.findall(pattern, server.log())) >= count

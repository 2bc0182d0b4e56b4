"""The scope finds itself: before the first worker, and in a deploy, whatever is killed."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genwsgi.deploy.rundir import RunDirectory
from genwsgi.isolation.store import Store
from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.harness import COMMITTED, Server, put, run_command, serving
from tests.process.load import load

#: Serves its version, and whether what it uses is of the same generation as itself.
APPLICATION = """\
V = "{version}"
import bottle
{uses}

app = bottle.Bottle()


@app.get("/")
def home():
    return f"{{V}} {{{proof}}}"
"""

#: An installed package that imports the framework, and says which one it has.
KIT = """\
import bottle

def framework():
    return bottle
"""

#: An installed package with a registry in which nothing shows whose an entry is.
COUNTERS = """\
registry = []

def count(name):
    if name in registry:
        raise ValueError("Duplicated timeseries in CollectorRegistry: {'" + name + "'}")
    registry.append(name)
    return len(registry)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for the application, with others' packages installed in another one."""
    installed = tmp_path / "venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "kit.py").write_text(KIT)
    (installed / "counters.py").write_text(COUNTERS)
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


def edit(root: Path, version: str, uses: str = "", proof: str = "0") -> None:
    """Write the application."""
    put(root / "shop.py", APPLICATION.format(version=version, uses=uses, proof=proof))


@contextmanager
def shop(root: Path, *arguments: str) -> Iterator[Server]:
    """Serve it with two workers, and with what is installed on the path."""
    env = {"PYTHONPATH": f"{root.parent}/venv/site-packages"}
    with serving(root, *arguments, target="shop:app", env=env) as server:
        yield server


def committed(server: Server) -> set[str]:
    """The top-level names of the committed snapshot."""
    directory = RunDirectory(str(server.run_dir))
    snapshot = Store(directory.store).open(directory.committed().digest)
    snapshot.release()
    return set(snapshot.tops)


def answers(server: Server) -> set[str]:
    """What a few requests are answered."""
    return {server.get() for _ in range(8)}


# -- found at the start, found by a deploy ---------------------------------------------------------


def test_what_keeps_registries_is_found_before_the_first_worker(root: Path) -> None:
    """The framework is in the scope from the start, each worker builds once, and deploys work."""
    edit(root, "v1", "import kit", "kit.framework() is bottle")
    with shop(root) as server:
        log = server.log()
        assert "bottle joins the scope: keeps the last request of each thread" in log
        assert "kit joins the scope: imports bottle" in log
        assert log.index("joins the scope") < log.index("Listening at")
        assert {"shop", "bottle", "kit"} <= committed(server)
        for number in (2, 3):
            edit(root, f"v{number}", "import kit", "kit.framework() is bottle")
            server.wait_for_log(COMMITTED, count=number - 1)
            assert answers(server) == {f"v{number} True"}
        assert "begins anew" not in server.log()


def test_a_metric_is_registered_by_every_generation(root: Path) -> None:
    """prometheus_client is found without being named, so no deploy registers a metric twice."""
    pytest.importorskip("prometheus_client")
    uses = (
        "import prometheus_client\n"
        "hits = prometheus_client.Counter('hits', 'requests of this generation')"
    )
    proof = "hits.inc() or prometheus_client.REGISTRY.get_sample_value('hits_total') >= 1"
    edit(root, "v1", uses, proof)
    with shop(root) as server, load(server.port, clients=8) as tally:
        assert "prometheus_client joins the scope: keeps every metric by its name" in server.log()
        for number in (2, 3, 4):
            edit(root, f"v{number}", uses, proof)
            server.wait_for_log(COMMITTED, count=number - 1)
        assert answers(server) == {"v4 True"}
    assert tally.offences == {}


def test_a_deploy_that_begins_to_use_a_package_takes_it_into_the_scope(root: Path) -> None:
    """An installed package that imports the framework joins in that very deploy, at no cost."""
    edit(root, "v1")
    with shop(root) as server, load(server.port, clients=16) as tally:
        assert "kit" not in committed(server)
        edit(root, "v2", "import kit", "kit.framework() is bottle")
        outcome = server.wait_for_log(COMMITTED + r".*")[0]
        assert "; kit joins the scope: imports bottle" in outcome
        server.wait_for_log(r"order \w+ begins anew, for its scope was too small: kit joins ")
        assert answers(server) == {"v2 True"}
        assert "kit" in committed(server)
        edit(root, "v3", "import kit", "kit.framework() is bottle")
        server.wait_for_log(COMMITTED, count=2)
        assert answers(server) == {"v3 True"}
        assert server.log().count("begins anew") == 1
    assert tally.offences == {}
    assert set(tally.versions) == {"v1", "v2", "v3"}


def test_a_package_that_refuses_what_is_registered_twice_joins(root: Path) -> None:
    """The deploy that such a package would have failed begins anew with it in the scope."""
    uses = "import counters\nhits = counters.count('hits')"
    edit(root, "v1", uses, "hits")
    with shop(root) as server, load(server.port, clients=8) as tally:
        assert "counters" not in committed(server)
        for number in (2, 3):
            edit(root, f"v{number}", uses, "hits")
            server.wait_for_log(COMMITTED, count=number - 1)
            assert answers(server) == {f"v{number} 1"}
        (begun,) = re.findall(r"order \w+ begins anew, .*: (counters joins .*)", server.log())
        assert "Duplicated timeseries" in begun
        assert "counters" in committed(server)
    assert tally.offences == {}


def test_a_worker_that_is_replaced_boots_with_what_was_found(root: Path) -> None:
    """What joined in a deploy is in the committed snapshot, so no later worker has to find it."""
    edit(root, "v1")
    with shop(root) as server:
        edit(root, "v2", "import kit", "kit.framework() is bottle")
        server.wait_for_log(COMMITTED)
        before = set(server.workers())
        for pid in (server.coordinator(), *before):
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(now := server.workers()) == 2 and not before & set(now), 60, "two others"
        )
        server.wait_for_coordinator()
        edit(root, "v3", "import kit", "kit.framework() is bottle")
        server.wait_for_log(COMMITTED, count=2)
        assert answers(server) == {"v3 True"}
        assert server.log().count("begins anew") == 1


#: Waits at a gate in the second build of a deploy that takes kit into the scope.
GATED = f"""\
{AT_GATE}
import kit
if type(kit.__loader__).__module__.startswith("genwsgi"):
    open("grown", "w").close()
    wait_at_gate("gate")
"""


def test_a_coordinator_that_is_killed_while_a_scope_grows(root: Path, shut: Shut) -> None:
    """The order is taken up again by the next one from its beginning, and no request fails."""
    edit(root, "v1")
    gate = shut(f"{root}/gate")
    with shop(root) as server, load(server.port, clients=8) as tally:
        edit(root, "v2", GATED, "kit.framework() is bottle")
        wait_until((root / "grown").exists, 60, "a build with the larger scope")
        os.kill(server.coordinator(), signal.SIGKILL)
        gate.open()
        outcome = server.wait_for_log(COMMITTED + r".*")[0]
        assert "kit joins the scope" in outcome
        # Once more if the look at the files, with which a watch begins, has superseded the order.
        assert server.log().count("begins anew") in (2, 3)
        wait_until(lambda: answers(server) == {"v2 True"}, 60, "the new version everywhere")
        assert "kit" in committed(server)
    assert tally.offences == {}


# -- whatever becomes of the probe -----------------------------------------------------------------


#: Says who imports it, and hangs the first time.
HANGS_ONCE = """import os, threading
with open("pids", "a") as file:
    print(os.getpid(), file=file, flush=True)
if not os.path.exists("hung"):
    open("hung", "w").close()
    threading.Event().wait()
"""


def test_a_probe_that_is_killed_costs_nothing_but_what_it_would_have_found(root: Path) -> None:
    """The log says so, and the server starts; what was not found is found by the next deploy."""
    edit(root, "v1", HANGS_ONCE)
    server = Server(
        root, "-w2", "shop:app", env={"PYTHONPATH": f"{root.parent}/venv/site-packages"}
    )
    try:
        probe = int(wait_until(lambda: (root / "hung").exists() and read(root / "pids"), 60, "it"))
        os.kill(probe, signal.SIGKILL)
        server.wait_ready(2)
        server.wait_for_log(
            r"WARNING\] what the scope may lack is not known: "
            r"the probe was killed by signal 9 \(Killed\)"
        )
        server.wait_for_log("bottle is shared by all generations until the next deploy")
        assert answers(server) == {"v1 0"}
        assert str(probe) not in {str(pid) for pid in server.workers()}
        edit(root, "v2", "import kit", "kit.framework() is bottle")
        server.wait_for_log(COMMITTED)
        assert answers(server) == {"v2 True"}
    finally:
        server.close()


def read(path: Path) -> str:
    """The first line, once it is whole."""
    text = path.read_text() if path.exists() else ""
    return text.partition("\n")[0] if "\n" in text else ""


def test_an_import_that_hangs_at_the_start_does_not_hang_the_start(root: Path) -> None:
    """The probe is killed when the time for a build is over, and the workers are started."""
    edit(root, "v1", HANGS_ONCE)
    with shop(root, "--build-timeout=5") as server:
        server.wait_for_log("what the scope may lack is not known: the probe was not done within 5")
        assert answers(server) == {"v1 0"}
        assert not Path(f"/proc/{read(root / 'pids')}").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_scope_is_looked_for(root: Path, number: int) -> None:
    """The server ends at once and in good order, with the probe, and nothing is left behind."""
    edit(root, "v1", HANGS_ONCE)
    server = Server(
        root, "-w2", "shop:app", env={"PYTHONPATH": f"{root.parent}/venv/site-packages"}
    )
    try:
        probe = wait_until(lambda: read(root / "pids"), 60, "the probe")
        server.process.send_signal(number)
        assert server.process.wait(30) == 0  # long before the probe's time is over
        assert not server.run_dir.exists()
        assert not Path(f"/proc/{probe}").exists()
        assert "Listening" not in server.log()
        assert "Traceback" not in server.log()
    finally:
        server.close()


# -- --explain-scope -------------------------------------------------------------------------------


def explain(root: Path, *arguments: str, temporary: Path | None = None) -> tuple[int, str, str]:
    """Run it; its exit status, output and errors."""
    env = {"PYTHONPATH": f"{root.parent}/venv/site-packages"}
    if temporary is not None:
        env["XDG_RUNTIME_DIR"] = str(temporary)
    done = run_command(root, "--explain-scope", *arguments, env=env)
    return done.returncode, done.stdout, done.stderr


def test_the_scope_is_explained(root: Path) -> None:
    """A table of what is in and why, then of what is out; the application's own prints aside."""
    edit(root, "v1", "import kit, json, yarn\nprint('hello')")
    (root / "yarn.py").write_text("")
    (root / "turtledemo.py").write_text("")
    with tempfile.TemporaryDirectory(prefix="gw") as temporary:
        status, output, errors = explain(root, "shop:app", temporary=Path(temporary))
        assert os.listdir(temporary) == []
    lines = output.splitlines()
    assert (status, lines[0]) == (0, "PACKAGE             SCOPE  WHY"), errors
    assert lines[1].startswith("bottle              in     keeps the last request of each thread")
    assert lines[2].startswith("kit                 in     imports bottle (kit: import bottle)")
    assert lines[3] == "shop                in     the application's own"
    assert lines[4] == "yarn                in     the application's own"
    assert all(" out " in line for line in lines[5:])
    assert lines[-1].startswith("(standard library)  out    always shared: ")
    (own,) = [line for line in lines if line.startswith("turtledemo ")]
    assert own.endswith("it has the name of a module of the standard library: rename it")
    assert errors.count("the application's own turtledemo is not renewed by deploys: it has") == 1
    assert "hello" in errors
    assert "hello" not in output


def test_the_scope_is_explained_while_a_server_runs(root: Path) -> None:
    """Its run directory is not touched, though it is named."""
    edit(root, "v1")
    with shop(root) as server:
        before = sorted(server.run_dir.iterdir())
        status, output, _ = explain(root, f"--run-dir={server.run_dir}", "shop:app")
        assert (status, output.split()[:3]) == (0, ["PACKAGE", "SCOPE", "WHY"])
        assert sorted(server.run_dir.iterdir()) == before
        assert answers(server) == {"v1 0"}


def test_what_can_not_be_explained_is_an_error_as_at_a_start(root: Path) -> None:
    """An application that raises is shown whole; a target that is not there is one line."""
    edit(root, "v1", "1 / 0")
    status, output, errors = explain(root, "shop:app")
    assert (status, output) == (4, "")
    assert "ZeroDivisionError: division by zero\n" in errors
    assert errors.endswith("'shop:app' could not be built: ZeroDivisionError: division by zero\n")
    status, output, errors = explain(root, "nosuch")
    assert (status, output) == (2, "")
    assert errors.startswith("genwsgi: target 'nosuch': no module named 'nosuch' in ")
    assert errors.count("\n") == 1

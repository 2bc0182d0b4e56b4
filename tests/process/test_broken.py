"""Broken deploys one after another: the old code serves, the log says why, good code goes live."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.process.harness import COMMITTED, FAILED, Server, put, serving
from tests.process.load import Tally, load

#: Answers with its version and the worker's pid.
GOOD = """\
V = "{version}"
import os


def create_app():
    def app(environ, start_response):
        body = f"{{V}} {{os.getpid()}}".encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return app
"""

#: What is deployed, and what the log must then say.
BROKEN = {
    "syntax error": ("def create_app(:\n", r"does not compile", r"def create_app\(:\n +\^"),
    "import error": (
        "from json import no_such_name\n",
        r"cannot import name 'no_such_name'",
        r"from json import no_such_name\n",
        r"ImportError: ",
    ),
    "exception in the factory": (
        "def create_app():\n    return 1 / 0\n",
        r"ZeroDivisionError",
        r"in create_app\n",
        r"return 1 / 0\n",
        r"ZeroDivisionError: division by zero",
    ),
    "factory that returns None": (
        "def create_app():\n    pass\n",
        r"create_app.* None",
    ),
    "endless loop": (
        "def loop():\n    while True:\n        pass\n\nloop()\n",
        r"worker \d+ not ready within 5 s",
        r"is abandoned: .* it was at\n(  .*\n)+.* in loop\n",
    ),
    "wait for ever": (
        "import threading\nthreading.Event().wait()  # for ever\n",
        r"worker \d+ not ready within 5 s",
        r"is abandoned: .* it was at\n(  .*\n)*.*(# for ever|can't be seen)",
    ),
    "end of the process": ("import os\nos._exit(1)\n", r"worker \d+ went away"),
}


def deploy_broken(server: Server, name: str) -> None:
    """Deploy ``name`` of :data:`BROKEN` and wait until the log has said all that it must."""
    text, *patterns = BROKEN[name]
    begin = len(server.log())
    put(server.root / "myapp.py", text)

    def said() -> bool:
        log = server.log()[begin:]
        return all(re.search(pattern, log) for pattern in (FAILED, *patterns))

    try:
        wait_until(said, 60, name)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{server.log()[begin:]}") from None


def wait_for_more(tally: Tally, version: str, count: int = 50) -> None:
    """Wait until the clients have seen ``version`` ``count`` more times."""
    goal = tally.versions[version] + count
    wait_until(lambda: tally.versions[version] >= goal, 60, f"{count} more responses of {version}")


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_broken_deploys_one_after_another(tmp_path: Path, worker_class: str) -> None:
    """No broken deploy costs a request where its worker survives, and good code then goes live."""
    put(tmp_path / "myapp.py", GOOD.format(version="v0"))
    names = list(BROKEN)
    if worker_class == "gevent":
        # There a build shares the only thread with the requests, which wait for it with a loop.
        names.remove("endless loop")
    with serving(tmp_path, "--build-timeout=5", f"--worker-class={worker_class}") as server:
        workers = set(server.workers())
        with load(server.port, clients=16) as tally:
            for name in names:
                wait_for_more(tally, "v0")
                deploy_broken(server, name)
                wait_for_more(tally, "v0")
            (gone,) = wait_until(lambda: workers - set(server.workers()), 60, "the dead worker")
            wait_until(lambda: len(server.workers()) == 2, 60, "another worker")
            put(tmp_path / "myapp.py", GOOD.format(version="v1"))
            server.wait_for_log(COMMITTED)
            wait_for_more(tally, "v1")
        # Only the worker that the code ended has lost its connections, and nobody was refused.
        assert {last.split()[1] for last in tally.ended} <= {str(gone)}, tally.offences
        assert tally.failed <= len(tally.ended) <= 16
        assert tally.refused == 0
        assert set(tally.versions) == {"v0", "v1"}
        assert len(server.releases()) == 2
        assert len(set(server.releases().values())) == 1
        assert {server.get().split()[0] for _ in range(12)} == {"v1"}

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import forkserver, spawn
from pathlib import Path

import pytest

from genwsgi.errors import GenwsgiError
from genwsgi.isolation.modules import EndedTable
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, torn_down

#: An application that has work done by processes of its own.
TREE = {
    "shop": "",
    "shop__lazy": "V = VERSION\n",
    "shop__jobs": """
        import importlib, inspect, multiprocessing, os, pickle, sys, traceback
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        class Thing:
            version = VERSION
        def work(thing):
            import shop.lazy
            found = {
                shop.lazy.V,
                importlib.import_module("shop.lazy").V,
                sys.modules["shop.lazy"].V,
                thing.version,
                pickle.loads(pickle.dumps(thing)).version,
            }
            assert inspect.getsource(Thing).strip().endswith("version = VERSION")
            assert type(thing) is Thing
            return found, os.getpid(), thing
        def ask(method):
            with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
                found, pid, thing = pool.submit(work, Thing()).result(60)
            assert pid != os.getpid()
            assert type(thing) is Thing
            assert len(found) == 1, found
            return found.pop()

        class Worker(multiprocessing.get_context("spawn").Process):
            def __init__(self, pipe):
                super().__init__()
                self.pipe = pipe
            def run(self):
                import shop.lazy
                self.pipe.send(shop.lazy.V)
                self.pipe.recv()
        def start():
            ours, theirs = multiprocessing.Pipe()
            worker = Worker(theirs)
            worker.start()
            theirs.close()
            return worker, ours
    """,
}


@pytest.fixture(autouse=True)
def _no_fork_server_left() -> Iterator[None]:
    """A fork server is made for the test, and ends with it."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_process_has_the_code_of_its_generation(site: Site, method: str) -> None:
    """A process that a generation starts runs its code, when the files changed and vanished too."""
    first, second = site.two(**TREE)
    site.replace(shop="raise SystemError('this is the disk')\n")
    assert [call(g, "shop.jobs", "ask", method) for g in (first, second)] == [1, 2]
    shutil.rmtree(site.root)
    assert call(first, "shop.jobs", "ask", method) == 1


def test_process_holds_its_snapshot(site: Site) -> None:
    """A process's snapshot is kept as long as the process lives, and no longer."""
    first, _ = site.two(**TREE)
    manifest = site.store._manifest_path(first.modules.snapshot.digest)
    worker, pipe = call(first, "shop.jobs", "start")
    try:
        # The generation may end before the process it started has begun.
        site.pending.close()
        wait_until(lambda: torn_down(first), what="the first generation is torn down")
        site.store.sweep([])
        assert pipe.poll(60)
        assert pipe.recv() == 1
        assert not free(manifest)
        pipe.send("go")
    finally:
        pipe.close()
        worker.join(60)
    assert worker.exitcode == 0
    assert free(manifest)


def free(manifest: str) -> bool:
    """Whether nobody holds the snapshot."""
    with open(manifest, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_process_without_its_snapshot(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """A process that can't open its snapshot ends with an error that says so."""
    site.write(**{name: text.replace("VERSION", "1") for name, text in TREE.items()})
    first = site.serve()
    os.unlink(site.store._manifest_path(first.modules.snapshot.digest))
    with pytest.raises(Exception, match="terminated abruptly"):
        call(first, "shop.jobs", "ask", "spawn")
    assert "a process of generation 1 can't have its code: " in capfd.readouterr().err


def test_process_of_an_ended_generation(site: Site) -> None:
    """An ended generation starts no processes: they could not have its code."""
    first, second = site.two(**TREE)
    jobs = first.run(first.modules.import_module, "shop.jobs")
    site.pending.close()
    wait_until(lambda: isinstance(first.modules, EndedTable), what="the first one is torn down")
    with pytest.raises(GenwsgiError, match="generation 1 is retired, its code starts no more"):
        jobs.start()
    assert call(second, "shop.jobs", "ask", "spawn") == 2


def test_process_of_a_generation_that_is_just_torn_down(site: Site) -> None:
    """That it can't have its code any more is said so, and not by an error about a closed file."""
    first, _ = site.two(**TREE)
    jobs = first.run(first.modules.import_module, "shop.jobs")
    first.modules.close()
    with pytest.raises(GenwsgiError, match=r"1 is .*, its code starts no more processes"):
        jobs.start()


def test_process_of_nobody(site: Site) -> None:
    """A process that nobody's code starts has the code of the current generation."""
    _, second = site.two(**TREE)
    jobs = second.run(second.modules.import_module, "shop.jobs")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(jobs.work, (jobs.Thing(),))[0] == {2}


def test_what_a_fork_server_has_imported(site: Site, tmp_path: Path) -> None:
    """What a fork server imported of the application beforehand is not a generation's."""
    script = tmp_path / "host.py"
    script.write_text(
        f"""
import multiprocessing, sys
from pathlib import Path
from tests.isolation.sources import Site, call
multiprocessing.set_forkserver_preload(["shop.jobs"])
if __name__ == "__main__":
    folder = Path({str(tmp_path)!r}) / "host"
    folder.mkdir()
    site = Site(folder)
    site.root = Path({str(site.root)!r})
    site.path = (str(site.root),)
    first = site.serve()
    jobs = site.root / "shop/jobs.py"
    jobs.write_text(jobs.read_text().replace("version = 1", "version = 2"))
    print(call(first, "shop.jobs", "ask", "forkserver"))
    site.close()
"""
    )
    site.write(**{name: text.replace("VERSION", "1") for name, text in TREE.items()})
    # A fork server has no other path than the environment's.
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site.root), *sys.path])}
    done = subprocess.run(
        [sys.executable, script], env=where, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "1\n", done.stderr


def test_preparation_is_where_it_is_expected() -> None:
    """Multiprocessing prepares processes by the function that is wrapped, in each way."""
    from multiprocessing import popen_forkserver, popen_spawn_posix

    for module in (popen_forkserver, popen_spawn_posix):
        assert vars(module)["spawn"] is spawn
    assert spawn.get_preparation_data("x")["name"] == "x"

"""Every line of the failure table in docs/operations.md: it happens, and all is as it says."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.process import limits
from tests.process.harness import Server, paced, put, run_command, serving
from tests.process.limits import confined, inside
from tests.process.load import Tally, load

TABLE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"

#: Answers with its version, pid and number; what else it does at its import comes first.
APPLICATION = """\
V = "{version}"
import os
{code}

def app(environ, start_response):
    body = f"{{V}} {{os.getpid()}} {number}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

#: Raises while a file is there, as code does whose database is away.
DEPENDENT = """\
if os.path.exists(os.path.join(os.path.dirname(__file__), "away")):
    raise RuntimeError("the database is away")"""

#: A thread that goes on when its generation has retired.
HOLDING = """\
import threading

def hold():
    threading.Event().wait(600)

threading.Thread(target=hold, daemon=True).start()"""

COUNT = itertools.count()
tried: set[str] = set()


def rows() -> dict[str, list[re.Pattern[str]]]:
    """What each row of the table says is in the log."""
    text = TABLE.read_text().partition("<!-- failures: begin -->")[2]
    lines = text.partition("<!-- failures: end -->")[0].strip().splitlines()[2:]
    found = {}
    for line in lines:
        what, log, _, _ = (cell.strip() for cell in line.strip("|").split(" | "))
        quoted = re.findall("`(.+?)`(?:, |$)", log)
        found[what] = [re.compile(re.escape(one).replace("…", ".*")) for one in quoted]
    return found


ROWS = rows()


def tries(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a test as that of a row of the table."""
    tried.add(what)
    return lambda test: test


def say(server: Server, what: str, *, since: int, first: int = 0, last: int = 9) -> None:
    """Wait until the log has, from ``since`` on, the lines of a row."""
    for pattern in ROWS[what][first:last]:
        wait_until(
            lambda: pattern.search(server.log(), since),  # noqa: B023 -- it is called at once
            60,
            f"{pattern.pattern} in {server.log()[since:]}",
        )


def said_once(server: Server, what: str, since: int) -> bool:
    """Whether each line of a row is in the log once since then, however long it has lasted."""
    return all(len(pattern.findall(server.log()[since:])) == 1 for pattern in ROWS[what])


def write(server: Server, version: str, code: str = "") -> int:
    """Put code in place; return its number, for each time it is other code than any before."""
    number = next(COUNT)
    put(server.root / "myapp.py", text(version, code, number))
    return number


def text(version: str, code: str = "", number: int = -1) -> str:
    """The application."""
    return APPLICATION.format(version=version, code=code, number=number)


def delete(folder: Path) -> None:
    """Delete a folder at once: somebody may write into it meanwhile."""
    gone = folder.with_name(f"{folder.name}-gone")
    folder.rename(gone)
    shutil.rmtree(gone)


def wait_for_problems(server: Server, *names: str) -> None:
    """Wait until the status says that just these things are wrong."""
    wait_until(lambda: server.problems() == [*names], 60, f"{names} in the status")


def wait_for_answer(server: Server, version: str) -> None:
    """Wait until a worker answers with ``version``."""
    wait_until(lambda: server.get().startswith(f"{version} "), 60, version)


def wait_for(server: Server, version: str, number: int | None = None) -> None:
    """Wait until every worker of two serves ``version``, nothing is under way and nothing is wrong.

    :param number: that of the code, where what was served before has that version as well.
    """

    def agreed() -> bool:
        answers = [server.get().split() for _ in range(8)]
        return (
            {answer[0] for answer in answers} == {version}
            and {int(answer[1]) for answer in answers} == set(server.workers())
            and len(server.workers()) == 2
            and (number is None or {int(answer[2]) for answer in answers} == {number})
        )

    wait_until(agreed, 60, f"both workers on {version}")
    server.wait_for_coordinator()
    wait_for_problems(server)


@contextmanager
def undisturbed(server: Server) -> Iterator[Tally]:
    """Have clients that see no failed request, and lose no connection, while the block runs."""
    with load(server.port, clients=4, think=0.02) as tally:
        yield tally
    assert tally.ok
    assert not tally.offences


@contextmanager
def limited(pid: int, kind: int, soft: int) -> Iterator[None]:
    """Give a running process a lower limit until the block ends."""
    before = resource.prlimit(pid, kind, (soft, resource.prlimit(pid, kind)[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers, which survives what the tests do to it."""
    root = tmp_path_factory.mktemp("host")
    put(root / "myapp.py", text("v0"))
    with serving(root, "--probation=15", target="myapp:app") as server:
        yield server


@pytest.fixture
def since(host: Server, request: pytest.FixtureRequest) -> Iterator[int]:
    """Where the host's log ends as the test begins, with both workers on a version of the test's.

    They are on another one, and nothing is wrong, when it has ended.
    """
    wait_for(host, "v0")
    yield len(host.log())
    wait_for(host, "v0", write(host, "v0"))


@tries("A worker dies")
def test_a_worker_dies(host: Server, since: int) -> None:
    """Another worker starts with the committed release, whatever is on the disk."""
    write(host, "broken", "1 / 0")
    say(host, "New code is broken", since=since)
    victim = host.workers()[0]
    os.kill(victim, signal.SIGKILL)
    say(host, "A worker dies", since=since)
    wait_until(lambda: len(set(host.workers()) - {victim}) == 2, 60, "another worker")
    assert {host.get().split()[0] for _ in range(8)} == {"v0"}


@tries("New code is broken")
def test_new_code_is_broken(host: Server, since: int) -> None:
    """What does not build costs no request."""
    with undisturbed(host):
        write(host, "broken", "1 / 0")
        say(host, "New code is broken", since=since)
    assert "ZeroDivisionError: division by zero" in host.log()[since:]


@tries("New code does not pass its verification")
def test_new_code_does_not_pass(host: Server, since: int) -> None:
    """Nobody sees a candidate that its own check refuses."""
    with undisturbed(host):
        write(host, "unfit", "import genwsgi\ngenwsgi.verify(lambda: 'no stock')")
        say(host, "New code does not pass its verification", since=since)
    assert "no stock" in host.log()[since:]


@tries("Requests of new code fail")
def test_requests_of_new_code_fail(host: Server, since: int) -> None:
    """It is gone again, from all workers, and not deployed again."""
    write(host, "failing", "def later(): pass\ndel os")
    with load(host.port, clients=4, think=0.02) as tally:
        say(host, "Requests of new code fail", since=since)
        wait_for(host, "v0")
    assert tally.reasons["status 500"]
    assert tally.refused == 0
    assert "not deployed again until the files change" in host.status().quiet


@tries("New code ends the process")
def test_new_code_ends_the_process(host: Server, since: int) -> None:
    """It is one worker that such code ends, and not all of them."""
    before = set(host.workers())
    write(host, "deadly", "os._exit(3)")
    say(host, "New code ends the process", since=since)
    wait_until(lambda: len(host.workers()) == 2 and set(host.workers()) != before, 60, "another")
    assert len(before & set(host.workers())) == 1
    assert {host.get().split()[0] for _ in range(8)} == {"v0"}


@tries("A build hangs")
def test_a_build_hangs(tmp_path: Path) -> None:
    """It is given up, and where it was is in the log."""
    put(tmp_path / "myapp.py", text("v0"))
    with serving(tmp_path, "--build-timeout=2", target="myapp:app") as server:
        since = len(server.log())
        with undisturbed(server):
            write(server, "hanging", "while True: pass")
            say(server, "A build hangs", since=since)
            wait_until(lambda: "myapp.py" in server.log()[since:], what="where it was")


@tries("A build needs more memory than there is")
def test_a_build_needs_too_much_memory(host: Server, since: int) -> None:
    """Memory that the system refuses fails the build and nothing else."""
    with ExitStack() as stack:
        for pid in host.workers():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
            size = pages * resource.getpagesize() + (64 << 20)
            stack.enter_context(limited(pid, resource.RLIMIT_AS, size))
        with undisturbed(host):
            write(host, "large", "bytearray(1 << 30)")
            say(host, "A build needs more memory than there is", since=since)


@tries("An old generation is held")
def test_an_old_generation_is_held(host: Server, since: int) -> None:
    """Its holder is in the log and in the status."""
    write(host, "holding", HOLDING)
    wait_for(host, "holding")
    write(host, "next")
    say(host, "An old generation is held", since=since)

    def held() -> bool:
        return any(one.holder for w in host.status().workers for one in w.generations)

    wait_until(held, what="the holder in the status")


@tries("A new worker can't build the committed release")
def test_a_new_worker_can_not_boot(host: Server, since: int) -> None:
    """The others serve on, and a worker starts as soon as one can."""
    write(host, "dependent", DEPENDENT)
    wait_for(host, "dependent")
    away = host.root / "away"
    away.touch()
    os.kill(host.workers()[0], signal.SIGKILL)
    say(host, "A new worker can't build the committed release", since=since)
    assert host.get().startswith("dependent ")
    away.unlink()
    wait_for(host, "dependent")


@tries("The coordinator dies")
def test_the_coordinator_dies(host: Server, since: int) -> None:
    """The next one is there at once, and deploys."""
    with undisturbed(host):
        os.kill(host.coordinator(), signal.SIGKILL)
        say(host, "The coordinator dies", since=since)
        write(host, "next")
        wait_for(host, "next")


@tries("The run directory is deleted")
def test_the_run_directory_is_deleted(host: Server, since: int) -> None:
    """It is there again, private and locked, and deploys and new workers find all they need."""
    with undisturbed(host):
        delete(host.run_dir)
        say(host, "The run directory is deleted", since=since)
        assert said_once(host, "The run directory is deleted", since)
    assert host.run_dir.stat().st_mode & 0o777 == 0o700
    wait_until(lambda: len(host.workers()) == 2, what="who serves")
    os.kill(host.workers()[0], signal.SIGKILL)
    wait_for(host, "v0")
    done = run_command(host.root, "--bind=127.0.0.1:0", f"--run-dir={host.run_dir}", "myapp:app")
    assert done.returncode == 2
    assert f"is in use by a running server (pid {host.process.pid})" in done.stderr
    write(host, "next")
    wait_for(host, "next")


@tries("The run directory is deleted, and the source has changed since")
def test_the_source_is_lost(host: Server, since: int) -> None:
    """What is lost is named until other code is committed."""
    with undisturbed(host):
        write(host, "broken", "1 / 0")
        say(host, "New code is broken", since=since)
        delete(host.run_dir)
        say(host, "The run directory is deleted, and the source has changed since", since=since)
        assert host.problems() == ["snapshot"]
        assert host.get().startswith("v0 ")
        write(host, "next")
        wait_for(host, "next")


@tries("A worker runs out of file descriptors")
def test_a_worker_runs_out_of_descriptors(host: Server, since: int) -> None:
    """Its connections stay, the others wait for it or for another worker."""
    what = "A worker runs out of file descriptors"
    with undisturbed(host):
        pid, other = host.workers()
        highest = max(int(entry) for entry in os.listdir(f"/proc/{pid}/fd"))
        with limited(pid, resource.RLIMIT_NOFILE, highest + 20):
            with load(host.port, clients=40) as tally:
                # Or it could be the other one that takes nearly all of them.
                with stopped(other):
                    say(host, what, since=since, last=1)
                wait_for_problems(host, "descriptors")
                goal = tally.ok + 400
                wait_until(lambda: tally.ok > goal, 30, "answers")
            assert not tally.offences
        say(host, what, since=since)
    assert said_once(host, what, since)


@tries("The coordinator runs out of file descriptors")
def test_the_coordinator_runs_out_of_descriptors(host: Server, since: int) -> None:
    """Deploys fail until it has some, and then the change that failed is deployed."""
    what = "The coordinator runs out of file descriptors"
    pid = host.coordinator()
    # Some are open for a moment only.
    seen = [{int(one) for one in os.listdir(f"/proc/{pid}/fd")} for _ in paced(10, 0.02)]
    used = set.intersection(*seen)
    free = next(number for number in count() if number not in used)
    with undisturbed(host):
        with limited(pid, resource.RLIMIT_NOFILE, free):
            write(host, "next")
            say(host, what, since=since, last=1)
            wait_until(lambda: "failed: " in host.log()[since:], what="the outcome")
        say(host, what, since=since)
        wait_for(host, "next")


@tries("The system refuses a new worker")
def test_the_system_refuses_a_worker(host: Server, since: int) -> None:
    """The server does not end over it, and has all its workers as soon as it may."""
    what = "The system refuses a new worker"
    with limited(host.process.pid, resource.RLIMIT_NOFILE, 3):
        os.kill(host.workers()[0], signal.SIGKILL)
        say(host, what, since=since, last=1)
        wait_for_problems(host, "workers")
        assert host.get().startswith("v0 ")
    say(host, what, since=since)
    wait_for(host, "v0")
    assert said_once(host, what, since)


@tries("The master dies")
def test_the_master_dies(tmp_path: Path) -> None:
    """Everything ends with it, and the next server takes its run directory over."""
    put(tmp_path / "myapp.py", text("v0"))
    server = Server(tmp_path, "--workers=2", "myapp:app")
    try:
        server.wait_ready(2)
        pids = [*server.workers(), server.coordinator()]
        server.process.kill()
        server.process.wait(10)

        def ended() -> bool:
            return not any(Path(f"/proc/{pid}").exists() for pid in pids)

        wait_until(ended, 60, "the end of all")
        say(server, "The master dies", since=0)
        (cell,) = [line for line in TABLE.read_text().splitlines() if "| The master dies |" in line]
        quoted = cell.rpartition("says `")[2].partition("`")[0]
        heir = Server(tmp_path, f"--run-dir={server.run_dir}", "myapp:app")
        try:
            heir.run_dir = server.run_dir
            heir.wait_ready()
            heir.wait_for_log(re.escape(quoted).replace("…", ".*"))
            assert heir.get().startswith("v0 ")
        finally:
            heir.close()
    finally:
        server.close()


@tries("The run directory can't be made again")
def test_the_run_directory_can_not_be_made_again(tmp_path: Path) -> None:
    """Without its parent it can't be made, which is said once; what is loaded serves on."""
    put(tmp_path / "myapp.py", text("v0"))
    with serving(tmp_path, target="myapp:app") as server:
        with undisturbed(server) as tally:
            delete(server.run_dir.parent)
            say(server, "The run directory can't be made again", since=0)
            server.wait_for_log("was deleted, or something in it")
            goal = tally.ok + 100
            wait_until(lambda: tally.ok > goal, what="answers")
            # Nobody is left then who knows what is committed.
            os.kill(server.coordinator(), signal.SIGKILL)
            server.wait_for_log(
                "the coordinator can't begin: .*; restart the server to deploy again"
            )
        assert said_once(server, "The run directory can't be made again", 0)


@tries("The broker is away")
@tries("The history can't be written")
def test_without_broker_and_history(tmp_path: Path) -> None:
    """A server whose broker is not there serves, deploys what is saved, and says what is wrong.

    So does one that can't write its history down.
    """
    put(tmp_path / "myapp.py", text("v0"))
    options = ("--amqp=amqp://127.0.0.1:1/", "--amqp-allow-unsigned", "--state-dir=/proc/nowhere")
    with serving(tmp_path, *options, target="myapp:app") as server:
        for what in ("The broker is away", "The history can't be written"):
            say(server, what, since=0)
        wait_until(lambda: {*server.problems()} == {"amqp", "history"}, 60, "the status")
        write(server, "next")
        wait_for_answer(server, "next")
        assert said_once(server, "The broker is away", 0)
        assert said_once(server, "The history can't be written", 0)


def fill(server: Server) -> Path:
    """Fill the disk of a server to its last byte; return the file that does."""
    filler = server.run_dir.parent / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return filler


@tries("The disk is full")
def test_the_disk_is_full(tmp_path: Path) -> None:
    """Deploys fail and workers are replaced; with room the change that failed is deployed."""
    put(tmp_path / "myapp.py", text("v0"))
    with confined(tmp_path, limits.SMALL_DISK, target="myapp:app") as server:
        filler = fill(server)
        with undisturbed(server):
            write(server, "next")
            say(server, "The disk is full", since=0, last=1)
            wait_for_problems(server, "disk")
            server.wait_for_log(r"by watch: failed: .*can't be written: .*No space left")
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait_for_log("Booting worker", count=3)
        wait_for_answers(server, "v0")
        filler.unlink()
        say(server, "The disk is full", since=0)
        wait_for(server, "next")
        assert said_once(server, "The disk is full", 0)


def wait_for_answers(server: Server, version: str) -> None:
    """Wait until two workers answer, all with ``version``, whether or not they are listed."""

    def agreed() -> bool:
        answers = [server.get().split() for _ in range(8)]
        assert {answer[0] for answer in answers} == {version}
        return len({answer[1] for answer in answers}) == 2

    wait_until(agreed, 60, f"two workers on {version}")


@tries("No inotify watches are left")
@tries("No inotify instances are left")
def test_no_inotify(tmp_path: Path) -> None:
    """Changes are seen all the same, and polling ends when the limit is raised."""
    cases = {
        "No inotify watches are left": (limits.FEW_WATCHES, limits.MANY_WATCHES),
        "No inotify instances are left": (limits.FEW_INSTANCES, limits.MANY_INSTANCES),
    }
    with ExitStack() as stack:
        servers = {}
        for what, (few, _) in cases.items():
            root = tmp_path / what.split()[2]
            root.mkdir()
            put(root / "myapp.py", text("v0"))
            servers[what] = stack.enter_context(confined(root, few, target="myapp:app"))
        for what, server in servers.items():
            say(server, what, since=0, last=1)
            wait_for_problems(server, "watch")
            write(server, "seen")
        for what, server in servers.items():
            wait_for_answer(server, "seen")
            inside(server, cases[what][1])
        for what, server in servers.items():
            say(server, what, since=0)
            wait_for_problems(server)
            write(server, "told")
            wait_for_answer(server, "told")
            assert said_once(server, what, 0)


@tries("The run directory is in use")
def test_the_run_directory_is_in_use(host: Server) -> None:
    """A second server in the same directory is refused with the pid of the first."""
    done = run_command(host.root, "--bind=127.0.0.1:0", f"--run-dir={host.run_dir}", "myapp:app")
    (pattern,) = ROWS["The run directory is in use"]
    assert done.returncode == 2
    assert pattern.search(done.stderr)
    assert str(host.process.pid) in done.stderr
    assert host.get()


def test_every_row_is_tried() -> None:
    """The table has no row without a test here, no test without a row, and no row without a log."""
    assert set(ROWS) == tried
    assert all(ROWS.values())

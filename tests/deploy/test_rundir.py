from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from genwsgi.deploy.control import Pause
from genwsgi.deploy.rundir import RunDirectory, hold, peer_uid
from genwsgi.errors import RunDirectoryError
from tests.deploy.real import directory, release, short
from tests.helpers import no_file_larger_than, no_more_files

__all__ = ["directory", "short"]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")

#: A user who is nobody in particular.
NOBODY = 65534


def refused(path: str, uid: int | None = None) -> str:
    """Why the directory ``path`` is refused."""
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.create(path, uid)
    assert caught.value.path == path
    assert str(caught.value) == f"run directory {path}: {caught.value.reason}"
    return caught.value.reason


def run(*lines: str) -> None:
    """Run Python statements in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_new_directory_is_private(short: str) -> None:
    """A run directory and what is in it can be used by its user and by nobody else."""
    made = RunDirectory.create(os.path.join(short, "run"))
    assert repr(made) == f"<RunDirectory {short}/run>"
    for place in (made.path, made.store, os.path.join(made.path, "serving")):
        assert os.stat(place).st_mode & 0o777 == 0o700
    assert made.socket == os.path.join(made.path, "coordinator.sock")


def test_without_a_path_a_temporary_directory_is_made(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a path it is a new folder among the user's run-time files, or else the temporary."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", short)
    first, second = RunDirectory.create(), RunDirectory.create()
    assert {os.path.dirname(made.path) for made in (first, second)} == {short}
    assert first.path != second.path
    monkeypatch.setenv("XDG_RUNTIME_DIR", os.path.join(short, "missing"))
    monkeypatch.setattr(tempfile, "tempdir", os.path.join(short, "temporary"))
    os.mkdir(os.path.join(short, "temporary"))
    assert os.path.dirname(RunDirectory.create().path) == os.path.join(short, "temporary")


def test_no_folder_of_temporary_files_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a server that was given no directory says so in one line, with what to do."""

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(RunDirectoryError, match=r"can't be written, nor any other .*; set TMPDIR"):
        RunDirectory.create()


def test_nameless_directories_that_were_left_are_removed(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed server has left where nobody will look for it goes; what is in use stays.

    So does what has such a name and is not a server's.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", short)
    used, left = RunDirectory.create(), RunDirectory.create()
    left._let_go()
    before = len(os.listdir("/proc/self/fd"))
    others = [os.path.join(short, name) for name in ("genwsgi-new", "genwsgi-more", "other")]
    for other in others:
        os.mkdir(other, 0o700)
    Path(others[0], "lock").touch()
    for other in others[1:]:
        Path(other, "lock").write_text("1\n")
        Path(other, "something").touch()
    new = RunDirectory.create()
    assert {entry.path for entry in os.scandir(short)} == {used.path, new.path, *others}
    assert len(os.listdir("/proc/self/fd")) == before + len(new._held)


def test_place_for_nameless_directories_that_is_missing(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no directory can be made among the temporary files, that place is named."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", os.path.join(short, "missing"))
    with pytest.raises(RunDirectoryError, match="missing: can't be written: No such file"):
        RunDirectory.create()


def test_directory_that_can_not_be_written(short: str) -> None:
    """A directory on a full disk is refused in one line."""
    place = os.path.join(short, "run")
    with no_file_larger_than(0):
        assert refused(place) == "can't be written: File too large"


def test_a_pipe_in_the_place_of_a_lock_stops_nobody(short: str) -> None:
    """Whatever somebody else has put among the temporary files, a server starts."""
    os.mkdir(os.path.join(short, "genwsgi-other"))
    os.mkfifo(os.path.join(short, "genwsgi-other", "lock"))
    run(
        "import os",
        "from genwsgi.deploy.rundir import RunDirectory",
        f"os.environ['XDG_RUNTIME_DIR'] = {short!r}",
        "RunDirectory.create().remove()",
    )
    assert os.listdir(os.path.join(short, "genwsgi-other")) == ["lock"]


def test_path_too_long_for_a_socket(short: str) -> None:
    """A path that leaves no room for the socket's name is refused before anything is made."""
    longest = 107 - len("/coordinator.sock")
    fits = short + "/" + "x" * (longest - len(short) - 1)
    assert "too long a path" in refused(fits + "x")
    assert not os.path.exists(fits + "x")
    made = RunDirectory.create(fits)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(made.socket)


def test_parent_that_is_missing(short: str) -> None:
    """A directory that can't be made is refused with the system's reason."""
    reason = refused(os.path.join(short, "missing", "run"))
    assert reason == "can't be made: No such file or directory"


def test_not_a_directory(short: str) -> None:
    """A file, and a symlink to a directory or to nothing, are not taken for a directory."""
    place = os.path.join(short, "run")
    Path(place).touch()
    assert refused(place) == "is not a directory"
    os.unlink(place)
    for goal in (short, os.path.join(short, "missing")):
        os.symlink(goal, place)
        assert refused(place) == "is not a directory"
        os.unlink(place)


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o770, 0o755])
def test_open_to_others(short: str, mode: int) -> None:
    """A directory that others may even enter is refused, and the next step is named."""
    place = os.path.join(short, "run")
    os.mkdir(place)
    os.chmod(place, mode)
    assert f"mode {mode:03o}); chmod 700 it" in refused(place)
    os.chmod(place, 0o700)
    RunDirectory.create(place)


def test_directory_of_somebody_else(short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of another user is refused, unless the workers run as that user."""
    place = os.path.join(short, "run")
    os.mkdir(place, 0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert refused(place) == f"belongs to user {owner}, not to this one"
    assert "belongs to user" in refused(place, owner + 2)
    assert os.listdir(place) == []
    RunDirectory.create(place, owner)


@as_root
def test_directory_of_root_is_refused_to_nobody(short: str) -> None:
    """A process of another user refuses the directory that root has made."""
    place = os.path.join(short, "run")
    os.mkdir(place, 0o700)
    os.chmod(short, 0o755)
    run(
        "import os, sys",
        "from genwsgi.deploy.rundir import RunDirectory",
        "from genwsgi.errors import RunDirectoryError",
        f"os.setuid({NOBODY})",
        f"try: RunDirectory.create({place!r})",
        "except RunDirectoryError as error:",
        "    assert error.reason == 'belongs to user 0, not to this one', error",
        "else: sys.exit('it was not refused')",
    )


@as_root
def test_directory_is_given_to_the_workers_user(directory: RunDirectory, short: str) -> None:
    """What root has made, whole, becomes the workers' user's, and nothing outside of it does."""
    Path(directory.store, "object").touch()
    outside = Path(short, "outside")
    outside.touch()
    Path(directory.store, "link").symlink_to(outside)
    directory.give_to(NOBODY, NOBODY)
    for folder, folders, files in os.walk(directory.path):
        for name in (os.curdir, *folders, *files):
            found = os.lstat(os.path.join(folder, name))
            assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY), name
    assert outside.stat().st_uid == 0


@as_root
def test_link_that_is_put_in_the_place_of_a_folder_leads_root_nowhere(
    directory: RunDirectory, short: str
) -> None:
    """What the workers' user swaps while a directory is given away, or removed, is not followed."""
    outside = Path(short, "outside")
    (outside / "store").mkdir(parents=True)
    (outside / "store" / "kept").touch()
    run(
        "import os, shutil, sys",
        "from genwsgi.deploy.rundir import RunDirectory",
        f"made = RunDirectory.create({short + '/another'!r})",
        f"aside, outside = {short + '/aside'!r}, {str(outside)!r}",
        "inner = made.store + '/objects'",
        "os.mkdir(inner)",
        "def swap(place):",
        "    shutil.move(place, aside)",
        "    os.symlink(outside, place)",
        "waiting = [inner]",
        "def audit(event, args):",
        # The moment before the folder is opened to see what is in it.
        "    if waiting and args and event in ('open', 'os.scandir', 'os.listdir'):",
        "        if args[0] in (waiting[0], 'objects'):",
        "            swap(waiting.pop())",
        "sys.addaudithook(audit)",
        f"made.give_to({NOBODY}, {NOBODY})",
        "assert not waiting and os.path.islink(inner)",
        "aside += '-too'",
        "held = made.is_held()",
        "made.is_held = lambda: swap(made.path) or held",
        "made.remove()",
    )
    for place in (outside, outside / "store", outside / "store" / "kept"):
        assert place.stat().st_uid == 0, place


def test_folder_that_is_filled_while_it_is_emptied_is_not_used(short: str) -> None:
    """A left-over folder that can't be removed is refused: others may have put links into it."""
    place = Path(short, "run")
    (place / "store").mkdir(parents=True)
    place.chmod(0o700)
    (place / "store" / "full").touch()
    run(
        "import os, sys",
        "from genwsgi.deploy.rundir import RunDirectory",
        "from genwsgi.errors import RunDirectoryError",
        f"another = {str(place / 'store' / 'another')!r}",
        "def audit(event, args):",
        "    if event == 'os.rmdir' and str(args[0]).endswith('store'):",
        "        os.close(os.open(another, os.O_CREAT))",
        "sys.addaudithook(audit)",
        "try:",
        f"    RunDirectory.create({str(place)!r})",
        "except RunDirectoryError as error:",
        '    assert "can\'t be written: File exists" in str(error), error',
        "else:",
        "    sys.exit('it was used')",
    )


def test_directory_of_the_workers_user_already(directory: RunDirectory) -> None:
    """To give a directory to the user who has it needs no right and changes nothing."""
    before = os.stat(directory.path).st_gid
    directory.give_to(os.geteuid(), before + 1)
    assert os.stat(directory.path).st_gid == before


def test_directory_in_use(directory: RunDirectory) -> None:
    """A directory of a server that runs is refused, its pid is named and nothing in it is lost."""
    reason = refused(directory.path)
    assert reason == f"is in use by a running server (pid {os.getpid()}); stop it or choose another"
    assert directory.committed() == release(1)


def test_who_uses_a_directory_is_in_its_lock(short: str) -> None:
    """Whoever may look into it can read the master's pid and the target, and nonsense is none."""
    made = RunDirectory.create(os.path.join(short, "run"), serves="shop:app")
    assert made.server() == (os.getpid(), "shop:app")
    Path(made.lock).write_text("12345678\n")
    assert made.server() == (None, "")
    os.unlink(made.lock)
    assert made.server() == (None, "")


def test_directory_whose_pid_is_not_written_yet(directory: RunDirectory) -> None:
    """A server that has the lock and has not named itself yet is in nobody's way either."""
    os.truncate(os.path.join(directory.path, "lock"), 0)
    assert "in use by a running server (pid unknown)" in refused(directory.path)


def test_directory_in_use_by_a_worker_alone(short: str) -> None:
    """As long as a process that the master forked lives, the directory is in use."""
    place = os.path.join(short, "run")
    lines = (
        "import os, sys",
        "from genwsgi.deploy.rundir import RunDirectory",
        f"RunDirectory.create({place!r})",
        "if os.fork(): os._exit(0)",
        "print(os.getpid(), flush=True)",
        "sys.stdin.read()",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        worker = os.pidfd_open(int(process.stdout.readline()))
        assert process.wait(10) == 0
        assert f"(pid {process.pid})" in refused(place)
        process.stdin.close()
        # Its end, and not that of its output, which it closes before it lets go of the lock.
        assert wait([worker], 10)
        os.close(worker)
    RunDirectory.create(place)


def test_stale_directory_is_taken_over_empty(short: str) -> None:
    """What a server that was killed has left is removed: it is no news of the next one's."""
    place = os.path.join(short, "run")
    lines = (
        "import os, socket",
        "from genwsgi.deploy.protocol import Release",
        "from genwsgi.deploy.rundir import RunDirectory",
        f"made = RunDirectory.create({place!r})",
        "made.record(Release(7, 'd', 't', '', 1.0)); made.keep_orders([{'id': 'a'}])",
        "made.begin_serving(4711); made.first('served')",
        "open(made.store + '/object', 'w').close()",
        "open(made.path + '/committed.new', 'w').close()",
        "socket.socket(socket.AF_UNIX).bind(made.socket)",
        "os.kill(os.getpid(), 9)",
    )
    left = subprocess.run([sys.executable, "-c", "\n".join(lines)], timeout=30)
    assert left.returncode == -9
    assert len(os.listdir(place)) == 7
    made = RunDirectory.create(place)
    assert sorted(os.listdir(place)) == ["lock", "serving", "store"]
    assert not os.listdir(made.store)
    assert not made.serving()
    assert not made.happened("served")
    assert Path(place, "lock").read_text() == f"{os.getpid()}\n"


def test_directory_with_something_else_in_it(short: str) -> None:
    """A folder that holds anything that no server put there is refused and left alone."""
    place = os.path.join(short, "run")
    os.mkdir(place, 0o700)
    os.mkdir(os.path.join(place, "store"))
    for name in ("thesis.tex", "zoo"):
        Path(place, name).touch()
    assert refused(place) == "holds something else (thesis.tex); choose an empty or a new one"
    assert sorted(os.listdir(place)) == ["store", "thesis.tex", "zoo"]


def test_remove_leaves_nothing_of_ours(directory: RunDirectory) -> None:
    """When the server is gone its directory is too."""
    directory.begin_serving(1)
    directory.keep_orders([])
    directory.remove()
    assert not os.path.exists(directory.path)
    directory.remove()


def test_remove_leaves_what_others_put_there(directory: RunDirectory) -> None:
    """What somebody else has put into the directory in the meantime is not removed."""
    Path(directory.path, "notes").touch()
    directory.remove()
    assert os.listdir(directory.path) == ["notes"]


def test_what_another_server_has_is_let_alone(directory: RunDirectory, short: str) -> None:
    """Who was deleted, and has another server in its place, writes nothing there.

    Nor does its end remove anything.
    """
    joined = RunDirectory(directory.path)
    joined.join()
    assert joined.is_ours()
    os.rename(directory.path, os.path.join(short, "gone"))
    RunDirectory.create(directory.path)
    Path(directory.path, "lock").write_text("1\n")
    before = sorted(os.listdir(directory.path))
    for one in (directory, joined):
        assert not one.is_ours()
        for write in (
            lambda one=one: one.record(release(2)),
            lambda one=one: one.keep_orders([]),
            lambda one=one: one.begin_serving(7),
        ):
            with pytest.raises(FileNotFoundError, match="is not this server's any more"):
                write()
        one.remove()
    assert sorted(os.listdir(directory.path)) == before


def test_committed_release_is_read_as_it_was_recorded(directory: RunDirectory) -> None:
    """The committed release is what was recorded last, every field of it."""
    assert directory.committed() == release(1)
    directory.record(release(2, "ü\udc80"))
    assert directory.committed() == release(2, "ü\udc80")
    assert RunDirectory(directory.path).committed() == release(2, "ü\udc80")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"7", b'{"number": 1}', b"\xff"])
def test_committed_release_that_is_lost(directory: RunDirectory, content: bytes | None) -> None:
    """A committed release that can't be read is an error that names the run directory."""
    place = Path(directory.path, "committed")
    place.unlink()
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(RunDirectoryError, match="the committed release is lost") as caught:
        directory.committed()
    assert caught.value.path == directory.path


def test_record_is_seen_whole_or_not_at_all(directory: RunDirectory) -> None:
    """Whoever reads while releases are recorded reads one of them, never a part of one."""
    goal = 300
    seen: set[int] = set()

    def read() -> None:
        while (number := directory.committed().number) < goal:
            seen.add(number)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(2, goal + 1):
        directory.record(release(number, "x" * (number * 97 % 9000)))
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive()
    assert seen <= set(range(1, goal))


def test_record_that_fails_leaves_the_old_release(directory: RunDirectory) -> None:
    """A release that can't be written whole is not committed; the one before it still is.

    Nothing of the other is left, which would take the last of a disk that is full.
    """
    before = set(os.listdir(directory.path))
    with no_file_larger_than(20):
        with pytest.raises(OSError, match="too large"):
            directory.record(release(2))
    assert directory.committed() == release(1)
    assert set(os.listdir(directory.path)) == before
    directory.record(release(2))
    assert directory.committed() == release(2)


def test_serving_workers(directory: RunDirectory) -> None:
    """A pid serves from its begin to its end, however often either is said."""
    assert directory.serving() == frozenset()
    for pid in (7, 8, 7):
        directory.begin_serving(pid)
    directory.first("served")
    assert directory.serving() == {7, 8}
    for _ in range(2):
        directory.end_serving(7)
    assert RunDirectory(directory.path).serving() == {8}


def test_serving_workers_of_no_directory(directory: RunDirectory) -> None:
    """In a directory that is gone nobody serves."""
    directory.begin_serving(7)
    directory.remove()
    assert directory.serving() == frozenset()
    directory.end_serving(7)


def test_event_happens_first_for_one_only(directory: RunDirectory) -> None:
    """Of many that mark one event at the same time, exactly one is told that it is the first."""
    assert not directory.happened("served")
    answers: list[bool] = []
    start = threading.Barrier(8)

    def mark() -> None:
        start.wait(10)
        answers.append(directory.first("served"))

    threads = [threading.Thread(target=mark) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [False] * 7 + [True]
    assert directory.happened("served")
    assert not directory.happened("refused")
    assert directory.first("refused")


def test_orders_are_kept_until_replaced(directory: RunDirectory) -> None:
    """The orders kept last are the orders found."""
    assert directory.orders() == []
    directory.keep_orders([{"id": "a"}, {"id": "b", "force": True}])
    assert RunDirectory(directory.path).orders() == [{"id": "a"}, {"id": "b", "force": True}]
    directory.keep_orders([])
    assert directory.orders() == []


def test_orders_that_are_damaged(directory: RunDirectory) -> None:
    """Orders that can't be read are no orders: the next coordinator must be able to start."""
    Path(directory.path, "orders").write_text("[{")
    assert directory.orders() == []


def test_peer_is_who_the_kernel_says() -> None:
    """The user at the other end of a socket is known without a word from there."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.geteuid()


@as_root
def test_peer_of_another_user(short: str) -> None:
    """A peer that runs as somebody else is known as that."""
    place = os.path.join(short, "socket")
    os.chmod(short, 0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        os.chmod(place, 0o666)
        listener.listen()
        listener.settimeout(10)
        run(
            "import os, socket",
            f"os.setuid({NOBODY})",
            "with socket.socket(socket.AF_UNIX) as end:",
            f"    end.connect({place!r})",
        )
        connection, _ = listener.accept()
        with connection:
            assert peer_uid(connection) == NOBODY


def test_lock_that_is_a_link_is_refused(short: str) -> None:
    """Nothing that a link in a left-over directory points to is written to."""
    victim, place = Path(short, "victim"), Path(short, "run")
    victim.write_text("not ours")
    place.mkdir(mode=0o700)
    (place / "lock").symlink_to(victim)
    assert "can't be locked" in refused(str(place))
    assert victim.read_text() == "not ours"


def test_directory_itself_is_held(short: str) -> None:
    """A cleaner of temporary files, which tries the directory's lock, finds it taken."""
    made = RunDirectory.create(os.path.join(short, "run"))
    with pytest.raises(BlockingIOError):
        hold(made.path)


def test_private_folder_of_one_user_is_not_for_workers_of_another(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the workers run as somebody else they could not reach this user's run-time files."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", short)
    monkeypatch.setattr(tempfile, "tempdir", os.path.join(short, "temporary"))
    os.mkdir(os.path.join(short, "temporary"))
    assert os.path.dirname(RunDirectory.create(None, os.geteuid()).path) == short
    others = RunDirectory.create(None, os.geteuid() + 1)
    assert os.path.dirname(others.path) == os.path.join(short, "temporary")


@pytest.mark.parametrize("name", ["store", "serving"])
def test_folder_that_is_a_link_is_replaced(short: str, name: str) -> None:
    """Nothing is written to, or removed from, where a link in a left-over directory leads."""
    elsewhere, place = Path(short, "elsewhere"), Path(short, "run")
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    place.mkdir(mode=0o700)
    (place / name).symlink_to(elsewhere)
    RunDirectory.create(str(place))
    assert not (place / name).is_symlink()
    assert os.listdir(elsewhere) == ["kept"]


def test_releases_that_are_kept_are_read_as_they_were_written(directory: RunDirectory) -> None:
    """What can be gone back to is there for the next coordinator; what is damaged is nothing."""
    assert directory.releases() == []
    kept = [release(1), replace(release(2), back_to=1, aside=("a", "b"), path=("/srv",))]
    directory.keep_releases(kept)
    assert RunDirectory(directory.path).releases() == kept
    Path(directory.path, "releases").write_text("half of")
    assert directory.releases() == []


def test_a_pause_lasts_until_its_end(directory: RunDirectory) -> None:
    """It is there for the next coordinator, and one that can't be read is one nevertheless."""
    assert directory.paused() is None
    directory.pause(None)
    directory.pause(Pause("somebody", 1000.5))
    assert RunDirectory(directory.path).paused() == Pause("somebody", 1000.5)
    Path(directory.path, "paused").write_text("half of")
    paused = directory.paused()
    assert paused is not None
    assert paused.by.startswith("somebody (")
    directory.pause(None)
    assert directory.paused() is None


def test_whose_it_is_can_not_be_told_without_descriptors(directory: RunDirectory) -> None:
    """For want of descriptors a directory is not taken for another server's."""
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        directory.guard()
    directory.guard()


def test_a_pause_is_as_it_was_while_there_are_no_descriptors(directory: RunDirectory) -> None:
    """That a file can't be opened for want of descriptors does not mean that there is a pause."""
    for pause in (None, Pause("somebody", 1000.5)):
        directory.pause(pause)
        assert directory.paused() == pause
        with no_more_files():
            assert directory.paused() == pause


def test_a_restart_is_asked_for_once(directory: RunDirectory) -> None:
    """The master finds the mark, and takes it away."""
    assert not directory.take_restart()
    directory.ask_restart()
    directory.ask_restart()
    assert directory.take_restart()
    assert not directory.take_restart()

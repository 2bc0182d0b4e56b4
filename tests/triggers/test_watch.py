"""The trigger as a whole, on real files changed as programs change them."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import random
import shutil
import string
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from watchdog.observers.api import BaseObserver

from genwsgi.triggers import watch as module
from genwsgi.triggers import watches
from genwsgi.triggers.looks import Looks, PollingObserver
from genwsgi.triggers.paths import Plan
from genwsgi.triggers.settle import Pace, Settle
from tests.helpers import wait_until

POLL = {"polling": True, "poll_interval": 0.05}

#: More silence than a busy machine makes between two steps of a test, in seconds.
QUIET = 2.0


@contextmanager
def patience(trigger):
    """Have ``trigger`` wait for more quiet than there is between two steps of a busy machine.

    One that polls waits for looks, and not for quiet: it decides when the block is over, after
    looks that have begun then.  With its order all is as usual.
    """
    settle, over = trigger._settle, threading.Event()
    usual, decide = settle.pace, settle.decide
    waits = [trigger._polling]

    def decides(now, obstacles=()):
        if waits[0]:
            if over.wait(0.005):
                settle.stir(now)
                waits[0] = False
            return None
        change = decide(now, obstacles)
        if change is not None:
            settle.pace = usual
            del settle.decide
        return change

    settle.pace = Pace(single=QUIET, burst=QUIET, cap=60.0)
    settle.decide = decides
    yield
    over.set()


@pytest.fixture(params=[{}, POLL], ids=["told", "polling"])
def mode(request):
    """Return the options of a trigger that is told, and of one that polls."""
    return request.param


@pytest.fixture
def put_off(monkeypatch):
    """Return what waits until a trigger has put its order off some times, for an obstacle."""
    decide = Settle.decide
    times = 0

    def decides(self, now, obstacles=()):
        nonlocal times
        times += bool(obstacles)
        return decide(self, now, obstacles)

    def wait():
        begun = times
        wait_until(lambda: times > begun + 5, what="an order to be put off")

    monkeypatch.setattr(Settle, "decide", decides)
    return wait


def write_half(place, orders, put_off):
    """Write a module of which nothing is taken while half of it is there."""
    with open(place.module, "w", encoding="utf-8") as file:
        file.write("a = 1\n")
        file.flush()
        put_off()
        assert orders.changes == []
        file.write("b = 2\n")
    assert orders.take().paths == (str(place.module),)


def soonest(order, within, attempts=5):
    """Have orders given until one is within so many seconds; return how long the soonest took."""
    taken: list[float] = []
    while len(taken) < attempts and min(taken, default=within) >= within:
        taken.append(order())
    return min(taken)


# One order for each change, however it is written.


def test_a_file_replaced_by_rename_gives_one_order(watch, orders, place, mode):
    """Write beside, rename: one order that names the file."""
    watch(place.root, **mode)
    place.replace(place.module, "a = 22\n")
    assert orders.take().paths == (str(place.module),)
    place.nothing_but_the_sentinel(orders)


def test_the_order_follows_a_rename_at_once(watch, orders, place):
    """The wait for quiet after a single rename is short enough for people and for tests."""
    watch(place.root)
    taken = []
    for number in range(8):
        beside = place.root / "m.py.tmp"
        beside.write_text(f"a = {number}\n")
        began = time.monotonic()
        os.replace(beside, place.module)
        orders.take()
        taken.append(orders.times[-1] - began)
    # Ten times as long as it has to be, and no longer than it would be for more than a rename.
    assert min(taken) < 10 * Pace().single <= Pace().burst


def test_a_file_written_in_place_gives_one_order(watch, orders, place, mode):
    """Truncate, write, close: one order."""
    watch(place.root, **mode)
    place.module.write_text("a = 1000\n")
    assert orders.take().paths == (str(place.module),)
    place.nothing_but_the_sentinel(orders)


def test_a_file_written_through_a_hard_link_of_another_gives_one_order(watch, orders, place, mode):
    """A file replaced by a hard link to another one is a change of that name."""
    watch(place.root, **mode)
    other = place.top / "other"
    other.write_text("a = 4\n")
    os.link(other, place.root / "link.tmp")
    os.replace(place.root / "link.tmp", place.module)
    assert orders.take().paths == (str(place.module),)


def test_an_older_file_restored_gives_an_order(watch, orders, place, mode):
    """A file that is older than the one it replaces is a change."""
    watch(place.root, **mode)
    old = place.top / "m.py.old"
    old.write_text("a = 0\n")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    os.replace(old, place.module)
    assert orders.take().paths == (str(place.module),)


def test_two_edits_that_keep_size_and_second_give_two_orders(watch, orders, place, mode):
    """An edit of equal length in the same second as the one before is a change of its own."""
    watch(place.root, **mode)
    second = int(time.time()) * 1_000_000_000
    for number in (5, 6):
        beside = place.root / "m.py.tmp"
        beside.write_text(f"a = {number}\n")
        os.utime(beside, ns=(second + number, second + number))
        os.replace(beside, place.module)
        assert orders.take().paths == (str(place.module),)


def test_an_editor_that_moves_the_old_file_away_gives_one_order(watch, orders, place):
    """Rename to a backup, write anew, delete the backup: one order, and the file is there."""
    there = []

    def order(change):
        there.append(place.module.exists())
        orders(change)

    with patience(watch(place.root, order=order)):
        (place.root / "4913").touch()
        (place.root / "4913").unlink()
        os.rename(place.module, place.root / "m.py~")
        place.module.write_text("a = 3\n")
        (place.root / "m.py~").unlink()
    assert orders.take().paths == (str(place.module),)
    assert there == [True]
    place.nothing_but_the_sentinel(orders)


def test_a_deleted_file_gives_an_order(watch, orders, place, mode):
    """A source that is gone is a change."""
    watch(place.root, **mode)
    place.module.unlink()
    assert orders.take().paths == (str(place.module),)


def test_a_sync_of_many_files_gives_one_order_at_its_end(watch, orders, place):
    """500 files in two seconds, each written beside and renamed: one order, after the last."""
    trigger = watch(place.root)
    pace = threading.Event()
    chosen = random.Random(1)
    ended = []

    def sync():
        for number in range(500):
            folder = place.root / f"p{number // 50}"
            folder.mkdir(exist_ok=True)
            suffix = "".join(chosen.choices(string.ascii_uppercase, k=6))
            beside = folder / f".m{number}.py.{suffix}"
            beside.write_text(f"a = {number}\n")
            os.replace(beside, folder / f"m{number}.py")
            pace.wait(0.004)
        ended.append(time.monotonic())

    thread = threading.Thread(target=sync)
    with patience(trigger):
        thread.start()
        thread.join(60.0)
    change = orders.take()
    assert change.count == 500
    assert len(change.paths) == 20
    assert orders.times[-1] > ended[0]
    place.nothing_but_the_sentinel(orders)
    place.replace(place.root / "p9" / "m499.py", "b = 1\n")
    assert orders.take().paths == (str(place.root / "p9" / "m499.py"),)


@pytest.mark.skipif(sys.platform != "linux", reason="only inotify tells of closes")
def test_a_write_that_stalls_gives_one_order_when_the_file_is_closed(watch, orders, place, put_off):
    """As long as somebody has it open for writing, half a module isn't taken for one."""
    trigger = watch(place.root)
    write_half(place, orders, put_off)
    assert trigger._reader.written == {}
    place.nothing_but_the_sentinel(orders)


@pytest.mark.skipif(sys.platform != "linux", reason="only inotify tells of closes")
def test_a_file_that_is_open_is_not_missed_while_time_goes_by(
    watch, orders, place, put_off, monkeypatch
):
    """However long it takes from the look at what is open to the decision, no half is ordered."""
    late = [0.0]
    monkeypatch.setattr(
        module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late[0])
    )
    trigger = watch(place.root)
    look = trigger._obstacles

    def slowly(*now):
        found = look(*now)
        # As if the first few looks had taken so long.
        late[0] = min(late[0] + Pace().burst, 4 * Pace().burst)
        return found

    monkeypatch.setattr(trigger, "_obstacles", slowly)
    write_half(place, orders, put_off)


@pytest.mark.skipif(sys.platform != "linux", reason="only inotify tells of closes")
def test_a_file_that_stays_open_delays_one_order_and_not_all(watch, orders, place, caplog):
    """It is waited for up to the cap, which is said; then its writes count as they come."""
    trigger = watch(place.root)
    trigger._settle.pace = Pace(single=0.025, burst=0.1, cap=1.0)
    began = time.monotonic()
    with open(place.module, "w", encoding="utf-8") as file:
        file.write("a = 1\n")
        file.flush()
        assert orders.take().paths == (str(place.module),)
        assert orders.times[-1] - began > 1.0
        assert f"{place.module} is still open for writing; going ahead" in caplog.text

        def written():
            began = time.monotonic()
            file.write("b = 1\n")
            file.flush()
            assert orders.take().paths == (str(place.module),)
            return orders.times[-1] - began

        assert soonest(written, 1.0) < 1.0


def test_modes_and_times_that_are_set_are_not_waited_for(watch, orders, place):
    """A file that is copied with all that belongs to it is closed before that is set."""
    other = place.top / "other"
    other.write_text("a = 4\n")
    watch(place.root)
    began = time.monotonic()
    shutil.copy2(other, place.module)
    assert orders.take().paths == (str(place.module),)
    place.module.chmod(0o600)
    place.replace(place.sentinel, "1")
    wait_until(lambda: any(str(place.sentinel) in change.paths for change in orders.changes))
    assert orders.times[-1] - began < Pace().cap / 2


def test_a_slow_write_seen_by_polling_gives_one_order_at_its_end(watch, orders, place, monkeypatch):
    """A file that grows between two looks is not complete: a look without news is waited for."""
    turns, ends = threading.Semaphore(1), []
    admits, over = Plan.admits, Looks.over

    def in_turn(self, path, sieve):
        assert path != str(place.module) or turns.acquire(timeout=60)
        return admits(self, path, sieve)

    def ended(self, event):
        # Its parent is looked at as well, and waits for no turn.
        if event.key == (str(place.root), True):
            ends.append(event)
        over(self, event)

    monkeypatch.setattr(Plan, "admits", in_turn)
    monkeypatch.setattr(Looks, "over", ended)
    watch(place.root, **POLL)
    with place.module.open("w") as file:
        for number in range(8):
            file.write(f"a = {number}\n")
            file.flush()
            turns.release()
            wait_until(lambda: len(ends) > number, what="the end of a look")  # noqa: B023
        assert orders.changes == []
    turns.release(10**6)
    assert orders.take().paths == (str(place.module),)
    place.nothing_but_the_sentinel(orders)


def test_a_look_that_takes_longer_than_silence_is_waited_for(
    watch, orders, place, put_off, monkeypatch
):
    """Whoever polls gives no order before all was looked at once more, however long that takes."""
    added = place.root / "new.py"
    seen = []
    going_on = threading.Event()
    admits = Plan.admits

    def slowly(self, path, sieve):
        if path == str(added):
            seen.append(path)
            if len(seen) == 2:
                going_on.wait(60)
        return admits(self, path, sieve)

    monkeypatch.setattr(Plan, "admits", slowly)
    watch(place.root, **POLL)
    place.replace(added, "a = 1\n")
    wait_until(lambda: len(seen) == 2, what="a look that takes its time")
    put_off()
    assert orders.changes == []
    going_on.set()
    assert orders.take().paths == (str(added),)


def test_files_that_never_rest_are_taken_as_they_are(watch, orders, place, monkeypatch):
    """A tree in which each look finds news gives an order when nobody would wait any longer."""
    monkeypatch.setattr(module, "LOOK_PATIENCE", 0.5)
    trigger = watch(place.root, **POLL)
    trigger._settle.pace = replace(trigger._settle.pace, cap=0.5)
    numbers = itertools.count(10)

    def ordered():
        place.replace(place.module, f"a = {next(numbers)}\n")
        return orders.changes

    wait_until(ordered, 30, "an order")


def git(where, *words):
    """Run git without the configuration of whoever runs the tests."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    subprocess.run(
        ["git", *names, *words], cwd=where, env=environment, check=True, capture_output=True
    )


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_slow_git_checkout_gives_one_order_at_its_end(watch, orders, place):
    """Pauses of git longer than any silence don't split a checkout: its lock is waited for."""
    git(place.top, "init", "-q")
    names = [f"m{number}.py" for number in range(3)]
    for version in ("one", "two"):
        for name in names:
            (place.root / name).write_text(f"a = '{version}'\n")
        (place.top / ".gitattributes").write_text("*.py filter=slow\n")
        git(place.top, "add", ".")
        git(place.top, "commit", "-q", "-m", version)
        git(place.top, "tag", version)
    git(place.top, "config", "filter.slow.smudge", "sleep 0.35; cat")
    watch(place.root)
    git(place.top, "checkout", "-q", "one")
    # Three of them at once are at its end; the patience with its lock would be longer than a take.
    assert orders.take().paths == tuple(str(place.root / name) for name in names)
    place.nothing_but_the_sentinel(orders)


def test_a_lock_that_git_left_behind_is_not_waited_for_without_end(
    watch, orders, place, monkeypatch, caplog
):
    """After its patience the order is given, with a warning that names the lock."""
    monkeypatch.setattr(module, "GIT_PATIENCE", 0.1)
    (place.root / ".git").mkdir()
    lock = place.root / ".git" / "index.lock"
    lock.touch()
    watch(place.root)
    began = time.monotonic()
    place.replace(place.module, "a = 2\n")
    assert orders.take().paths == (str(place.module),)
    assert orders.times[-1] - began >= 0.1
    assert str(lock) in caplog.text


# Symlinks.


def releases(place):
    """Make two releases and a symlink to the first; return the root behind it."""
    for number in (1, 2):
        (place.top / f"r{number}" / "app").mkdir(parents=True)
        (place.top / f"r{number}" / "app" / "m.py").write_text(f"a = {number}\n")
    (place.top / "current").symlink_to("r1")
    return place.top / "current" / "app"


def test_a_release_symlink_that_flips_gives_one_order(watch, orders, place, mode):
    """The flip is one order, and from then on the new release is watched and not the old one."""
    root = releases(place)
    watch(root, **mode)
    place.flip(place.top / "current", "r2")
    assert orders.take().paths == (str(root),)
    place.replace(place.top / "r1" / "app" / "m.py", "a = 10\n")
    place.replace(place.top / "r2" / "app" / "m.py", "a = 20\n")
    assert orders.take().paths == (str(place.top / "r2" / "app" / "m.py"),)
    place.flip(place.top / "current", "r1")
    assert orders.take().paths == (str(root),)


def volume(place, number):
    """Make one of the folders that ``..data`` of a Kubernetes volume leads to."""
    folder = place.top / "volume" / f"..2026_11_23_19_03_5{number}.123456789"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "m.py").write_text(f"a = {number}\n")
    (folder / "single.py").write_text(f"a = {number}\n")
    return folder


@pytest.mark.parametrize("named", [".", "app", "single.py"])
def test_a_kubernetes_volume_that_flips_gives_one_order(watch, orders, place, mode, named):
    """The flip of ``..data`` is seen by a root that is the volume, a directory or a file in it."""
    top = place.top / "volume"
    old = volume(place, 1)
    (top / "..data").symlink_to(old.name)
    for name in ("app", "single.py"):
        (top / name).symlink_to(f"..data/{name}")
    with patience(watch(top / named, **mode)):
        new = volume(place, 2)
        place.flip(top / "..data", new.name)
        shutil.rmtree(old)
    assert str(top) in orders.take().paths[0]
    changed = new / ("single.py" if named == "single.py" else "app/m.py")
    place.replace(changed, "a = 33\n")
    assert orders.take().paths == (str(changed),)


def test_a_linked_directory_inside_a_root_is_watched(watch, orders, place, mode):
    """What happens where a symlink in the tree leads is a change, from the link's birth on."""
    lib = place.top / "lib"
    lib.mkdir()
    watch(place.root, **mode)
    (place.root / "lib").symlink_to("../lib")
    assert orders.take().paths == (str(place.root / "lib"),)
    (lib / "x.py").write_text("a = 1\n")
    assert orders.take().paths == (str(lib / "x.py"),)
    (place.root / "lib").unlink()
    assert orders.take().paths == (str(place.root / "lib"),)


def test_a_linked_file_inside_a_root_is_watched(watch, orders, place, mode):
    """A source elsewhere that a symlink in the tree leads to is one file that matters."""
    elsewhere = place.top / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.py").write_text("a = 1\n")
    (place.root / "x.py").symlink_to(elsewhere / "x.py")
    watch(place.root, **mode)
    (elsewhere / "y.py").write_text("a = 1\n")
    place.replace(elsewhere / "x.py", "a = 2\n")
    assert orders.take().paths == (str(elsewhere / "x.py"),)


def test_a_link_to_too_much_is_told(watch, place, caplog):
    """A symlink that isn't followed is named once in the log."""
    (place.root / "up").symlink_to("..")
    watch(place.root)
    assert str(place.root / "up") in caplog.text


# Directories that come and go.


@pytest.mark.parametrize("away", ["deleted", "moved"])
def test_a_root_made_anew_gives_one_order_when_it_is_back(
    watch, orders, place, put_off, mode, away
):
    """While the root is gone nothing is ordered; then once, and the new one is watched."""
    there = []

    def order(change):
        there.append(place.module.exists())
        orders(change)

    trigger = watch(place.root, order=order, **mode)
    if away == "deleted":
        shutil.rmtree(place.root)
    else:
        os.rename(place.root, place.top / "away")
    wait_until(lambda: trigger.status()["problem"], what="the root's absence in the status")
    assert str(place.root) in trigger.status()["problem"]
    put_off()
    assert not orders.changes
    with patience(trigger):
        place.root.mkdir()
        place.module.write_text("a = 2\n")
    orders.take()
    assert there == [True]
    wait_until(lambda: trigger.status()["problem"] is None)
    place.nothing_but_the_sentinel(orders)


def test_a_root_that_stays_away_does_not_stop_the_others(watch, orders, place):
    """A root removed for good delays one order by the cap, and no more after it."""
    other = place.top / "other"
    other.mkdir()
    trigger = watch(place.root, other)
    trigger._settle.pace = Pace(cap=0.3)
    shutil.rmtree(place.root)
    orders.take()

    def replaced():
        began = time.monotonic()
        place.replace(other / "x.py", "a = 1\n")
        assert orders.take().paths == (str(other / "x.py"),)
        return orders.times[-1] - began

    assert soonest(replaced, 0.3) < 0.3


def test_a_root_that_does_not_exist_yet_is_waited_for(watch, orders, place, mode):
    """Each missing directory is seen to come, and the root's coming is a change."""
    root = place.top / "not" / "yet" / "app"
    trigger = watch(root, **mode)
    assert str(place.top) in trigger.status()["problem"]
    with patience(trigger):
        root.mkdir(parents=True)
        (root / "m.py").write_text("a = 1\n")
    orders.take()
    assert trigger.status()["problem"] is None
    place.replace(root / "m.py", "a = 22\n")
    assert orders.take().paths == (str(root / "m.py"),)


def test_an_ancestor_moved_away_is_noticed(watch, orders, place, monkeypatch):
    """What no watch tells, a root's grandparent replaced by another, is found by looking."""
    monkeypatch.setattr(module, "CHECK", 0.05)
    for name in ("x", "y"):
        (place.top / name / "b" / "app").mkdir(parents=True)
    watch(place.top / "x" / "b" / "app")
    os.rename(place.top / "x", place.top / "old")
    os.rename(place.top / "y", place.top / "x")
    assert orders.take().paths == (str(place.top / "x" / "b" / "app"),)
    changed = place.top / "x" / "b" / "app" / "m.py"
    place.replace(changed, "a = 1\n")
    assert orders.take().paths == (str(changed),)


def test_a_directory_moved_in_gives_an_order(watch, orders, place, mode):
    """What is in it counts, and it is watched from then on."""
    outside = place.top / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub" / "x.py").write_text("a = 1\n")
    watch(place.root, **mode)
    os.rename(outside, place.root / "pkg")
    moved = place.root / "pkg" / "sub" / "x.py"
    assert str(moved) in orders.take().paths
    place.replace(moved, "a = 22\n")
    assert orders.take().paths == (str(moved),)


def test_a_directory_moved_away_gives_an_order(watch, orders, place, mode):
    """It is a change, and what happens to it afterwards is none."""
    package = place.root / "pkg"
    package.mkdir()
    (package / "x.py").write_text("a = 1\n")
    watch(place.root, **mode)
    os.rename(package, place.top / "away")
    assert str(package) in orders.take().paths[0]
    (place.top / "away" / "x.py").write_text("a = 22\n")
    place.nothing_but_the_sentinel(orders)


def test_a_new_package_is_watched(watch, orders, place, mode):
    """A file in a directory made a moment ago counts, and so do its later changes."""
    watch(place.root, **mode)
    inside = place.root / "new" / "deep" / "x.py"
    inside.parent.mkdir(parents=True)
    inside.write_text("a = 1\n")
    assert orders.take().paths == (str(inside),)
    place.replace(inside, "a = 22\n")
    assert orders.take().paths == (str(inside),)


# What matters and what doesn't.


@pytest.mark.parametrize(
    "name",
    [
        "__pycache__/m.cpython-313.pyc",
        ".git/objects/ab/x.py",
        "node_modules/p/x.py",
        ".venv/lib/x.py",
        ".m.py.swp",
        "m.py~",
        ".#m.py",
        "4913",
        ".m.py.Ab1Cd2",
        "m.py___jb_tmp___",
        "notes.txt",
        "static/app.js",
    ],
)
def test_what_is_ignored_gives_no_order(watch, orders, place, name):
    """Made, written and deleted, it is no change."""
    watch(place.root)
    path = place.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1")
    path.write_text("22")
    path.unlink()
    place.nothing_but_the_sentinel(orders)


def test_reading_gives_no_order(watch, orders, place):
    """Opening a source to read it is no change."""
    watch(place.root)
    place.module.read_text()
    place.nothing_but_the_sentinel(orders)


@pytest.mark.parametrize("name", ["page.html", "sub/page.html", ".env", "conf/a.yaml"])
def test_patterns_name_what_else_matters(watch, orders, place, mode, name):
    """A pattern matches a base name, or the path relative to the root."""
    for folder in ("sub", "conf"):
        (place.root / folder).mkdir()
    watch(place.root, patterns=["*.html", ".env", "conf/*.yaml"], **mode)
    (place.root / "a.yaml").write_text("1")
    (place.root / name).write_text("1")
    assert orders.take().paths == (str(place.root / name),)


def test_extra_paths_matter_whole(watch, orders, place, mode):
    """Any file in an extra directory counts, and an extra file, but not the files beside it."""
    extra = place.top / "templates"
    extra.mkdir()
    single = place.top / "settings.toml"
    single.write_text("1")
    watch(place.root, extra=[str(extra), str(single)], **mode)
    (extra / "page.txt").write_text("1")
    assert orders.take().paths == (str(extra / "page.txt"),)
    (place.top / "other.toml").write_text("1")
    place.replace(single, "22")
    assert orders.take().paths == (str(single),)
    (extra / "x.txt~").write_text("1")
    place.nothing_but_the_sentinel(orders)


def test_other_ignore_patterns_take_the_place_of_the_defaults(watch, orders, place):
    """What ``ignore`` names is ignored, and nothing else is."""
    watch(place.root, ignore=["gen*"])
    (place.root / "generated.py").write_text("1")
    (place.root / "x.tmp.py").write_text("1")
    assert orders.take().paths == (str(place.root / "x.tmp.py"),)


# When things go wrong.


def test_a_broken_callback_is_logged_and_survived(watch, orders, place, caplog):
    """What ``order`` raises is in the log with its traceback, and the next change is ordered."""

    def order(change):
        orders(change)
        if place.module.read_text() == "broken\n":
            raise RuntimeError("no such luck")

    watch(place.root, order=order)
    place.replace(place.module, "broken\n")
    orders.take()
    place.replace(place.module, "a = 3\n")
    orders.take()
    assert "RuntimeError: no such luck" in caplog.text
    assert str(place.module) in caplog.text


def limit(monkeypatch, number):
    """Let no directory be watched, for want of what ``number`` says; polling works."""
    real = BaseObserver.schedule

    def schedule(self, handler, path, **options):
        if not isinstance(self, PollingObserver):
            raise OSError(number, os.strerror(number))
        return real(self, handler, path, **options)

    monkeypatch.setattr(BaseObserver, "schedule", schedule)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
def test_without_watches_left_the_trigger_polls(watch, orders, place, monkeypatch, caplog, number):
    """One line says what happened and what to do; the status says so; changes are still seen."""
    limit(monkeypatch, number)
    trigger = watch(place.root, poll_interval=0.05)
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "fs.inotify.max_user_" in record.getMessage()
    assert "--watch-polling" in record.getMessage()
    assert trigger.status()["polling"] is True
    assert trigger.status()["problem"] in record.getMessage()
    place.nothing_but_the_sentinel(orders)


def test_a_limit_reached_later_is_survived_too(watch, orders, place, monkeypatch):
    """When a new directory can't be watched any more the trigger begins to poll."""
    trigger = watch(place.root, poll_interval=0.05)
    limit(monkeypatch, errno.ENOSPC)
    (place.root / "pkg").mkdir()
    inside = place.root / "pkg" / "x.py"
    inside.write_text("a = 1\n")
    wait_until(lambda: trigger.status()["polling"], what="polling")
    wait_until(lambda: any(str(inside) in change.paths for change in orders.changes))
    # Whatever it has made of the beginning is ordered before this, or with it.
    place.replace(place.sentinel, "1")
    wait_until(lambda: any(str(place.sentinel) in change.paths for change in orders.changes))
    orders.changes.clear()
    place.replace(inside, "a = 22\n")
    assert orders.take().paths == (str(inside),)


def test_polling_ends_when_the_limit_allows(watch, orders, place, monkeypatch, caplog):
    """With watches left again the trigger is told by the system, says so, and misses no change."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "CHECK", 0.02)
    monkeypatch.setattr(module, "AGAIN", 0.02)
    with monkeypatch.context() as patch:
        limit(patch, errno.ENOSPC)
        trigger = watch(place.root, poll_interval=60.0)
        place.replace(place.module, "a = 2\n")
    wait_until(lambda: trigger.status()["problem"] is None, what="the end of polling")
    assert trigger.status()["polling"] is False
    # What nobody has told of is somewhere below the root.
    assert orders.take().paths == (str(place.root),)
    place.nothing_but_the_sentinel(orders)
    told = [record.getMessage() for record in caplog.records if record.name == "genwsgi.test"]
    assert len(told) == 2
    assert told[1] == "the file watch: the system tells of changes again; polling has ended"


def test_polling_goes_on_as_long_as_the_limit_stands(watch, orders, place, monkeypatch, caplog):
    """Each attempt to be told that fails costs nothing but itself: no line, no missed change."""
    monkeypatch.setattr(module, "CHECK", 0.02)
    monkeypatch.setattr(module, "AGAIN", 0.02)
    opened = []
    real = watches.Watches.__init__

    def init(self, emit, admits, interval):
        opened.append(interval)
        if interval is None and len(opened) == 3:
            raise watches.WatchError("no inotify instances left")
        real(self, emit, admits, interval)

    limit(monkeypatch, errno.ENOSPC)
    monkeypatch.setattr(watches.Watches, "__init__", init)
    trigger = watch(place.root, poll_interval=0.05)
    wait_until(lambda: opened.count(None) > 4, what="attempts")
    assert trigger.status()["polling"]
    # In place: who polls is told of no close, and waits for none.
    place.module.write_text("a = 22\n")
    assert orders.take().paths == (str(place.module),)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_an_observer_that_ended_is_replaced(watch, orders, place, monkeypatch, caplog):
    """When nobody hands events on any more that is told, and what was missed meanwhile counts."""
    monkeypatch.setattr(module, "CHECK", 0.02)
    changed = threading.Event()

    def order(change):
        orders(change)
        changed.wait(10)

    trigger = watch(place.root, order=order)
    # As long as the trigger is busy with this order it does not look at its observer.
    place.nothing_but_the_sentinel(orders)
    ended = trigger._watches._observer
    ended.stop()
    ended.join(10)
    place.replace(place.module, "a = 2\n")
    changed.set()
    assert orders.take().paths == (str(place.root),)
    assert "its observer has ended; another one begins" in caplog.text
    place.nothing_but_the_sentinel(orders)


def test_a_change_that_the_system_dropped_in_a_flood_gives_an_order(
    watch, orders, place, monkeypatch
):
    """Its queue was full of what happened in an ignored folder: then the files are looked at."""
    ignored = place.root / "node_modules"
    ignored.mkdir()
    real = watches.Watches.__init__

    def init(self, emit, admits, interval):
        def full(event):
            if event.src_path != str(place.module):
                emit(event)

        real(self, full, admits, interval)

    monkeypatch.setattr(module, "CHECK", 0.05)
    monkeypatch.setattr(module, "events_kept", lambda: 400)
    monkeypatch.setattr(watches.Watches, "__init__", init)
    watch(place.root)
    for number in range(200):
        (ignored / f"{number}.js").touch()
    place.module.write_text("a = 2\n")
    assert orders.take().paths == (str(place.root),)
    place.nothing_but_the_sentinel(orders)


def test_an_error_of_the_file_system_is_logged_and_tried_again(
    watch, orders, place, monkeypatch, caplog
):
    """When not even polling works the trigger goes on trying, and changes count when it can."""
    monkeypatch.setattr(module, "CHECK", 0.05)
    broken = threading.Event()
    broken.set()
    real = watches.Watches.apply

    def apply(self, plan, stale=frozenset()):
        if broken.is_set():
            raise watches.WatchError("stale file handle")
        return real(self, plan, stale)

    monkeypatch.setattr(watches.Watches, "apply", apply)
    trigger = watch(place.root, **POLL)
    wait_until(lambda: "the file watch failed" in caplog.text)
    assert "stale file handle" in caplog.text
    broken.clear()
    wait_until(lambda: any(str(place.root) in change.paths for change in orders.changes))
    assert trigger.status()["watching"]
    orders.changes.clear()
    place.nothing_but_the_sentinel(orders)


def test_a_change_is_not_lost_when_its_watches_cannot_be_renewed(
    watch, orders, place, monkeypatch, caplog
):
    """The order is given although replacing the watches of a changed tree fails."""

    def renew(self, bases):
        raise watches.WatchError("stale file handle")

    monkeypatch.setattr(watches.Watches, "renew", renew)
    watch(place.root, **POLL)
    inside = place.root / "pkg" / "x.py"
    inside.parent.mkdir()
    inside.write_text("a = 1\n")
    wait_until(lambda: any(str(inside) in change.paths for change in orders.changes))
    wait_until(lambda: "stale file handle" in caplog.text)


def test_stopping_ends_all_threads(watch, place, mode):
    """After stop and join no thread is left, and no file descriptor."""
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    trigger = watch(place.root, place.top / "missing", **mode)
    assert set(threading.enumerate()) - threads
    trigger.stop()
    trigger.stop()
    trigger.join(10.0)
    # Those of the test before may end only now.
    wait_until(lambda: set(threading.enumerate()) <= threads)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= files)


def test_a_trigger_never_started_can_be_stopped(orders, place):
    """Stop and join are harmless before start."""
    trigger = module.WatchTrigger([str(place.root)], orders, log=logging.getLogger("genwsgi.test"))
    assert trigger.status() == {"watching": 0, "polling": False, "problem": None}
    trigger.stop()
    trigger.join(1.0)


def test_the_status_counts_what_is_watched(watch, place):
    """A root is one watch for itself and one for its entry in its parent."""
    assert watch(place.root).status() == {"watching": 2, "polling": False, "problem": None}


def test_the_options_make_a_trigger_that_says_what_changed(place):
    """Made from genwsgi's options, it submits its name and the first few names that changed."""
    submitted = []
    options = {
        "watch": True,
        "roots": [str(place.root)],
        "watch_path": [],
        "watch_pattern": [],
        "watch_ignore": list(module.DEFAULT_IGNORE),
        "watch_polling": False,
        "watch_interval": 1.0,
    }
    log = logging.getLogger("genwsgi.test")
    trigger = module.make(options, lambda *words: submitted.append(words), log)
    assert trigger is not None
    trigger.start()
    with patience(trigger):
        for number in range(5):
            (place.root / f"n{number}.py").write_text("1")
    wait_until(lambda: submitted)
    trigger.stop()
    trigger.join(10.0)
    assert submitted == [("watch", "changed: n0.py, n1.py, n2.py and 2 more")]
    assert module.make({**options, "watch": False}, lambda *words: None, log) is None


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (("/srv/a/x.py",), "changed: x.py"),
        (("/srv/a/x.py", "/srv/b/y.py"), "changed: x.py, y.py"),
        (("/srv/a/__init__.py", "/srv/b/__init__.py"), "changed: a/__init__.py, b/__init__.py"),
    ],
)
def test_names_are_told_apart(paths, words):
    """What has changed is said by its names, and with its folders where names are the same."""
    assert module.in_words(module.Change(paths, len(paths))) == words


def test_other_roots_are_watched_when_code_comes_from_elsewhere(watch, orders, place):
    """Told to follow, the watch gives orders for the new folder, and none for the old one."""
    trigger = watch(place.root)
    other = place.top / "release"
    other.mkdir()
    (other / "m.py").write_text("a = 1\n")
    trigger.follow([str(other)])
    orders.take("the order for the folder that is new to it")
    place.replace(other / "m.py", "a = 2\n")
    assert orders.take().paths == (str(other / "m.py"),)
    place.replace(place.module, "a = 2\n")
    place.replace(other / "m.py", "a = 3\n")
    assert orders.take().paths == (str(other / "m.py"),)

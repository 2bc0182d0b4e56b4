"""One observer and what it watches, told and polling."""

from __future__ import annotations

import errno
import os
import queue
import threading
import warnings

import pytest
from watchdog.events import FileCreatedEvent
from watchdog.observers.api import BaseObserver

from genwsgi.triggers import watches as module
from genwsgi.triggers.flood import KEPT
from genwsgi.triggers.looks import LookEvent, PollingObserver
from genwsgi.triggers.paths import Plan
from genwsgi.triggers.watches import PROBE, WatchError, Watches, events_kept
from tests.helpers import wait_until


@pytest.fixture
def top(tmp_path):
    """Return a directory by its real path."""
    return tmp_path.resolve()


@pytest.fixture
def events():
    """Return a queue for events."""
    return queue.SimpleQueue()


@pytest.fixture(params=[None, 0.02], ids=["told", "polling"])
def watches(request, events):
    """Yield watches that are told, and watches that poll."""
    made = Watches(events.put, lambda path: "ignored" not in path, request.param)
    yield made
    made.close(10.0)


def wait_for_created(events, path):
    """Wait for the event that ``path`` was made."""
    while True:
        event = events.get(timeout=10.0)
        if isinstance(event, FileCreatedEvent) and event.src_path == str(path):
            return


def news(events):
    """Return the next event that is more than the end of a look."""
    while isinstance(event := events.get(timeout=10.0), LookEvent):
        pass
    return event


def of(*recursive, shallow=()):
    """Return a plan to watch these directories."""
    return Plan(recursive=frozenset(map(str, recursive)), shallow=frozenset(map(str, shallow)))


def test_what_the_plan_says_is_watched(watches, events, top):
    """Recursive directories report what happens deep below."""
    (top / "deep" / "er").mkdir(parents=True)
    assert watches.apply(of(top)) == set()
    assert len(watches) == 1
    (top / "deep" / "er" / "m.py").touch()
    wait_for_created(events, top / "deep" / "er" / "m.py")


def test_what_left_the_plan_is_watched_no_more(watches, events, top):
    """A new plan ends the watches it doesn't contain."""
    for name in "ab":
        (top / name).mkdir()
    watches.apply(of(top / "a", top / "b"))
    watches.apply(of(top / "b"))
    assert len(watches) == 1
    (top / "a" / "m.py").touch()
    (top / "b" / "m.py").touch()
    assert news(events).src_path == str(top / "b" / "m.py")


def test_a_directory_made_anew_is_watched_anew(watches, events, top):
    """A watch whose directory was replaced is broken, and replaced by applying the plan again."""
    (top / "a").mkdir()
    watches.apply(of(top / "a"))
    assert not watches.broken()
    os.rename(top / "a", top / "old")
    (top / "a").mkdir()
    assert watches.broken()
    assert watches.apply(of(top / "a")) == {str(top / "a")}
    assert not watches.broken()
    (top / "a" / "m.py").touch()
    wait_for_created(events, top / "a" / "m.py")


def test_a_watch_that_ended_by_itself_is_broken(watches, top):
    """A deleted directory's watch ends, which shows."""
    (top / "a").mkdir()
    watches.apply(of(top / "a"))
    (top / "a").rmdir()
    wait_until(watches.broken)


def test_stale_watches_are_replaced(watches, top):
    """Watches at and below a stale path are replaced, others are left alone."""
    for name in ("a/b", "ab"):
        (top / name).mkdir(parents=True)
    plan = of(top / "a" / "b", top / "ab")
    watches.apply(plan)
    assert watches.apply(plan) == set()
    assert watches.apply(plan, frozenset({str(top / "a")})) == {str(top / "a" / "b")}


def test_a_directory_that_is_gone_is_no_error(watches, top):
    """What vanished since the plan was made is left to the next plan."""
    watches.apply(of(top / "gone"))
    assert len(watches) == 0


def test_renewed_watches_go_on(watches, events, top):
    """After a renewal the same directories are watched."""
    watches.apply(of(top))
    watches.renew({str(top), str(top / "unknown")})
    assert len(watches) == 1
    (top / "m.py").touch()
    wait_for_created(events, top / "m.py")


def test_a_polling_observer_leaves_out_what_is_not_admitted(events, top):
    """Files that are not admitted give no event."""
    watches = Watches(events.put, lambda path: "ignored" not in path, 0.02)
    watches.apply(of(top))
    (top / "ignored").mkdir()
    (top / "ignored" / "m.py").touch()
    (top / "m.py").touch()
    event = news(events)
    watches.close(10.0)
    assert event.src_path == str(top / "m.py")


def test_a_polling_observer_says_when_it_has_looked(events, top):
    """What a look has found is told before its end, each look once; one that failed is none."""
    in_order = threading.Event()
    in_order.set()

    def admits(path):
        if not in_order.is_set():
            raise OSError(errno.EIO, "away", path)
        return True

    watches = Watches(events.put, admits, 0.02)
    watches.apply(of(top, shallow=(top,)))
    assert watches.keys == {(str(top), True), (str(top), False)}
    (top / "m.py").touch()
    found: dict[tuple[str, bool], int] = {}
    while set(found.values()) != {1} or len(found) != 2:
        event = events.get(timeout=10.0)
        if isinstance(event, FileCreatedEvent):
            found = dict.fromkeys(watches.keys, 0)
        elif isinstance(event, LookEvent) and event.key in found:
            found[event.key] = 1
    in_order.clear()
    # One that had begun may still end.
    wait_until(lambda: drained(events) == 0, what="looks that fail")
    in_order.set()
    assert isinstance(events.get(timeout=10.0), LookEvent)
    watches.close(10.0)


def drained(events):
    """Take all events; return how many came within five intervals."""
    for count in range(100):
        try:
            events.get(timeout=0.1)
        except queue.Empty:
            return count
    return 100


def failing(monkeypatch, error, only=None):
    """Let no directory, or not the one, be watched; polling works."""
    real = BaseObserver.schedule

    def schedule(self, handler, path, **options):
        if not isinstance(self, PollingObserver) and only in (None, path):
            raise error
        return real(self, handler, path, **options)

    monkeypatch.setattr(BaseObserver, "schedule", schedule)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "fs.inotify.max_user_watches"),
        (errno.EMFILE, "fs.inotify.max_user_instances"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_watch_that_cannot_be_made_says_what_to_do(monkeypatch, top, number, advice):
    """Each limit is named by the setting that raises it, any other error by its own words."""
    failing(monkeypatch, OSError(number, os.strerror(number)))
    watches = Watches(lambda event: None, lambda path: True, None)
    with pytest.raises(WatchError, match=advice):
        watches.apply(of(top))
    watches.close(10.0)


@pytest.mark.skipif(not os.path.isdir(PROBE), reason="no directory to probe")
def test_a_limit_reached_in_a_subdirectory_comes_to_light(monkeypatch, top):
    """An error that watchdog passes over below a tree is found by one more watch."""
    failing(monkeypatch, OSError(errno.ENOSPC, ""), only=PROBE)
    watches = Watches(lambda event: None, lambda path: True, None)
    with pytest.raises(WatchError, match="no inotify watches left"):
        watches.apply(of(top))
    watches.close(10.0)


def test_a_directory_one_may_not_read_is_left_alone(monkeypatch, top):
    """A refused directory is neither watched nor tried again while it is in the plan."""
    failing(monkeypatch, PermissionError(errno.EACCES, ""), only=str(top))
    watches = Watches(lambda event: None, lambda path: True, None)
    watches.apply(of(shallow=[top]))
    assert len(watches) == 0
    monkeypatch.undo()
    watches.apply(of(shallow=[top]))
    assert len(watches) == 0
    watches.apply(of())
    watches.apply(of(shallow=[top]))
    assert len(watches) == 1
    watches.close(10.0)


def test_an_observer_that_cannot_start_says_why(monkeypatch):
    """No inotify instance left is the same kind of error as no watch left."""

    def observer():
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(module, "Observer", observer)
    with pytest.raises(WatchError, match="max_user_instances"):
        Watches(lambda event: None, lambda path: True, None)


def test_the_number_of_events_that_are_kept_is_the_systems(monkeypatch, tmp_path):
    """Where it can't be read the usual number counts."""
    monkeypatch.setattr(module, "QUEUE", str(tmp_path / "max_queued_events"))
    assert events_kept() == KEPT
    (tmp_path / "max_queued_events").write_text("512\n")
    assert events_kept() == 512


def test_a_warning_in_the_reading_thread_does_not_end_it(watches):
    """What watchdog warns of when it finds a directory twice is ignored, other warnings aren't."""
    place = ("inotify.py", 1, "watchdog.observers.inotify")
    warnings.warn_explicit("Callback with id '1' already exists", RuntimeWarning, *place)
    with pytest.raises(RuntimeWarning, match="another"):
        warnings.warn_explicit("another", RuntimeWarning, *place)


def test_closing_ends_all_threads(watches, top):
    """After close no thread of the observer is left."""
    before = set(threading.enumerate())
    other = Watches(lambda event: None, lambda path: True, None)
    other.apply(of(top, shallow=[top.parent]))
    assert set(threading.enumerate()) - before
    other.close(10.0)
    # Those of the test before may end only now.
    wait_until(lambda: set(threading.enumerate()) <= before)

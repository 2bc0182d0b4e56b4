"""What single events mean, with a clock that the test holds."""

from __future__ import annotations

import os

import pytest
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
)

from genwsgi.triggers.paths import make_plan
from genwsgi.triggers.reading import Reader
from genwsgi.triggers.settle import Pace, Settle
from genwsgi.triggers.sieve import DEFAULT_IGNORE, Sieve

PACE = Pace(single=1.0, burst=4.0)


class Case:
    """A tree on disk, and what a reader makes of events in it."""

    def __init__(self, top):
        self.root = top / "app"
        self.root.mkdir()
        sieve = Sieve([], DEFAULT_IGNORE)
        self.plan = make_plan([str(self.root)], [], sieve)
        self.settle = Settle(PACE)
        self.reader = Reader(sieve, self.settle)

    def note(self, kind, *names, at=10.0):
        """Read an event of ``kind`` about the paths ``names`` below the root."""
        self.reader.note(at, kind(*(str(self.root / name) for name in names)), self.plan)

    def given(self):
        """Return what is in the change, relative to the root."""
        change = self.settle.decide(1000.0)
        return (
            [] if change is None else [p.removeprefix(str(self.root) + "/") for p in change.paths]
        )


@pytest.fixture
def case(tmp_path):
    """Return an empty tree and its reader."""
    return Case(tmp_path.resolve())


def test_a_write_is_incomplete_until_the_file_is_closed(case):
    """Between the first write and the close the long silence is asked for."""
    case.note(FileModifiedEvent, "m.py")
    assert case.settle.due == 14.0
    case.note(FileClosedEvent, "m.py", at=10.5)
    assert case.settle.due == 11.5
    assert case.given() == ["m.py"]


def test_a_file_that_was_just_opened_is_incomplete(case):
    """A new empty file is about to be written; one with content was moved in."""
    (case.root / "empty.py").touch()
    case.note(FileCreatedEvent, "empty.py")
    assert case.settle.due == 14.0
    assert case.given() == ["empty.py"]
    (case.root / "full.py").write_text("a = 1\n")
    case.note(FileCreatedEvent, "full.py")
    assert case.settle.due == 11.0


def test_a_file_is_being_written_from_its_first_write_until_it_is_closed(case):
    """Where the system tells of closes; what was renamed or deleted meanwhile isn't either."""
    case.reader.closes = True
    for end in (FileClosedEvent, FileDeletedEvent, FileMovedEvent):
        (case.root / "m.py").write_text("a = 1\n")
        case.note(FileModifiedEvent, "m.py")
        case.note(FileModifiedEvent, "m.py", at=11.0)
        assert case.reader.written == {str(case.root / "m.py"): 10.0}
        case.note(end, *["m.py", "n.py"][: 1 + (end is FileMovedEvent)], at=12.0)
        assert case.reader.written == {}
        (case.root / "m.py").unlink()


def test_a_directory_that_left_takes_along_what_is_written_in_it(case):
    """No close is told of a file that is somewhere else by then."""
    case.reader.closes = True
    for name in ("pkg/m.py", "pkg.py"):
        (case.root / name).parent.mkdir(exist_ok=True)
        (case.root / name).write_text("a = 1\n")
        case.note(FileModifiedEvent, name)
    case.note(DirDeletedEvent, "pkg")
    assert list(case.reader.written) == [str(case.root / "pkg.py")]


def test_a_mode_or_a_time_that_was_set_is_no_write(case):
    """It is the same event, and no close will follow; also right after a write."""
    case.reader.closes = True
    path = case.root / "m.py"
    path.write_text("a = 1\n")
    case.note(FileClosedEvent, "m.py")
    case.note(FileModifiedEvent, "m.py")
    assert case.reader.written == {}
    os.utime(path, (1_000_000_000, 1_000_000_000))
    case.note(FileModifiedEvent, "m.py")
    path.unlink()
    case.note(FileModifiedEvent, "m.py")
    case.note(FileModifiedEvent, "notes.txt")
    assert case.reader.written == {}


def test_a_rename_onto_a_source_is_complete(case):
    """The temporary file that became the source adds nothing."""
    (case.root / "m.py").write_text("a = 1\n")
    case.note(FileModifiedEvent, "m.py.tmp", at=9.9)
    case.note(FileMovedEvent, "m.py.tmp", "m.py")
    assert case.settle.due == 11.0
    assert case.given() == ["m.py"]


def test_a_source_renamed_is_two_paths(case):
    """Both the old name and the new one changed."""
    case.note(FileMovedEvent, "old.py", "new.py")
    assert case.given() == ["new.py", "old.py"]


def test_a_deleted_source_is_incomplete(case):
    """Many programs delete what they are about to write anew."""
    case.note(FileDeletedEvent, "m.py")
    assert case.settle.due == 14.0
    assert case.given() == ["m.py"]


def test_temporary_files_alone_are_no_change(case):
    """Whatever happens to temporary files, nothing is pending."""
    for kind in (FileCreatedEvent, FileModifiedEvent, FileClosedEvent, FileDeletedEvent):
        case.note(kind, ".m.py.a1B2c3")
        case.note(kind, ".m.py.swp")
    assert not case.settle.pending


def test_ignored_activity_does_not_extend_a_wait(case):
    """Bytecode and version control leave the wait under way as it is."""
    (case.root / "m.py").write_text("a = 1\n")
    case.note(FileCreatedEvent, "m.py")
    for name in ("__pycache__/m.pyc", ".git/index", "node_modules/x.tmp"):
        case.note(FileModifiedEvent, name, at=10.9)
    case.note(DirCreatedEvent, ".git/objects", at=10.9)
    assert case.settle.due == 11.0
    case.note(FileModifiedEvent, ".m.py.swp", at=10.9)
    assert case.settle.due == 11.9


def test_a_sync_asks_for_the_long_silence(case):
    """A sync's file renamed into place announces more of them."""
    (case.root / "m.py").write_text("a = 1\n")
    case.note(FileMovedEvent, ".m.py.a1B2c3", "m.py")
    assert case.settle.due == 14.0


def test_a_new_directory_is_searched(case):
    """What is already in a directory that appears is changed, deep below too."""
    (case.root / "pkg" / "__pycache__").mkdir(parents=True)
    (case.root / "pkg" / "sub").mkdir()
    for name in ("pkg/sub/m.py", "pkg/__pycache__/m.py", "pkg/notes.txt"):
        (case.root / name).touch()
    case.note(DirCreatedEvent, "pkg")
    assert case.given() == ["pkg/sub/m.py"]
    assert case.reader.moved == {str(case.root)}


def test_an_empty_directory_is_no_change(case):
    """A directory without sources changes nothing."""
    (case.root / "static").mkdir()
    case.note(DirCreatedEvent, "static")
    assert not case.settle.pending


def test_a_directory_that_left_is_a_change(case):
    """Nobody knows what was in it, so it counts, unless it is ignored; its watches went along."""
    case.note(DirDeletedEvent, "__pycache__")
    assert not case.settle.pending
    case.note(DirDeletedEvent, "pkg")
    assert case.given() == ["pkg"]
    assert case.reader.moved == {str(case.root)}


def test_a_directory_renamed_is_left_and_come(case):
    """The old name is a change, and so is each source under the new one."""
    (case.root / "new").mkdir()
    (case.root / "new" / "m.py").touch()
    case.note(DirMovedEvent, "old", "new")
    assert case.given() == ["new/m.py", "old"]


def test_what_happens_to_a_hinge_asks_for_a_new_plan(case):
    """The root's own entry and a new symlink make the plan stale."""
    case.note(DirDeletedEvent, "pkg")
    assert case.reader.stale == set()
    case.reader.note(10.0, DirDeletedEvent(str(case.root)), case.plan)
    assert case.reader.stale == {str(case.root)}
    (case.root / "link").symlink_to("elsewhere")
    case.note(FileCreatedEvent, "link")
    assert case.reader.stale == {str(case.root), str(case.root / "link")}


def test_links_in_a_new_directory_ask_for_a_new_plan(case):
    """A directory moved in may bring symlinks along."""
    (case.root / "pkg").mkdir()
    (case.root / "pkg" / "link").symlink_to(case.root.parent)
    case.note(DirCreatedEvent, "pkg")
    assert case.reader.stale == {str(case.root / "pkg" / "link")}

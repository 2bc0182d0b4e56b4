"""Which source a module runs that is seen only after it was loaded."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from genwsgi.hotupdate import running
from genwsgi.hotupdate.own import Module
from genwsgi.hotupdate.running import Running
from genwsgi.hotupdate.source import Sources
from tests.helpers import wait_until
from tests.hotupdate.conftest import Program
from tests.isolation.sources import write


class Case:
    """A module below a link to its release, loaded after hotupdate has begun.

    :ivar running: has noted that the program has no module.
    """

    def __init__(self, folder: Path) -> None:
        self.link = folder / "current"
        write(folder / "1/pack", {"lazy.py": "V = 1\n"})
        write(folder / "2/pack", {"lazy.py": "V = 2\n"})
        self.link.symlink_to("1")
        self.module = Module("pack.lazy", str(self.link / "pack/lazy.py"), False)
        self.running = Running(Sources())
        self.running.note({})

    def after(self, path: Path) -> bool:
        """Whether ``path`` is newer than the last look, which a clock of some ms has to show."""
        return os.lstat(path).st_ctime > self.running._noted

    def is_changed(self, *touched: Path) -> bool:
        """Whether the module counts as changed when it is first seen."""
        self.running.note({"pack.lazy": self.module}, [os.path.realpath(path) for path in touched])
        return self.running.has_changed(self.module)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Without any slack: what is older by a few milliseconds is older."""
    monkeypatch.setattr(running, "SLACK", 0.0)
    return Case(tmp_path)


def test_what_nobody_has_changed(case: Case) -> None:
    """A module runs what is on disk if that is older than the last look, whatever came beside."""
    (case.link / "pack/__pycache__").mkdir()
    assert not case.is_changed()


def test_link_that_was_flipped(case: Case) -> None:
    """A release that is older than the last look may have come by a link that is newer."""

    def flip() -> bool:
        (case.link.parent / "next").symlink_to("2")
        (case.link.parent / "next").rename(case.link)
        return case.after(case.link)

    wait_until(flip, what="a newer link")
    assert case.is_changed()


def test_folder_that_was_moved(case: Case) -> None:
    """Or because its folder was moved there."""
    old, new = case.link.parent / "1/pack", case.link.parent / "2/pack"

    def move() -> bool:
        old.rename(old.with_name("old"))
        new.rename(old)
        old.with_name("old").rename(new)
        return case.after(old)

    wait_until(move, what="a moved folder")
    assert case.is_changed()


def test_file_that_was_written(case: Case) -> None:
    """Or it was written anew."""
    file = Path(case.module.file)

    def touch() -> bool:
        file.write_text("V = 3\n")
        return case.after(file)

    wait_until(touch, what="a newer file")
    assert case.is_changed()


def test_what_is_gone(case: Case) -> None:
    """Of a file that is gone nobody knows what runs, so what comes there is new."""
    Path(case.module.file).rename(case.link / "elsewhere.py")
    assert not case.is_changed()
    Path(case.module.file).write_text("V = 1\n")
    assert case.running.has_changed(case.module)


def test_folder_that_is_told_of(case: Case) -> None:
    """What the watch tells of a folder or a link goes for all that is below it, and no other."""
    assert case.is_changed(case.link)
    other = Case(case.link.parent / "other")
    assert not other.is_changed(case.link)


def test_later_looks(case: Case) -> None:
    """A module that was loaded after a change, and after a look at that, runs what is on disk."""
    Path(case.module.file).write_text("V = 3\n")
    case.running.note({})
    assert not case.is_changed()


def test_module_loaded_after_the_beginning(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first update that sees a module takes its change along with all others."""
    for number in (1, 2):
        program.write({"NAME_top.py": f"V = {number}\n"}, tmp_path / str(number))
    current = tmp_path / "current"
    current.symlink_to("1")
    monkeypatch.syspath_prepend(str(current))
    program.load("NAME.rules")
    top = importlib.import_module(f"{program.name}_top")
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(current)
    assert program.update().modules == (f"{program.name}_top",)
    assert top.V == 2

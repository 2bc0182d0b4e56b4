"""Tests of genwsgi.deploy.notices."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.deploy.notices import Notice, bases, places
from genwsgi.deploy.rundir import hold
from tests.deploy.real import short

__all__ = ["short"]

ME = os.geteuid(), os.getegid()

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")

#: A user who is nobody in particular.
NOBODY = 65534


@pytest.fixture(autouse=True)
def alone(short: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run-time files in a folder of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", short)
    held = set(os.listdir("/proc/self/fd"))
    yield
    for descriptor in set(os.listdir("/proc/self/fd")) - held:
        if os.path.exists(f"/proc/self/fd/{descriptor}"):
            os.close(int(descriptor))


def here(short: str) -> list[str]:
    """The places that are found by what is in the test's folder, or named there."""
    return [place for place in places() if place.startswith((short, "/run/shop"))]


def test_a_notice_leads_to_the_run_directory_until_it_is_taken_down(short: str) -> None:
    """The place that a server was given is found for as long as the server wants it."""
    notice = Notice("/run/shop", *ME)
    notice.put_up()
    assert here(short) == ["/run/shop"]
    assert os.stat(notice.folder).st_mode & 0o777 == 0o700
    notice.take_down()
    assert os.listdir(short) == []
    notice.take_down()


def test_a_run_directory_among_the_run_time_files_needs_no_notice(short: str) -> None:
    """What bears the name of one is a place itself; other names are passed over."""
    for name in ("genwsgi-abc", "other"):
        os.mkdir(os.path.join(short, name))
    assert here(short) == [os.path.join(short, "genwsgi-abc")]


def test_a_notice_is_held_against_cleaners(short: str) -> None:
    """For as long as the server lives the folder is locked, as tmpfiles.d(5) asks for it."""
    notice = Notice("/run/shop", *ME)
    notice.put_up()
    with pytest.raises(BlockingIOError):
        hold(notice.folder)


def test_the_notice_of_a_server_that_was_killed_is_taken_over(short: str) -> None:
    """The same place has the same notice, so that nothing is left over for ever."""
    notice = Notice("/run/shop", *ME)
    os.mkdir(notice.folder, 0o700)
    os.symlink("/elsewhere", os.path.join(notice.folder, "at"))
    notice.put_up()
    assert here(short) == ["/run/shop"]


def test_notices_that_nobody_holds_are_removed(short: str) -> None:
    """The next server clears away what those that were killed have left, and nothing else."""
    for name, link in (("genwsgi-left", "at"), ("genwsgi-dir", "store"), ("other", "at")):
        os.mkdir(os.path.join(short, name), 0o700)
        os.symlink("/gone", os.path.join(short, name, link))
    living = Notice("/run/shop/1", *ME)
    living.put_up()
    Notice("/run/shop/2", *ME).put_up()
    assert sorted(here(short))[:2] == ["/run/shop/1", "/run/shop/2"]
    assert not os.path.exists(os.path.join(short, "genwsgi-left"))
    assert os.path.exists(os.path.join(short, "genwsgi-dir"))
    assert os.path.exists(os.path.join(short, "other"))


def test_what_is_in_the_way_keeps_no_server_from_serving(short: str) -> None:
    """A folder that is open to others is not used; nor is a link to another folder followed."""
    notice = Notice("/run/shop", *ME)
    os.mkdir(notice.folder, 0o700)
    os.chmod(notice.folder, 0o777)
    notice.put_up()
    assert os.listdir(notice.folder) == []
    os.rmdir(notice.folder)
    other = Path(short, "other")
    other.mkdir(0o700)
    os.symlink(other, notice.folder)
    notice.put_up()
    assert not list(other.iterdir())


@as_root
def test_a_notice_belongs_to_the_user_the_workers_run_as(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That user can find the server as well, among the temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", short)
    notice = Notice("/run/shop", NOBODY, NOBODY)
    notice.put_up()
    assert os.path.dirname(notice.folder) == short
    for place in (notice.folder, os.path.join(notice.folder, "at")):
        assert os.lstat(place).st_uid == NOBODY
    assert here(short) == ["/run/shop"]


def test_a_folder_is_looked_through_once(short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names it has."""
    monkeypatch.setattr(tempfile, "tempdir", os.path.join(short, "."))
    assert [os.path.realpath(path) for path in bases()].count(short) == 1


def test_no_folder_of_temporary_files_can_be_written(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then servers are looked for where the user's run-time files are."""

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert short in bases()

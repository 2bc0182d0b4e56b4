"""Where a path leads, and what to watch for it, on real directories."""

from __future__ import annotations

import os

import pytest

from genwsgi.triggers import paths
from genwsgi.triggers.paths import Kind, entries, git_locks, make_plan, trace
from genwsgi.triggers.sieve import DEFAULT_IGNORE, Sieve, Tree

SIEVE = Sieve([], DEFAULT_IGNORE)


@pytest.fixture
def top(tmp_path):
    """Return a directory by its real path."""
    return tmp_path.resolve()


def test_a_plain_directory_is_its_own_place(top):
    """Without symlinks the place is the path, and its entry in its parent is the hinge."""
    found = trace(str(top))
    status = os.stat(top)
    assert (found.kind, found.place) == (Kind.DIRECTORY, str(top))
    assert found.identity == (status.st_dev, status.st_ino)
    assert found.hinges == {str(top)}


def test_every_symlink_on_the_way_is_a_hinge(top):
    """As with a Kubernetes volume, each link that could flip is named by its real path."""
    (top / "..1" / "app").mkdir(parents=True)
    (top / "..data").symlink_to("..1")
    (top / "app").symlink_to("..data/app")
    found = trace(str(top / "app"))
    assert found.place == str(top / "..1" / "app")
    assert found.hinges == {str(top / name) for name in ("app", "..data", "..1/app")}


def test_an_absolute_link_begins_at_the_root(top):
    """A link's absolute target is resolved from the root, and what follows it below the target."""
    (top / "releases" / "2" / "app").mkdir(parents=True)
    (top / "current").symlink_to(top / "releases" / "2")
    assert trace(str(top / "current" / "app")).place == str(top / "releases" / "2" / "app")


def test_dots_behind_a_symlink_mean_the_targets_parent(top):
    """``link/..`` is where the link leads, one up, as the kernel sees it."""
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "c").mkdir()
    (top / "link").symlink_to("a/b")
    assert trace(str(top / "link" / ".." / "c")).place == str(top / "a" / "c")


def test_a_relative_path_begins_at_the_working_directory(top, monkeypatch):
    """A relative path is resolved from the working directory."""
    monkeypatch.chdir(top)
    (top / "m.py").touch()
    found = trace("./m.py")
    assert (found.kind, found.place, found.identity) == (Kind.FILE, str(top / "m.py"), None)


def test_an_absolute_path_needs_no_working_directory(top, monkeypatch):
    """A working directory that was deleted, as an old release is, keeps nothing from resolving."""
    (top / "m.py").touch()
    gone = top / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert trace(str(top / "m.py")).kind is Kind.FILE


def test_the_first_name_that_is_missing_is_a_hinge(top):
    """Of a path that doesn't exist the nearest directory that does is the place to watch."""
    found = trace(str(top / "no" / "such" / "app"))
    assert (found.kind, found.place) == (Kind.MISSING, str(top))
    assert found.hinges == {str(top / "no"), str(top)}


def test_a_path_through_a_file_is_missing(top):
    """A file where a directory should be is itself the hinge."""
    (top / "app").touch()
    found = trace(str(top / "app" / "m.py"))
    assert found.kind is Kind.MISSING
    assert found.hinges == {str(top / "app")}


def test_a_loop_of_symlinks_is_missing(top):
    """Links that lead to each other end, with both of them to watch."""
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("a")
    found = trace(str(top / "a"))
    assert found.kind is Kind.MISSING
    assert found.hinges == {str(top / "a"), str(top / "b")}


def test_a_tree_is_watched_once(top):
    """A root inside another adds no watch, and a root's parent is watched for its own entries."""
    (top / "app" / "inner").mkdir(parents=True)
    plan = make_plan([str(top / "app"), str(top / "app" / "inner")], [], SIEVE)
    assert plan.recursive == {str(top / "app")}
    assert plan.shallow == {str(top)}


def test_roots_of_like_names_are_two_trees(top):
    """``app2`` is not covered by ``app``."""
    for name in ("app", "app2"):
        (top / name).mkdir()
    plan = make_plan([str(top / "app"), str(top / "app2")], [], SIEVE)
    assert plan.recursive == {str(top / "app"), str(top / "app2")}


def test_an_extra_directory_counts_whole(top):
    """Everything below an extra directory matters, and an extra file is one file."""
    (top / "templates").mkdir()
    (top / ".env").touch()
    plan = make_plan([], [str(top / "templates"), str(top / ".env")], SIEVE)
    assert plan.trees == {Tree(str(top / "templates"), everything=True)}
    assert plan.files == {str(top / ".env")}


def test_links_inside_a_tree_are_followed(top):
    """The targets of linked directories and sources are watched, those of other files aren't."""
    (top / "app").mkdir()
    (top / "lib").mkdir()
    (top / "single").mkdir()
    (top / "single" / "x.py").touch()
    (top / "single" / "notes.txt").touch()
    (top / "app" / "lib").symlink_to("../lib")
    (top / "app" / "x.py").symlink_to("../single/x.py")
    (top / "app" / "notes.txt").symlink_to("../single/notes.txt")
    plan = make_plan([str(top / "app")], [], SIEVE)
    assert plan.recursive == {str(top / "app"), str(top / "lib")}
    assert plan.files == {str(top / "single" / "x.py")}
    assert plan.shallow == {str(top), str(top / "single")}
    assert plan.skipped == ()


def test_a_link_in_two_trees_is_planned_once(top):
    """A root inside another shares its links."""
    (top / "app" / "inner").mkdir(parents=True)
    (top / "lib").mkdir()
    (top / "app" / "inner" / "lib").symlink_to("../../lib")
    plan = make_plan([str(top / "app"), str(top / "app" / "inner")], [], SIEVE)
    assert [found.path for found in plan.links] == [str(top / "app" / "inner" / "lib")]


def test_a_tree_that_vanished_has_no_entries(top):
    """What is gone since it was planned is empty, and no error."""
    assert list(entries(Tree(str(top / "gone"), everything=True), SIEVE)) == []


def test_links_in_ignored_directories_are_not_followed(top):
    """What is ignored leads nowhere."""
    (top / "app" / "node_modules").mkdir(parents=True)
    (top / "lib").mkdir()
    (top / "app" / "node_modules" / "lib").symlink_to("../../lib")
    assert make_plan([str(top / "app")], [], SIEVE).recursive == {str(top / "app")}


def test_a_link_to_what_contains_the_tree_is_not_followed(top):
    """A link to the parent must not make the parent a tree."""
    (top / "app").mkdir()
    (top / "app" / "up").symlink_to("..")
    plan = make_plan([str(top / "app")], [], SIEVE)
    assert plan.recursive == {str(top / "app")}
    assert plan.skipped == (str(top / "app" / "up"),)


def test_a_link_to_too_much_is_not_followed(top, monkeypatch):
    """A linked directory with more folders than the limit is named as skipped."""
    monkeypatch.setattr(paths, "LINKED_DIRECTORIES", 3)
    (top / "app").mkdir()
    for name in ("few/1", "many/1", "many/2", "many/3"):
        (top / name).mkdir(parents=True)
    (top / "app" / "few").symlink_to("../few")
    (top / "app" / "many").symlink_to("../many")
    plan = make_plan([str(top / "app")], [], SIEVE)
    assert plan.recursive == {str(top / "app"), str(top / "few")}
    assert plan.skipped == (str(top / "app" / "many"),)


def test_more_links_than_the_limit_are_skipped(top, monkeypatch):
    """Links beyond the limit cost no watch and are named."""
    monkeypatch.setattr(paths, "LINKS", 2)
    (top / "app").mkdir()
    for number in range(4):
        (top / f"lib{number}").mkdir()
        (top / "app" / f"lib{number}").symlink_to(f"../lib{number}")
    plan = make_plan([str(top / "app")], [], SIEVE)
    assert len(plan.links) == 2
    assert plan.skipped == (str(top / "app" / "lib2"), str(top / "app" / "lib3"))


def test_links_that_lead_in_a_circle_end(top):
    """Two trees that link to each other are planned once each."""
    for name, other in (("a", "b"), ("b", "a")):
        (top / name).mkdir()
        (top / name / "other").symlink_to(f"../{other}")
    plan = make_plan([str(top / "a")], [], SIEVE)
    assert plan.recursive == {str(top / "a"), str(top / "b")}


def test_a_polling_observer_looks_only_where_it_must(top):
    """Ignored folders are left out, unless a tree lies behind them, and so is what is elsewhere."""
    inside = top / "app" / ".venv" / "src" / "pkg"
    inside.mkdir(parents=True)
    (top / "app" / "pkg").symlink_to(".venv/src/pkg")
    plan = make_plan([str(top / "app")], [], SIEVE)

    def admits(path):
        return plan.admits(str(top / path), SIEVE)

    assert admits("app")
    assert admits("app/m.py")
    assert admits("app/.m.py.a1B2c3")
    assert admits("app/.venv/src/pkg/m.py")
    assert admits("app/.venv")
    assert not admits("app/.git")
    assert not admits("app/.venv/lib")
    assert admits("neighbour")
    assert not admits("neighbour/m.py")


def test_git_locks_are_found_in_all_ancestors(top):
    """The lock of the work tree around the root is found, with the time it was made."""
    root = top / "repo" / "src" / "app"
    root.mkdir(parents=True)
    (top / "repo" / ".git").mkdir()
    assert list(git_locks(str(root))) == []
    lock = top / "repo" / ".git" / "index.lock"
    lock.touch()
    assert list(git_locks(str(root))) == [(str(lock), lock.stat().st_mtime_ns)]


@pytest.mark.parametrize("absolute", [True, False])
def test_the_lock_of_a_linked_work_tree_is_found(top, absolute):
    """Where ``.git`` is a file, the lock is in the directory it names."""
    store = top / "main" / ".git" / "worktrees" / "w"
    store.mkdir(parents=True)
    (top / "w").mkdir()
    named = store if absolute else "../main/.git/worktrees/w"
    (top / "w" / ".git").write_text(f"gitdir: {named}\n")
    (store / "index.lock").touch()
    assert [os.path.realpath(lock) for lock, _ in git_locks(str(top / "w"))] == [
        str(store / "index.lock")
    ]


def test_a_git_file_that_is_none_holds_no_lock(top):
    """A file named ``.git`` of other content is not an obstacle."""
    (top / ".git").write_bytes(b"\xff\xfe nothing")
    assert list(git_locks(str(top))) == []

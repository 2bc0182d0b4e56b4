"""Tests of genwsgi.triggers.others."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwsgi.isolation.scope import Package, Scope
from genwsgi.triggers.others import find_others


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An application with templates and data, and things that nobody means."""
    for name in (
        "app/code.py",
        "app/.env",
        "app/templates/page.html",
        "app/templates/page.html~",
        "app/templates/notes.txt",
        "app/node_modules/lib/page.html",
        "app/__pycache__/page.html",
        "data/prices.csv",
        "data/rules.py",
        "data/.git/config",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path


def found(tree: Path, extra: tuple[str, ...] = (), patterns: tuple[str, ...] = ()) -> list[str]:
    """The files that are found, relative to ``tree``."""
    scope = Scope({}, (str(tree / "app"),))
    places = [str(tree / place) for place in extra]
    files = find_others(places, patterns)(scope)
    return [str(Path(file).relative_to(tree.resolve())) for file in files]


def test_without_patterns_and_extra_paths_there_are_none(tree: Path) -> None:
    """A release is its Python source unless somebody says more."""
    assert found(tree) == []


def test_patterns_find_files_below_the_roots(tree: Path) -> None:
    """A pattern is for names and relative paths below the roots; ignored folders stay ignored."""
    assert found(tree, patterns=("*.html",)) == ["app/templates/page.html"]
    assert found(tree, patterns=("templates/*",)) == [
        "app/templates/notes.txt",
        "app/templates/page.html",
    ]
    assert found(tree, patterns=(".env", "*.py")) == ["app/.env"]


def test_everything_below_an_extra_path_belongs_to_it(tree: Path) -> None:
    """Below an extra folder all files count, Python's too, but for those ignored."""
    assert found(tree, extra=("data",)) == ["data/prices.csv", "data/rules.py"]


def test_an_extra_path_may_be_a_file_or_missing(tree: Path) -> None:
    """A file is itself; what isn't there yet is no mistake; a link counts as what it leads to."""
    assert found(tree, extra=("app/.env", "nowhere")) == ["app/.env"]
    (tree / "current").symlink_to("data")
    (tree / "settings").symlink_to("app/.env")
    assert found(tree, extra=("current", "settings")) == [
        "data/prices.csv",
        "data/rules.py",
        "app/.env",
    ]


def test_packages_outside_the_roots_are_looked_through_too(tree: Path) -> None:
    """A pattern also finds templates of a package that an option brought into the scope."""
    package = Package("lib", None, (str(tree / "app" / "templates"),), "named by an option")
    scope = Scope({"lib": package}, (str(tree / "data"),))
    files = find_others((), ("*.html",))(scope)
    assert [Path(file).name for file in files] == ["page.html"]


def test_a_file_that_comes_or_goes_is_seen(tree: Path) -> None:
    """Each call looks at the files as they are then."""
    scope = Scope({}, (str(tree / "app"),))
    others = find_others((), ("*.html",))
    assert len(list(others(scope))) == 1
    (tree / "app" / "new.html").touch()
    (tree / "app" / "templates" / "page.html").unlink()
    assert [Path(file).name for file in others(scope)] == ["new.html"]

"""What changed from one snapshot to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwsgi.deploy import differences
from genwsgi.deploy.differences import Differences, compare
from genwsgi.deploy.source import Source
from genwsgi.isolation.scope import ScopeRules
from genwsgi.isolation.snapshot import Snapshot
from genwsgi.isolation.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store."""
    return Store(str(tmp_path / "store"))


def taken(store: Store, folder: Path, **files: str) -> Snapshot:
    """A snapshot of the package ``shop`` in ``folder`` with these modules and one template."""
    package = folder / "shop"
    package.mkdir(parents=True, exist_ok=True)
    for path in package.iterdir():
        path.unlink()
    for name, text in {"__init__": "", **files}.items():
        (package / (f"{name}.py" if name != "page" else "page.html")).write_text(text)
    template = package / "page.html"
    source = Source(ScopeRules("shop", (str(folder),)), store, lambda _scope: [str(template)])
    return store.open(source.take())


def compared(one: Snapshot, other: Snapshot) -> Differences:
    """Compare two snapshots, and let go of them."""
    try:
        return compare(one, other)
    finally:
        one.release()
        other.release()


def test_files_are_told_apart(store: Store, tmp_path: Path) -> None:
    """Added, removed and changed files are named as they are imported, with a diff of the text."""
    one = taken(store, tmp_path / "src", a="x = 1\ny = 2\n", b="", page="<p>")
    other = taken(store, tmp_path / "src", a="x = 1\ny = 3", c="z = 1\n", page="<b>")
    found = compared(one, other)
    assert (found.added, found.removed) == (("shop/c.py",), ("shop/b.py",))
    assert (found.changed, found.more) == (("shop/a.py", "shop/page.html"), 0)
    assert found.text == (
        "--- a/shop/a.py\n+++ b/shop/a.py\n@@ -1,2 +1,2 @@\n x = 1\n-y = 2\n+y = 3\n"
        "\\ No newline at end of file\n"
        "--- a/shop/c.py\n+++ b/shop/c.py\n@@ -0,0 +1 @@\n+z = 1\n"
        "shop/page.html: differs\n"
    )


def test_another_folder_is_no_difference(store: Store, tmp_path: Path) -> None:
    """The same files in the folder of another release are the same; only what differs is told."""
    one = taken(store, tmp_path / "one", a="x = 1\n", b="b = 1\n")
    other = taken(store, tmp_path / "two", a="x = 2\n", b="b = 1\n")
    found = compared(one, other)
    assert (found.added, found.removed, found.changed) == ((), (), ("shop/a.py",))


def test_very_much_is_cut(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many files the first are named, and of a long text the ends are there."""
    monkeypatch.setattr(differences, "MOST_FILES", 2)
    monkeypatch.setattr(differences, "MOST_TEXT", 400)
    one = taken(store, tmp_path / "src", long="x = 1\n" * 100)
    more = dict.fromkeys("abcd", "x = 1\n" * 40)
    other = taken(store, tmp_path / "src", long="x = 2\n" * 100, **more)
    found = compared(one, other)
    assert (found.added, found.changed, found.more) == (("shop/a.py", "shop/b.py"), (), 3)
    assert "cut:" in found.text
    assert len(found.text) <= 400


def test_what_is_too_long_is_only_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that would take too long to compare by lines is said to differ."""
    one = taken(store, tmp_path / "src", long="x = 1\n" * 100)
    other = taken(store, tmp_path / "src", long="x = 2\n" * 100)
    monkeypatch.setattr(differences, "MOST_TEXT", 400)
    assert compared(one, other).text == "shop/long.py: differs\n"

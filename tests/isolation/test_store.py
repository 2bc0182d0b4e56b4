from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from genwsgi.errors import SnapshotError, SourceError
from genwsgi.isolation import store as module
from genwsgi.isolation.store import Store
from genwsgi.isolation.survey import Survey
from genwsgi.isolation.survey import survey as survey_now
from tests.helpers import no_file_larger_than
from tests.isolation.tree import Tree


def test_same_content_same_digest(tree: Tree) -> None:
    """The digest names the content: touching a file changes nothing, writing it back neither."""
    first = tree.take()
    os.utime(tree.init, (1, 1))
    assert tree.take() == first
    tree.write(__init__="A = 2")
    second = tree.take()
    assert second != first
    tree.write(__init__="A = 1")
    assert tree.take() == first
    assert tree.store.digests() == sorted({first, second})


def test_same_code_at_another_place(tmp_path: Path) -> None:
    """The same content at another place is another snapshot, of the same files in the store; each
    has its own path in all of its code.
    """
    store = Store(str(tmp_path / "store"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tree = Tree(tmp_path / name)
        tree.store = store
        tree.write(__init__="def outer():\n    def inner():\n        pass\n    return inner\n")
        snapshot = store.open(tree.take())
        (path,) = snapshot.files
        code: CodeType | None = snapshot.code(path)
        while code is not None:
            assert code.co_filename == path
            assert path.startswith(str(tmp_path / name))
            code = next((one for one in code.co_consts if isinstance(one, CodeType)), None)
        snapshot.release()
    assert len(store.digests()) == 2
    kept = sorted((tmp_path / "store" / "objects").iterdir())
    assert len(kept) == 2
    assert not any(str(tmp_path).encode() in one.read_bytes() for one in kept)


def test_extra_files_count(tree: Tree) -> None:
    """A file that belongs to the release gives another digest when it changes."""
    page = tree.root / "page.html"
    page.write_text("1")
    first = tree.take(extra=(str(page),))
    page.write_text("2")
    assert tree.take(extra=(str(page),)) != first


def test_syntax_error_in_a_changed_file(tree: Tree) -> None:
    """A file that is broken now, and was not, is refused with Python's own words."""
    known = tree.store.open(tree.take())
    tree.write(models="def broken(:\n")
    with pytest.raises(SourceError, match=r"models\.py: does not compile") as caught:
        tree.take(known)
    assert "def broken(:" in caught.value.traceback
    assert "^" in caught.value.traceback
    with pytest.raises(SourceError):
        tree.take(known)
    known.release()


@pytest.mark.parametrize("text", ["x = '\0'", "x = " + "-" * 200_000 + "1"])
def test_what_no_compiler_takes(tree: Tree, text: str) -> None:
    """Null bytes and endless nesting are errors in the source like any other."""
    known = tree.store.open(tree.take())
    tree.write(models=text)
    with pytest.raises(SourceError, match="does not compile"):
        tree.take(known)
    known.release()


def test_changing_tree_is_read_again(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that changes while it is read is read again until it is still."""
    real = survey_now
    changes = iter(["A = 2", "A = 3"])

    def survey(*args: object) -> object:
        seen = real(*args)  # type: ignore[arg-type]
        for text in changes:
            tree.write(__init__=text + "  # longer" * len(text))
            break
        return seen

    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(module, "survey", survey)
    held = tree.store.open(tree.take())
    assert held.source(tree.init).startswith(b"A = 3")
    held.release()


def test_tree_that_never_rests(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that keeps changing is refused after some attempts."""
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(Survey, "unchanged", lambda self: False)
    with pytest.raises(SnapshotError, match="keeps changing"):
        tree.take()


def test_sweep(tree: Tree) -> None:
    """Sweeping keeps what is wanted and what is held, with its files, and removes the rest."""
    digests = []
    for number in range(3):
        tree.write(__init__=f"A = {number}")
        digests.append(tree.take())
    held = tree.store.open(digests[0])
    tree.store.sweep([digests[2]])
    assert tree.store.digests() == sorted([digests[0], digests[2]])
    assert held.source(tree.init) == b"A = 0"
    assert held.code(tree.init).co_filename == tree.init
    held.release()
    tree.store.sweep([digests[2]])
    assert tree.store.digests() == [digests[2]]
    objects = os.listdir(os.path.join(tree.store.path, "objects"))
    assert len(objects) == 4


def test_sweep_removes_what_was_never_finished(tree: Tree) -> None:
    """What a process left half written when it was killed is swept away, and read by nobody."""
    digest = tree.take()
    left = [f"snapshots/{digest}.json.new", "snapshots/other.json.new", "objects/abc.py.new"]
    for name in left:
        Path(tree.store.path, name).write_text("{")
    assert tree.store.digests() == [digest]
    tree.store.sweep([digest])
    assert not any(Path(tree.store.path, name).exists() for name in left)


def test_opening_what_is_removed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a snapshot in the moment it is swept notices, though it was taken again."""
    digest = tree.take()
    lock = fcntl.flock

    def sweep_first(file: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        tree.store.sweep([])
        tree.take()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    with pytest.raises(SnapshotError, match="was removed a moment ago"):
        tree.store.open(digest)
    tree.store.open(digest).release()


def test_opening_what_is_not_there(tree: Tree) -> None:
    """A snapshot that is missing, damaged or of another version is refused with the next step."""
    with pytest.raises(SnapshotError, match=r"can't be opened.*deploy again"):
        tree.store.open("nothing")
    manifest = Path(tree.store.path, "snapshots/bad.json")
    manifest.write_text("{")
    with pytest.raises(SnapshotError, match="is damaged"):
        tree.store.open("bad")
    manifest.write_text('{"format": 0}')
    with pytest.raises(SnapshotError, match="another version"):
        tree.store.open("bad")


def test_full_disk(tree: Tree) -> None:
    """A disk that is full is an error that names the store, and hurts no later snapshot.

    What could not be written whole takes no room.
    """
    with no_file_larger_than(4):
        with pytest.raises(SnapshotError, match=r"can't be written.*too large"):
            tree.take()
    assert tree.store.size() == 0
    held = tree.store.open(tree.take())
    assert held.source(tree.init) == b"A = 1"
    held.release()


def test_what_is_deleted_is_restored(tree: Tree) -> None:
    """A snapshot that was deleted is made again from files that are as they were."""
    digest = tree.take()
    manifest = tree.store.manifest(digest)
    shutil.rmtree(tree.store.path)
    assert not tree.store.has(digest)
    tree.write(models="B = 2")
    models = str(tree.root / "shop/models.py")
    assert tree.store.restore(digest, manifest) == [models]
    assert tree.store.has(digest)
    held = tree.store.open(digest)
    assert held.source(tree.init) == b"A = 1"
    assert isinstance(held.code(tree.init), CodeType)
    with pytest.raises(SnapshotError, match="its source can't be read"):
        held.source(models)
    os.unlink(models)
    assert tree.store.restore(digest, manifest) == [models]
    tree.write(models="B = 1")
    assert tree.store.restore(digest, manifest) == []
    assert held.source(models) == b"B = 1"
    held.release()

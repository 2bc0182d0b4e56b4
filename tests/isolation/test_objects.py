from __future__ import annotations

from pathlib import Path

import pytest

from genwsgi.errors import SnapshotError, SourceError
from genwsgi.isolation.objects import BYTECODE, SOURCE, Objects, sweep, write_whole
from genwsgi.isolation.survey import key_of
from tests.helpers import no_file_larger_than

TEXT = b"A = 1"
KEY = key_of(TEXT)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    made = Objects(str(tmp_path / "objects"))
    made.make()
    made.add(KEY, "/shop.py", TEXT, strict=True)
    return made


def test_one_file_at_two_places(objects: Objects) -> None:
    """The same content is kept once, and its code has the path that it is asked for by."""
    objects.add(KEY, "/other.py", TEXT, strict=True)
    assert objects.names() == {f"{KEY}.{SOURCE}", f"{KEY}.{BYTECODE}"}
    for path in ("/shop.py", "/other.py"):
        assert objects.code(KEY, path).co_filename == path
        assert objects.source(KEY, path) == TEXT


@pytest.mark.parametrize("damage", [b"", b"\0", b"i\1\0\0\0", b"garbage"])
def test_damaged_bytecode(objects: Objects, damage: bytes) -> None:
    """Bytecode that is no bytecode is an error of the store, not of the application; without any,
    the source is compiled, and that is kept.
    """
    bytecode = Path(objects.place(KEY, BYTECODE))
    bytecode.write_bytes(damage)
    with pytest.raises(SnapshotError, match="bytecode"):
        objects.code(KEY, "/shop.py")
    bytecode.unlink()
    assert objects.code(KEY, "/shop.py").co_filename == "/shop.py"
    assert bytecode.stat().st_size, "compiled, but not kept for the next one"
    bytecode.unlink()
    Path(objects.place(KEY, SOURCE)).unlink()
    with pytest.raises(SnapshotError, match="source can't be read"):
        objects.code(KEY, "/shop.py")


def test_source_that_does_not_compile(objects: Objects) -> None:
    """It is kept in any case, and an error for those who are strict, each time."""
    text = b"def broken(:\n"
    objects.add(key_of(text), "/shop.py", text, strict=False)
    assert objects.source(key_of(text), "/shop.py") == text
    for _ in range(2):
        with pytest.raises(SourceError, match="does not compile"):
            objects.add(key_of(text), "/shop.py", text, strict=True)


def test_restoring(objects: Objects, tmp_path: Path) -> None:
    """A source comes back from a file that still has it, and from no other."""
    path = tmp_path / "shop.py"
    Path(objects.place(KEY, SOURCE)).unlink()
    assert not objects.restore(KEY, str(path))
    path.write_bytes(b"A = 2")
    assert not objects.restore(KEY, str(path))
    path.write_bytes(TEXT)
    assert objects.restore(KEY, str(path))
    path.unlink()
    assert objects.restore(KEY, str(path))
    assert objects.source(KEY, str(path)) == TEXT


def test_sweeping(objects: Objects) -> None:
    """What has none of the keys goes, and what was never finished; without keys only that."""
    Path(objects.place("other", SOURCE)).write_text("")
    Path(objects.place(KEY, f"{SOURCE}.1-2.new")).write_text("")
    sweep(objects.path)
    assert objects.names() == {f"{KEY}.{SOURCE}", f"{KEY}.{BYTECODE}", f"other.{SOURCE}"}
    sweep(objects.path, {KEY})
    assert objects.names() == {f"{KEY}.{SOURCE}", f"{KEY}.{BYTECODE}"}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """On a full disk what was there stays, and what could not be written takes no room."""
    path = tmp_path / "file"
    write_whole(str(path), b"old")
    with no_file_larger_than(4), pytest.raises(OSError, match="too large"):
        write_whole(str(path), b"longer than that")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

from __future__ import annotations

import importlib.machinery
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from genwsgi.errors import SnapshotError
from genwsgi.isolation import survey as survey_module
from genwsgi.isolation.scope import Addition, ScopeRules, find_scope
from genwsgi.isolation.survey import Installed, Survey, survey
from tests.helpers import wait_until
from tests.isolation.sources import write


def look(root: Path, extra: tuple[str, ...] = ()) -> Survey:
    return survey(find_scope(ScopeRules("shop", (str(root),))), extra)


def names(seen: Survey, root: Path) -> set[str]:
    return {os.path.relpath(path, root) for path in seen.sources}


def test_what_is_source(tmp_path: Path) -> None:
    """Modules at any depth are read; caches, data files and folders of others are not."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    write(
        tmp_path,
        {
            "shop/__init__.py": "",
            "shop/migrations/0001_first.py": "X = 1",
            "shop/data.txt": "",
            "shop/__pycache__/x.py": "",
            "shop/node_modules/y.py": "",
            "shop/fast" + suffix: "",
        },
    )
    seen = look(tmp_path)
    assert names(seen, tmp_path) == {"shop/__init__.py", "shop/migrations/0001_first.py"}
    assert seen.extensions == {str(tmp_path / "shop" / ("fast" + suffix))}
    assert seen.sources[str(tmp_path / "shop/migrations/0001_first.py")][1] == b"X = 1"


def test_links_to_folders(tmp_path: Path) -> None:
    """A link to a folder is a package under both its names, and a link in a circle ends."""
    write(tmp_path, {"shop/__init__.py": "", "shop/v1/__init__.py": ""})
    (tmp_path / "shop/current").symlink_to("v1")
    (tmp_path / "shop/v1/up").symlink_to("..")
    found = names(look(tmp_path), tmp_path)
    assert {"shop/__init__.py", "shop/v1/__init__.py", "shop/current/__init__.py"} <= found


def test_dangling_link(tmp_path: Path) -> None:
    """A link to nowhere, such as an editor's lock, is passed over."""
    write(tmp_path, {"shop/__init__.py": ""})
    (tmp_path / "shop/.#models.py").symlink_to("somebody@somewhere")
    assert names(look(tmp_path), tmp_path) == {"shop/__init__.py"}


def test_unchanged(tmp_path: Path) -> None:
    """A change of a file's content, and a file more or fewer, are seen."""
    write(tmp_path, {"shop/__init__.py": "a = 1", "shop/b.py": ""})
    seen = look(tmp_path)
    assert seen.unchanged()
    write(tmp_path, {"shop/__init__.py": "a = 23"})
    assert not seen.unchanged()
    seen = look(tmp_path)
    (tmp_path / "shop/b.py").unlink()
    assert not seen.unchanged()


def test_other_files_beside_the_code_are_no_change(tmp_path: Path) -> None:
    """An application that keeps writing a database beside its code can be deployed all the same."""
    write(tmp_path, {"shop/__init__.py": ""})
    seen = look(tmp_path)
    write(tmp_path, {"shop/db.sqlite3-journal": "x", "shop/not-a-package/x.txt": ""})
    assert seen.unchanged()
    write(tmp_path, {"shop/new/one.py": ""})
    assert not seen.unchanged()


def test_vanishing_while_read(tmp_path: Path) -> None:
    """A file or folder that is gone when it is read is no error: the tree has changed."""
    write(tmp_path, {"x.py": "", "folder/y.py": ""})
    seen = Survey()
    assert seen.read(str(tmp_path / "gone.py")) == b""
    assert seen.list(str(tmp_path / "gone")) == []
    assert seen.list(str(tmp_path / "x.py")) == []
    assert seen.read(str(tmp_path / "folder")) == b""


def test_extra_files(tmp_path: Path) -> None:
    """Further files count with their content; folders and missing ones don't."""
    write(tmp_path, {"shop/__init__.py": "", ".env": "A=1"})
    extra = (str(tmp_path / ".env"), str(tmp_path / "nothing"), str(tmp_path / "shop"))
    first = look(tmp_path, extra).others
    assert set(first) == {extra[0]}
    write(tmp_path, {".env": "A=2"})
    assert look(tmp_path, extra).others != first


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or folder that can't be read is an error that names it."""
    write(tmp_path, {"shop/__init__.py": ""})

    def refuse(path: str, *args: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    seen = Survey()
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(SnapshotError, match=r"__init__.py: can't be read: Permission denied"):
            seen.read(str(tmp_path / "shop/__init__.py"))
    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", refuse)
        with pytest.raises(SnapshotError, match=r"shop: can't be read: Permission denied"):
            seen.list(str(tmp_path / "shop"))


def age(folder: Path) -> None:
    """Wait until ``folder`` and all in it had come to rest before they are looked at."""
    newest = max(p.stat().st_ctime_ns for p in [folder, *folder.rglob("*")])
    wait_until(lambda: time.time_ns() - newest > survey_module.FRESH, what="files come to rest")


def test_installed_packages_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an installed package only what has changed since the last time is read."""
    monkeypatch.setattr(survey_module, "FRESH", 50_000_000)
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    write(tmp_path, {"src/shop.py": ""})
    installed = tmp_path / "site-packages"
    write(
        installed, {"kit/__init__.py": "", "kit/a.py": "A = 1", "kit/deep/b.py": "", "one.py": ""}
    )
    write(installed, {f"kit/fast{suffix}": ""})
    rules = ScopeRules(
        "shop",
        (str(tmp_path / "src"), str(installed)),
        additions=(Addition("kit", "why"), Addition("one", "why")),
    )
    memory: dict[str, Installed] = {}

    def look() -> tuple[Survey, set[str]]:
        seen = survey(find_scope(rules), (), memory, {key for key, _ in known})
        assert seen.unchanged()
        memory.clear()
        memory.update(seen.installed)
        known.update((key, path) for path, (key, _) in seen.sources.items())
        read = {path for path, (_, source) in seen.sources.items() if source is not None}
        return seen, {os.path.relpath(path, installed) for path in read if "site" in path}

    known: set[tuple[str, str]] = set()
    age(installed)
    first, read = look()
    assert read == {"kit/__init__.py", "kit/a.py", "kit/deep/b.py", "one.py"}
    again, read = look()
    assert read == set()
    assert {p: key for p, (key, _) in again.sources.items()} == {
        p: key for p, (key, _) in first.sources.items()
    }
    assert again.extensions == first.extensions == {str(installed / f"kit/fast{suffix}")}
    write(installed, {"kit/a.py": "A = 2"})
    moment = SimpleNamespace(time_ns=lambda: (installed / "kit/a.py").stat().st_ctime_ns)
    with monkeypatch.context() as patch:
        patch.setattr(survey_module, "time", moment)
        assert look()[1] == {"kit/a.py"}
        assert look()[1] == {"kit/a.py"}, "it may have been changed again in the same moment"
    age(installed)
    look()
    assert look()[1] == set()
    write(installed, {"kit/deep/new.py": ""})
    assert look()[1] == {"kit/deep/new.py"}
    age(installed)
    look()
    (installed / "kit/deep/b.py").unlink()
    seen, read = look()
    assert read == set()
    assert str(installed / "kit/deep/b.py") not in seen.sources
    known.clear()
    assert len(look()[1]) == 4, "what the store has lost is read again"

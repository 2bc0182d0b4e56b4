"""What a scope's source looks like on disk at one moment."""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from genwsgi.errors import SnapshotError
from genwsgi.isolation.scope import NOT_SOURCE, Scope

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)


@dataclass
class Survey:
    """Every file of the scope, read once.

    :ivar tops: for each top-level name its file or its folders.
    :ivar sources: for each source file its key and its content.
    :ivar extensions: compiled modules, by path.
    :ivar others: hashes of further files that belong to the release.
    """

    tops: dict[str, list[str]] = field(default_factory=dict)
    sources: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    extensions: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    _stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _listed: dict[str, list[str]] = field(default_factory=dict)

    def unchanged(self) -> bool:
        """Whether every file still is what it was when it was read, and no other is there."""
        before, self._listed = self._listed, {}
        for folder in before:
            self.list(folder)
        same = all(_stamp(path) == stamp for path, stamp in self._stamps.items())
        return same and before == self._listed

    def read(self, path: str) -> bytes:
        """Read one file, and remember what it looked like just before."""
        self._stamps[path] = _stamp(path)
        try:
            with open(path, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return b""  # gone between listing and reading: unchanged() will tell
        except OSError as error:
            raise SnapshotError(path, f"can't be read: {error.strerror}") from error

    def list(self, folder: str) -> list[os.DirEntry[str]]:
        """List the modules and packages in one folder, and remember which they were.

        Not the folder's own times: an application may keep writing other files beside its code.
        """
        self._listed[folder] = []
        try:
            with os.scandir(folder) as entries:
                found = sorted(filter(_concerns, entries), key=lambda entry: entry.name)
            self._listed[folder] = [entry.name for entry in found]
            return found
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise SnapshotError(folder, f"can't be read: {error.strerror}") from error


def survey(scope: Scope, extra: Iterable[str] = ()) -> Survey:
    """Read every source file of ``scope``, and the files of ``extra``, as they are now.

    :raises SnapshotError: a file or folder can't be read.
    """
    seen = Survey()
    for package in scope.packages.values():
        places = [package.file] if package.file else list(package.folders)
        seen.tops[package.name] = places
        for place in places:
            for path in [place] if package.file else _walk(seen, place):
                if path.endswith(".py"):
                    source = seen.read(path)
                    seen.sources[path] = (_key(path, source), source)
                else:
                    seen.extensions.add(path)
    for path in sorted(extra):
        if os.path.isfile(path):
            seen.others[path] = hashlib.sha256(seen.read(path)).hexdigest()
    return seen


def _walk(seen: Survey, folder: str) -> Iterator[str]:
    """Yield the modules below ``folder``; links to folders are followed, but not in circles."""
    above: frozenset[str] = frozenset()
    waiting = [(folder, above)]
    while waiting:
        current, above = waiting.pop()
        resolved = os.path.realpath(current)
        if resolved in above:
            continue
        for entry in seen.list(current):
            if entry.is_dir():
                waiting.append((entry.path, above | {resolved}))
            else:
                yield entry.path


def _concerns(entry: os.DirEntry[str]) -> bool:
    """Whether this is a module, or a folder that may hold some."""
    if entry.is_dir():
        return entry.name.isidentifier() and entry.name not in NOT_SOURCE
    return entry.name.endswith((".py", *_EXTENSIONS)) and entry.is_file()


def _key(path: str, source: bytes) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape") + b"\0" + source).hexdigest()[:32]


def _stamp(path: str) -> tuple[int, ...]:
    """What tells whether a file or folder was touched between two looks."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

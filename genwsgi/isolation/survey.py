"""What a scope's source looks like on disk at one moment."""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from genwsgi.errors import SnapshotError
from genwsgi.isolation.scope import NOT_SOURCE, Package, Scope

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)

#: What was changed within this time before it was looked at may be changed again without looking
#: different, in nanoseconds.
FRESH = 2_000_000_000

#: What tells whether a file was touched between two looks: inode, size, times in nanoseconds.
Stamp = tuple[int, ...]

#: The keys of sources that need not be read once more.
Keys = Collection[str]


@dataclass
class Installed:
    """What an installed package looked like.

    :ivar looked: when it was looked at, in nanoseconds of the wall clock, as files have it.
    :ivar folders: its folders, with their stamps.
    :ivar files: its source files, with their stamps and keys.
    :ivar extensions: its compiled modules.
    """

    looked: int
    folders: dict[str, Stamp] = field(default_factory=dict)
    files: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    extensions: set[str] = field(default_factory=set)

    def is_still_there(self, kept: Keys) -> bool:
        """Whether all of it looks the same now as it did when it had come to rest."""
        rest = self.looked - FRESH
        return all(
            stamp == _stamp(path) and stamp[-1] < rest for path, stamp in self.folders.items()
        ) and all(
            stamp == _stamp(path) and stamp[-1] < rest and key in kept
            for path, (stamp, key) in self.files.items()
        )


#: What installed packages looked like, by their names.
Memory = dict[str, Installed]


@dataclass
class Survey:
    """Every file of the scope, read once.

    :ivar tops: for each top-level name its file or its folders.
    :ivar sources: for each source file its key and its content; ``None`` for one of an installed
        package that is as it was remembered to be.
    :ivar installed: what each installed package looks like.
    :ivar extensions: compiled modules, by path.
    :ivar others: hashes of further files that belong to the release.
    """

    tops: dict[str, list[str]] = field(default_factory=dict)
    sources: dict[str, tuple[str, bytes | None]] = field(default_factory=dict)
    installed: dict[str, Installed] = field(default_factory=dict)
    extensions: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    _stamps: dict[str, Stamp] = field(default_factory=dict)
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


def survey(
    scope: Scope,
    extra: Iterable[str] = (),
    memory: Memory | None = None,
    kept: Keys = (),
) -> Survey:
    """Read every source file of ``scope``, and the files of ``extra``, as they are now.

    :param memory: what installed packages looked like before.  What looks the same is not read.
    :param kept: the keys of sources that need not be read once more.
    :raises SnapshotError: a file or folder can't be read.
    """
    seen = Survey()
    for package in scope.packages.values():
        seen.tops[package.name] = [package.file] if package.file else list(package.folders)
        if package.installed and memory is not None:
            _glance(seen, package, memory.get(package.name), kept)
            continue
        for path in _files(seen, package):
            if path.endswith(".py"):
                source = seen.read(path)
                seen.sources[path] = (key_of(source), source)
            else:
                seen.extensions.add(path)
    for path in sorted(extra):
        if os.path.isfile(path):
            seen.others[path] = hashlib.sha256(seen.read(path)).hexdigest()
    return seen


def _glance(seen: Survey, package: Package, before: Installed | None, kept: Keys) -> None:
    """Look at an installed package, and read of it what does not look as it did ``before``.

    One that looks the same is not looked at once more afterwards: it is what was read then.
    """
    if before is None or not before.is_still_there(kept):
        now, listing = Installed(time.time_ns()), Survey()
        # A change between the listing and these stamps is seen by the second look.
        for path in list(_files(listing, package)):
            if path.endswith(".py"):
                stamp = seen._stamps[path] = _stamp(path)
                known = before.files.get(path) if before is not None else None
                if (
                    before is not None
                    and known is not None
                    and known[0] == stamp
                    and stamp[-1] < before.looked - FRESH
                    and known[1] in kept
                ):
                    now.files[path] = known
                else:
                    source = seen.read(path)
                    now.files[path] = seen._stamps[path], key_of(source)
                    seen.sources[path] = now.files[path][1], source
            else:
                now.extensions.add(path)
        now.folders.update((folder, _stamp(folder)) for folder in listing._listed)
        seen._listed.update(listing._listed)
        before = now
    seen.installed[package.name] = before
    for path, (_, key) in before.files.items():
        seen.sources.setdefault(path, (key, None))
    seen.extensions |= before.extensions


def _files(seen: Survey, package: Package) -> Iterator[str]:
    """Yield the modules of a package."""
    if package.file:
        yield package.file
    for folder in package.folders:
        yield from _walk(seen, folder)


def _walk(seen: Survey, folder: str) -> Iterator[str]:
    """Yield the modules below ``folder``; links to folders are followed, but not in circles."""
    above: frozenset[str] = frozenset()
    waiting = [(folder, os.path.realpath(folder), above)]
    while waiting:
        current, resolved, above = waiting.pop()
        if resolved in above:
            continue
        inside = above | {resolved}
        for entry in seen.list(current):
            if entry.is_dir():
                link = entry.is_symlink()
                place = os.path.realpath(entry.path) if link else f"{resolved}/{entry.name}"
                waiting.append((entry.path, place, inside))
            else:
                yield entry.path


def _concerns(entry: os.DirEntry[str]) -> bool:
    """Whether this is a module, or a folder that may hold some."""
    if entry.is_dir():
        return entry.name.isidentifier() and entry.name not in NOT_SOURCE
    return entry.name.endswith((".py", *_EXTENSIONS)) and entry.is_file()


def key_of(source: bytes) -> str:
    """The key of a source file: names its content."""
    return hashlib.sha256(source).hexdigest()[:32]


def _stamp(path: str) -> Stamp:
    """What tells whether a file or folder was touched between two looks."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

"""Source -> immutable, content-addressed copy with bytecode.

A store is a folder shared by all processes of one host's server::

    objects/<key>.source     one source file; the key is made from its content
    objects/<key>.<tag>      the bytecode beside it; where the file is, is put in when it is read
    snapshots/<digest>.json  what a snapshot consists of, and where: path and key of each file

So a release in a new folder costs only what has changed in it.
Everything is written under a temporary name and renamed, so a reader never sees half a file.
Whoever runs code from a snapshot holds a shared lock on its manifest; :meth:`Store.sweep` removes
only what nobody holds, and a process that dies lets go by dying.
"""

from __future__ import annotations

import _imp
import fcntl
import hashlib
import json
import marshal
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType
from typing import IO, Any

from genwsgi.errors import SnapshotError, SourceError
from genwsgi.isolation.bytecode import cached
from genwsgi.isolation.scope import Addition, Scope
from genwsgi.isolation.survey import Memory, Stamp, Survey, key_of, survey

#: Version of the manifest; a store is never read by another version of genwsgi than wrote it.
FORMAT = 3

#: How often a tree that changes while it is read is read again before giving up.
ATTEMPTS = 10

#: How much longer to wait before each further attempt, in seconds.
PAUSE = 0.02

#: Ends the name of a file that is being written; :meth:`Store.sweep` finds those left behind.
_UNFINISHED = ".new"

#: Not ".py": a store inside the folder it is a copy of must not look like more code.
_SOURCE = "source"
_BYTECODE = f"{sys.implementation.cache_tag}.bin"

#: What bytecode in the store has for the path of its source.
_NO_PATH = "<store>"


@dataclass(frozen=True)
class Snapshot:
    """What a generation imports from, at build time and for ever after.

    :ivar digest: name of the content: equal digests mean equal code at equal places.
    :ivar tops: for each top-level name its file or its folders.
    :ivar files: source files (real paths) and their keys in the store.
    :ivar extensions: compiled modules inside packages of the scope; these are not copied.
    :ivar additions: what of its scope builds have found.
    :ivar reasons: for each top-level name why it is in the scope.
    :ivar share: packages that are never to be in the scope.
    :ivar roots: the folders of the scope as the operator wrote them.
    :ivar others: further files that belong to the release, each with a hash of its content.
    """

    digest: str
    store: Store
    tops: dict[str, tuple[str, ...]]
    files: dict[str, str]
    extensions: frozenset[str]
    additions: tuple[Addition, ...]
    reasons: dict[str, str]
    share: frozenset[str]
    roots: tuple[str, ...]
    others: dict[str, str]
    folders: frozenset[str] = field(compare=False, repr=False)
    _pin: IO[bytes] = field(compare=False, repr=False)

    def code(self, path: str) -> CodeType:
        """Return the bytecode of the source file ``path``.

        :raises SyntaxError: the source does not compile.
        :raises SnapshotError: the snapshot has no such file, or the store was damaged.
        """
        key = self.files[path]
        try:
            with open(self.store.object_path(key, _BYTECODE), "rb") as file:
                code = marshal.loads(file.read())
        except FileNotFoundError:
            code = compile(self.source(path), path, "exec", dont_inherit=True)
            with suppress(OSError):  # for the next one who needs it
                _write(self.store.object_path(key, _BYTECODE), _marshalled(code))
        except (OSError, ValueError, EOFError, TypeError) as error:
            raise SnapshotError(path, f"its bytecode can't be read: {error}") from error
        if not isinstance(code, CodeType):
            raise SnapshotError(path, "its bytecode is damaged; deploy again")
        if code.co_filename != path:
            _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]
        return code

    def source(self, path: str) -> bytes:
        """Return the source of ``path`` as it was when the snapshot was taken."""
        try:
            with open(self.store.object_path(self.files[path], _SOURCE), "rb") as file:
                return file.read()
        except OSError as error:
            raise SnapshotError(path, f"its source can't be read: {error}") from error

    def covers(self, place: str) -> bool:
        """Whether ``place`` is, or lies in, a folder that this is a copy of."""
        while place not in self.folders:
            above = os.path.dirname(place)
            if above == place or not above:
                return False
            place = above
        return True

    def fileno(self) -> int:
        """Return the descriptor that holds the snapshot: a process that has it holds it as well."""
        return self._pin.fileno()

    def release(self) -> None:
        """Let go of the snapshot: nobody in this process imports from it any more."""
        self._pin.close()


class Store:
    """A folder of snapshots.  Any process of the server may read; one at a time writes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._objects = os.path.join(path, "objects")
        self._snapshots = os.path.join(path, "snapshots")
        # Of the process that takes snapshots.
        self._memory: Memory = {}
        self._make_folders()

    def _make_folders(self) -> None:
        for folder in (self.path, self._objects, self._snapshots):
            os.makedirs(folder, mode=0o700, exist_ok=True)

    def object_path(self, key: str, kind: str) -> str:
        """Where the object ``key`` is kept, as source (``source``) or bytecode."""
        return os.path.join(self._objects, f"{key}.{kind}")

    def take(
        self,
        scope: Scope,
        extra: Iterable[str] = (),
        known: Snapshot | None = None,
        on_file: Callable[[int, int], object] = lambda _done, _total: None,
    ) -> str:
        """Copy and compile the source of ``scope`` as it is on disk now; return the digest.

        :param extra: further files that belong to the release (templates, ``.env``): a change of
            theirs gives another digest, but they are not copied.
        :param known: the snapshot in use.  A file that doesn't compile is an error when it is new
            or changed since; one that was broken before has not hurt anybody and is let alone.
        :param on_file: called for each file that is stored and compiled, with how many are, and how
            many there will be.
        :raises SourceError: a new or changed file does not compile.
        :raises SnapshotError: the tree can't be read, keeps changing, or can't be copied.
        """
        extra = tuple(extra)
        have = frozenset(os.listdir(self._objects))
        kept = {entry.partition(".")[0] for entry in have if entry.endswith(f".{_SOURCE}")}
        for attempt in range(ATTEMPTS):
            time.sleep(attempt * PAUSE)
            seen = survey(scope, extra, self._memory, kept)
            if seen.unchanged():
                break
        else:
            raise SnapshotError(
                ", ".join(scope.roots), "keeps changing while it is read; deploy when it is still"
            )
        try:
            installed = {
                path: s for p in seen.installed.values() for path, (s, _) in p.files.items()
            }
            for done, (path, (key, source)) in enumerate(seen.sources.items()):
                if source is None:
                    continue
                on_file(done, len(seen.sources))
                if path in installed:
                    self._add_installed(path, key, source, installed[path], have)
                else:
                    trusted = known is not None and known.files.get(path) == key
                    self._add(path, key, source, strict=known is not None and not trusted)
            self._memory = seen.installed
            return self._write_manifest(seen, scope)
        except OSError as error:
            raise SnapshotError(self.path, f"the snapshot can't be written: {error}") from error

    def open(self, digest: str) -> Snapshot:
        """Open a snapshot and hold it until :meth:`Snapshot.release`.

        :raises SnapshotError: there is none, or it was written by another version.
        """
        path = self._manifest_path(digest)
        try:
            pin = open(path, "rb")  # noqa: SIM115 -- held on purpose until release()
        except OSError as error:
            raise SnapshotError(path, f"can't be opened: {error}; deploy again") from error
        try:
            fcntl.flock(pin, fcntl.LOCK_SH)
            if not os.fstat(pin.fileno()).st_nlink:
                raise SnapshotError(path, "was removed a moment ago; deploy again")
            try:
                manifest: dict[str, Any] = json.load(pin)
            except ValueError as error:
                raise SnapshotError(path, f"is damaged: {error}; deploy again") from error
            if manifest.get("format") != FORMAT:
                raise SnapshotError(path, "was written by another version of genwsgi; restart")
        except BaseException:
            pin.close()
            raise
        files: dict[str, str] = manifest["files"]
        tops = {name: tuple(places) for name, places in manifest["tops"].items()}
        return Snapshot(
            digest=digest,
            store=self,
            tops=tops,
            files=files,
            extensions=frozenset(manifest["extensions"]),
            additions=tuple(Addition(*item) for item in manifest["additions"]),
            reasons=manifest["reasons"],
            share=frozenset(manifest["share"]),
            roots=tuple(manifest["roots"]),
            others=manifest["others"],
            folders=_folders(files, tops),
            _pin=pin,
        )

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove the snapshots that are neither in ``keep`` nor held by anybody, and their files.

        Must not run at the same time as :meth:`take`, which would lose objects to it.
        """
        kept: set[str] = set()
        wanted = set(keep)
        for digest in self.digests():
            path = self._manifest_path(digest)
            if digest in wanted or not _remove_unless_held(path):
                with open(path, "rb") as file:
                    kept.update(json.load(file)["files"].values())
        for folder in (self._objects, self._snapshots):
            for entry in os.listdir(folder):
                unfinished = entry.endswith(_UNFINISHED)
                if unfinished or (folder == self._objects and entry.partition(".")[0] not in kept):
                    with suppress(FileNotFoundError):  # whoever wrote it has finished it
                        os.unlink(os.path.join(folder, entry))

    def manifest(self, digest: str) -> bytes:
        """Return what :meth:`restore` needs of a snapshot.

        :raises OSError: it can't be read.
        """
        with open(self._manifest_path(digest), "rb") as file:
            return file.read()

    def restore(self, digest: str, manifest: bytes) -> list[str]:
        """Write again what has been deleted of a snapshot, from the files that it is a copy of.

        :returns: the files that the disk does not have any more as they were then.
        :raises OSError: it can't be written.
        """
        self._make_folders()
        lost = []
        for path, key in json.loads(manifest)["files"].items():
            if os.path.exists(self.object_path(key, _SOURCE)):
                continue
            try:
                with open(path, "rb") as file:
                    source = file.read()
            except OSError:
                lost.append(path)
                continue
            if key_of(source) == key:
                self._add(path, key, source, strict=False)
            else:
                lost.append(path)
        _write(self._manifest_path(digest), manifest)
        return lost

    def has(self, digest: str) -> bool:
        """Whether the store has the snapshot."""
        return os.path.exists(self._manifest_path(digest))

    def size(self) -> int:
        """How much the store takes, in bytes; more than any one snapshot does.

        :raises OSError: it can't be read.
        """
        with os.scandir(self._objects) as entries:
            return sum(entry.stat().st_size for entry in entries)

    def digests(self) -> list[str]:
        """The snapshots that the store holds now."""
        entries = os.listdir(self._snapshots)
        return sorted(entry[: -len(".json")] for entry in entries if entry.endswith(".json"))

    def _manifest_path(self, digest: str) -> str:
        return os.path.join(self._snapshots, f"{digest}.json")

    def _add(self, path: str, key: str, source: bytes, *, strict: bool) -> None:
        """Store one source file and its bytecode, unless the store has them."""
        kept = self.object_path(key, _SOURCE)
        if os.path.exists(kept):
            if not strict or os.path.exists(self.object_path(key, _BYTECODE)):
                return
        else:
            _write(kept, source)
        try:
            code = compile(source, path, "exec", dont_inherit=True)
        # ValueError: null bytes, before 3.12; the last two: nested too deeply.
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if strict:
                shown = "".join(traceback.format_exception_only(error)).rstrip()
                raise SourceError(path, f"does not compile: {error}", shown) from error
        else:
            _write(self.object_path(key, _BYTECODE), _marshalled(code))

    def _add_installed(
        self, path: str, key: str, source: bytes, stamp: Stamp, have: Collection[str]
    ) -> None:
        """Store a file of an installed package; compiled it is by Python's cache, or when needed.

        What doesn't compile there hurts nobody who doesn't import it.
        """
        if f"{key}.{_SOURCE}" not in have:
            _write(self.object_path(key, _SOURCE), source)
        if f"{key}.{_BYTECODE}" not in have:
            code = cached(path, source, stamp[2])
            if code is not None:
                _write(self.object_path(key, _BYTECODE), code)

    def _write_manifest(self, seen: Survey, scope: Scope) -> str:
        content = {
            "format": FORMAT,
            "tops": seen.tops,
            "files": {path: key for path, (key, _) in seen.sources.items()},
            "extensions": sorted(seen.extensions),
            "others": seen.others,
            "additions": [[item.name, item.reason, item.folder] for item in scope.additions],
            "reasons": {name: package.reason for name, package in scope.packages.items()},
            "share": sorted(scope.share),
            "roots": scope.roots,
        }
        encoded = json.dumps(content, sort_keys=True).encode()
        digest = hashlib.sha256(encoded).hexdigest()[:16]
        path = self._manifest_path(digest)
        if not os.path.exists(path):
            _write(path, encoded)
        return digest


def _marshalled(code: CodeType) -> bytes:
    """Return ``code`` as bytes, without the path of its file, which may be another one next time.

    CPython 3.13 keeps each path that it reads from marshalled code for as long as the process runs.
    """
    _imp._fix_co_filename(code, _NO_PATH)  # type: ignore[attr-defined]
    return marshal.dumps(code)


def _write(path: str, content: bytes) -> None:
    temporary = f"{path}.{os.getpid()}-{threading.get_ident()}{_UNFINISHED}"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):  # half of it, on a disk that is full, helps nobody
            os.unlink(temporary)
        raise


def _remove_unless_held(path: str) -> bool:
    """Remove the manifest at ``path`` unless it is held; whoever opens it now will notice."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(path)
        return True


def _folders(files: Iterable[str], tops: dict[str, tuple[str, ...]]) -> frozenset[str]:
    """All folders between the files and their top-level packages: what imports may search."""
    highest = {place for places in tops.values() for place in places if not place.endswith(".py")}
    folders = set(highest)
    for path in files:
        folder = os.path.dirname(path)
        found: list[str] = []
        while folder not in folders and folder != os.path.dirname(folder):
            found.append(folder)
            folder = os.path.dirname(folder)
        if folder in folders:
            folders.update(found)
    return frozenset(folders)

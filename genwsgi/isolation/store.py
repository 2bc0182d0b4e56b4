"""The store: a folder of snapshots, which all processes of one host's server share.

::

    objects/                 source files and bytecode
    snapshots/<digest>.json  what a snapshot consists of, and where: path and key of each file

So a release in a new folder costs only what has changed in it.  :meth:`Store.sweep` removes only
what nobody holds, and a process that dies lets go by dying.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from genwsgi.errors import SnapshotError
from genwsgi.isolation.objects import SOURCE, Objects, sweep, write_whole
from genwsgi.isolation.scope import Addition, Scope
from genwsgi.isolation.snapshot import Snapshot
from genwsgi.isolation.survey import Memory, Survey, survey

#: Version of the manifest; a store is never read by another version of genwsgi than wrote it.
FORMAT = 3

#: How often a tree that changes while it is read is read again before giving up.
ATTEMPTS = 10

#: How much longer to wait before each further attempt, in seconds.
PAUSE = 0.02


class Store:
    """A folder of snapshots.  Any process of the server may read; one at a time writes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._objects = Objects(os.path.join(path, "objects"))
        self._snapshots = os.path.join(path, "snapshots")
        # Of the process that takes snapshots.
        self._memory: Memory = {}
        self._make_folders()

    def _make_folders(self) -> None:
        for folder in (self.path, self._snapshots):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self._objects.make()

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
        have = self._objects.names()
        kept = {name.partition(".")[0] for name in have if name.endswith(f".{SOURCE}")}
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
                    self._objects.add_installed(key, path, source, installed[path], have)
                else:
                    trusted = known is not None and known.files.get(path) == key
                    strict = known is not None and not trusted
                    self._objects.add(key, path, source, strict=strict)
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
            store=self.path,
            tops=tops,
            files=files,
            extensions=frozenset(manifest["extensions"]),
            additions=tuple(Addition(*item) for item in manifest["additions"]),
            reasons=manifest["reasons"],
            share=frozenset(manifest["share"]),
            roots=tuple(manifest["roots"]),
            others=manifest["others"],
            folders=_folders(files, tops),
            _objects=self._objects,
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
        sweep(self._objects.path, kept)
        sweep(self._snapshots)

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
        files: dict[str, str] = json.loads(manifest)["files"]
        lost = [path for path, key in files.items() if not self._objects.restore(key, path)]
        write_whole(self._manifest_path(digest), manifest)
        return lost

    def has(self, digest: str) -> bool:
        """Whether the store has the snapshot."""
        return os.path.exists(self._manifest_path(digest))

    def size(self) -> int:
        """How much the store takes, in bytes; more than any one snapshot does.

        :raises OSError: it can't be read.
        """
        return self._objects.size()

    def digests(self) -> list[str]:
        """The snapshots that the store holds now."""
        entries = os.listdir(self._snapshots)
        return sorted(entry[: -len(".json")] for entry in entries if entry.endswith(".json"))

    def _manifest_path(self, digest: str) -> str:
        return os.path.join(self._snapshots, f"{digest}.json")

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
            write_whole(path, encoded)
        return digest


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

"""What a generation imports from: an immutable copy of the source, with bytecode.

Whoever runs code from a snapshot holds a shared lock on its manifest, so that nobody removes it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import CodeType
from typing import IO

from genwsgi.isolation.objects import Objects
from genwsgi.isolation.scope import Addition


@dataclass(frozen=True)
class Snapshot:
    """What a generation imports from, at build time and for ever after.

    :ivar digest: name of the content: equal digests mean equal code at equal places.
    :ivar store: the folder of the store that it lies in.
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
    store: str
    tops: dict[str, tuple[str, ...]]
    files: dict[str, str]
    extensions: frozenset[str]
    additions: tuple[Addition, ...]
    reasons: dict[str, str]
    share: frozenset[str]
    roots: tuple[str, ...]
    others: dict[str, str]
    folders: frozenset[str] = field(compare=False, repr=False)
    _objects: Objects = field(compare=False, repr=False)
    _pin: IO[bytes] = field(compare=False, repr=False)

    def code(self, path: str) -> CodeType:
        """Return the bytecode of the source file ``path``.

        :raises SyntaxError: the source does not compile.
        :raises SnapshotError: the snapshot has no such file, or the store was damaged.
        """
        return self._objects.code(self.files[path], path)

    def source(self, path: str) -> bytes:
        """Return the source of ``path`` as it was when the snapshot was taken.

        :raises SnapshotError: the store was damaged.
        """
        return self._objects.source(self.files[path], path)

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

"""What changed from one snapshot to another.  Any thread may ask."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from genwsgi.deploy.framing import clip
from genwsgi.isolation.snapshot import Snapshot

#: How many files are named at most, of those added, removed and changed together.
MOST_FILES: Final = 2000

#: The room that the text may take in a frame, in bytes; and the longest source that is compared
#: line by line: with longer ones that takes too long.
MOST_TEXT: Final = 256 << 10


@dataclass(frozen=True)
class Differences:
    """What is different.

    :ivar added, removed, changed: files, as paths from the folders that code is imported from.
    :ivar more: how many files these leave out.
    :ivar text: a unified diff of the sources, clipped.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    more: int
    text: str


def compare(one: Snapshot, other: Snapshot) -> Differences:
    """Compare two snapshots, wherever the folders are that they were taken of.

    :raises SnapshotError: a source can't be read.
    """
    before, after = _Files(one), _Files(other)
    removed = sorted(before.names - after.names)
    added = sorted(after.names - before.names)
    changed = sorted(name for name in before.names & after.names if before.differs(name, after))
    text = ""
    for name in sorted({*added, *removed, *changed}):
        text += "".join(_unified(name, before.lines(name), after.lines(name)))
        if len(text) > MOST_TEXT:
            break
    # The first of them all, by their names.
    named = set(sorted({*added, *removed, *changed})[:MOST_FILES])
    return Differences(
        added=tuple(name for name in added if name in named),
        removed=tuple(name for name in removed if name in named),
        changed=tuple(name for name in changed if name in named),
        more=len(added) + len(removed) + len(changed) - len(named),
        text=clip(text, MOST_TEXT),
    )


class _Files:
    """The files of a snapshot by what they are called wherever its folders are."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._paths: dict[str, str] = {}
        tops = {os.path.dirname(place) for places in snapshot.tops.values() for place in places}
        bases = {*tops, *map(os.path.realpath, snapshot.roots)}
        for path in sorted({*snapshot.files, *snapshot.others}):
            name = _from_longest(path, bases)
            # The same name in two folders: then only the path tells them apart.
            self._paths[path if name in self._paths else name] = path

    @property
    def names(self) -> set[str]:
        """What the files are called."""
        return set(self._paths)

    def differs(self, name: str, other: _Files) -> bool:
        """Whether the file has another content in ``other``."""
        mine, its = self._paths[name], other._paths[name]
        before, after = self._snapshot, other._snapshot
        if mine not in before.files or its not in after.files:
            # Of what is no source only a hash is there.
            return before.others.get(mine) != after.others.get(its)
        # A source's key is made from its path too.
        same = before.files[mine] == after.files[its]
        return not same and before.source(mine) != after.source(its)

    def lines(self, name: str) -> list[str] | None:
        """The source in lines, none where there is no file; None: it can't be compared by lines."""
        path = self._paths.get(name)
        if path is None:
            return []
        source = self._snapshot.source(path) if path in self._snapshot.files else b"\0"
        if len(source) > MOST_TEXT or b"\0" in source:
            return None
        return source.decode("utf-8", "replace").splitlines(keepends=True)


def _from_longest(path: str, bases: set[str]) -> str:
    """``path`` from the nearest folder above it that is one of ``bases``; else all of it."""
    base = os.path.dirname(path)
    while base not in bases:
        above = os.path.dirname(base)
        if above == base:
            return path
        base = above
    return os.path.relpath(path, base)


def _unified(name: str, before: list[str] | None, after: list[str] | None) -> Iterator[str]:
    """A unified diff of one file, each line with its end."""
    if before is None or after is None:
        yield f"{name}: differs\n"
        return
    for line in difflib.unified_diff(before, after, f"a/{name}", f"b/{name}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"

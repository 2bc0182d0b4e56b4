"""What :mod:`importlib.resources` finds in a package of a generation.

Source files are those of the snapshot, and everything else is the disk's: what a release consists
of beside its code is not copied.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from importlib.readers import FileReader
from pathlib import PosixPath
from typing import Any

from genwsgi.isolation.asking import asking
from genwsgi.isolation.modules import ModuleTable


class SourcePath(PosixPath):
    """A path whose source files are those of the generation that asks.

    It has no state of its own, because pathlib makes further paths from it in its own ways.
    """

    __slots__ = ()

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """Open the file; a source file of the snapshot for reading only."""
        table = _table()
        path = str(self)
        if table is None or path not in table.snapshot.files or not mode.startswith("r"):
            return super().open(mode, *args, **kwargs)
        content = io.BytesIO(table.snapshot.source(path))
        if "b" in mode:
            return content
        names = ("buffering", "encoding", "errors", "newline")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        given.pop("buffering", None)
        return io.TextIOWrapper(content, **given)

    def is_file(self, **kwargs: Any) -> bool:
        """Whether there is such a file, for the generation that asks."""
        found = _in_snapshot(str(self))
        return super().is_file(**kwargs) if found is None else found

    def exists(self, **kwargs: Any) -> bool:
        """Whether there is such a file or folder, for the generation that asks."""
        found = _in_snapshot(str(self))
        return super().exists(**kwargs) if found is None else found

    def is_dir(self, **kwargs: Any) -> bool:
        """Whether there is such a folder, for the generation that asks."""
        table = _table()
        if table is not None and str(self) in table.snapshot.folders:
            return True
        return super().is_dir(**kwargs)

    def iterdir(self) -> Generator[SourcePath, None, None]:
        """Yield what is in the folder, for the generation that asks."""
        table = _table()
        folder = str(self)
        if table is None or not table.covers(folder):
            yield from super().iterdir()
            return
        snapshot = table.snapshot
        inside = {place for place in (*snapshot.files, *snapshot.folders) if _in(place, folder)}
        yield from (self / os.path.basename(place) for place in sorted(inside))
        if os.path.isdir(folder):
            for path in super().iterdir():
                if str(path) not in inside and path.suffix != ".py":
                    yield path


def _in(place: str, folder: str) -> bool:
    return os.path.dirname(place) == folder


def _table() -> ModuleTable | None:
    generation = asking()
    table = None if generation is None else generation.modules
    return table if isinstance(table, ModuleTable) else None


def _in_snapshot(path: str) -> bool | None:
    """Whether the source file ``path`` is there; ``None``: it is the disk that tells."""
    table = _table()
    if table is None or not path.endswith(".py") or not table.covers(os.path.dirname(path)):
        return None
    return path in table.snapshot.files


class SnapshotReader(FileReader):
    """The resources of one package of a generation."""

    def files(self) -> SourcePath:
        """Return the package's folder."""
        return SourcePath(self.path)

"""A folder of source files and their bytecode, each named after its content.

::

    <key>.source    one source file; the key is made from its content
    <key>.<tag>     the bytecode beside it; where the file is, is put in when it is read

So the same file at two places is here once.  Everything is written under a temporary name and
renamed: a reader never sees half a file, and any number of processes may write.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys
import threading
import traceback
from collections.abc import Collection
from contextlib import suppress
from types import CodeType

from genwsgi.errors import SnapshotError, SourceError
from genwsgi.isolation.bytecode import cached
from genwsgi.isolation.survey import Stamp, key_of

#: Ends the name of a file that is being written; :func:`sweep` finds those left behind.
UNFINISHED = ".new"

#: Not ".py": a store inside the folder it is a copy of must not look like more code.
SOURCE = "source"
BYTECODE = f"{sys.implementation.cache_tag}.bin"

#: What bytecode has here for the path of its source.
NO_PATH = "<store>"


class Objects:
    """The folder at ``path``.  Any thread and process may read and add."""

    def __init__(self, path: str) -> None:
        self.path = path

    def make(self) -> None:
        """Make the folder if there is none.

        :raises OSError: it can't be made.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)

    def place(self, key: str, kind: str) -> str:
        """Where ``key`` is kept, as :data:`SOURCE` or :data:`BYTECODE`."""
        return os.path.join(self.path, f"{key}.{kind}")

    def names(self) -> frozenset[str]:
        """The names of all files; whoever adds many looks once.

        :raises OSError: the folder can't be read.
        """
        return frozenset(os.listdir(self.path))

    def size(self) -> int:
        """How much all of it takes, in bytes.

        :raises OSError: the folder can't be read.
        """
        with os.scandir(self.path) as entries:
            return sum(entry.stat().st_size for entry in entries)

    def source(self, key: str, path: str) -> bytes:
        """Return the source ``key``, which is that of the file ``path``.

        :raises SnapshotError: it isn't there.
        """
        try:
            with open(self.place(key, SOURCE), "rb") as file:
                return file.read()
        except OSError as error:
            raise SnapshotError(path, f"its source can't be read: {error}") from error

    def code(self, key: str, path: str) -> CodeType:
        """Return the bytecode of the source ``key``, as that of the file ``path``.

        :raises SyntaxError: the source does not compile.
        :raises SnapshotError: it isn't there, or is damaged.
        """
        try:
            with open(self.place(key, BYTECODE), "rb") as file:
                code = marshal.loads(file.read())
        except FileNotFoundError:
            code = None
        except (OSError, ValueError, EOFError, TypeError) as error:
            raise SnapshotError(path, f"its bytecode can't be read: {error}") from error
        if code is None:
            code = compile(self.source(key, path), path, "exec", dont_inherit=True)
            with suppress(OSError):  # for the next one who needs it
                write_whole(self.place(key, BYTECODE), _marshalled(code))
        if not isinstance(code, CodeType):
            raise SnapshotError(path, "its bytecode is damaged; deploy again")
        if code.co_filename != path:
            _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]
        return code

    def add(self, key: str, path: str, source: bytes, *, strict: bool) -> None:
        """Keep one source file and its bytecode, unless they are here.

        :param strict: a source that doesn't compile is an error.
        :raises SourceError: it doesn't compile, and ``strict``.
        :raises OSError: it can't be written.
        """
        kept = self.place(key, SOURCE)
        if os.path.exists(kept):
            if not strict or os.path.exists(self.place(key, BYTECODE)):
                return
        else:
            write_whole(kept, source)
        try:
            code = compile(source, path, "exec", dont_inherit=True)
        # ValueError: null bytes, before 3.12; the last two: nested too deeply.
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if strict:
                shown = "".join(traceback.format_exception_only(error)).rstrip()
                raise SourceError(path, f"does not compile: {error}", shown) from error
        else:
            write_whole(self.place(key, BYTECODE), _marshalled(code))

    def add_installed(
        self, key: str, path: str, source: bytes, stamp: Stamp, have: Collection[str]
    ) -> None:
        """Keep a file of an installed package; compiled it is by Python's cache, or when needed.

        What doesn't compile there hurts nobody who doesn't import it.

        :param stamp: what the file system said of the file.
        :param have: see :meth:`names`.
        :raises OSError: it can't be written.
        """
        if f"{key}.{SOURCE}" not in have:
            write_whole(self.place(key, SOURCE), source)
        if f"{key}.{BYTECODE}" not in have:
            code = cached(path, source, stamp[2])
            if code is not None:
                write_whole(self.place(key, BYTECODE), code)

    def restore(self, key: str, path: str) -> bool:
        """Keep the source ``key`` again from the file ``path``, if that is still what it was.

        :returns: whether it is here now.
        :raises OSError: it can't be written.
        """
        if os.path.exists(self.place(key, SOURCE)):
            return True
        try:
            with open(path, "rb") as file:
                source = file.read()
        except OSError:
            return False
        if key_of(source) != key:
            return False
        self.add(key, path, source, strict=False)
        return True


def write_whole(path: str, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it.

    :raises OSError: it can't be written; what was there before is still there.
    """
    temporary = f"{path}.{os.getpid()}-{threading.get_ident()}{UNFINISHED}"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):  # half of it, on a disk that is full, helps nobody
            os.unlink(temporary)
        raise


def sweep(folder: str, keys: Collection[str] | None = None) -> None:
    """Remove what was never finished in ``folder``, and what has none of ``keys``, if given."""
    for entry in os.listdir(folder):
        if entry.endswith(UNFINISHED) or (keys is not None and entry.partition(".")[0] not in keys):
            with suppress(FileNotFoundError):  # whoever wrote it has finished it
                os.unlink(os.path.join(folder, entry))


def _marshalled(code: CodeType) -> bytes:
    """Return ``code`` as bytes, without the path of its file, which may be another one next time.

    CPython 3.13 keeps each path that it reads from marshalled code for as long as the process runs.
    """
    _imp._fix_co_filename(code, NO_PATH)  # type: ignore[attr-defined]
    return marshal.dumps(code)

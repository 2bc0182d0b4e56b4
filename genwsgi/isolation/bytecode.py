"""The bytecode that Python has cached of an installed source file (:pep:`3147`, :pep:`552`)."""

from __future__ import annotations

import importlib.util

_CHECKED = 0b01
_HEADER = 16


def cached(path: str, source: bytes, mtime: int) -> bytes | None:
    """Return the marshalled code of ``path`` from its ``.pyc``; ``None`` if there is no valid one.

    Valid is what this interpreter has written for just this source.

    :param source: the file's content.
    :param mtime: when it was modified, in nanoseconds.
    """
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            data = file.read()
    except (OSError, NotImplementedError):
        return None
    if len(data) <= _HEADER or data[:4] != importlib.util.MAGIC_NUMBER:
        return None
    flags = int.from_bytes(data[4:8], "little")
    if flags & _CHECKED:
        valid = data[8:16] == importlib.util.source_hash(source)
    else:
        seconds = mtime // 1_000_000_000 & 0xFFFFFFFF
        stated = int.from_bytes(data[8:12], "little"), int.from_bytes(data[12:16], "little")
        valid = flags == 0 and stated == (seconds, len(source) & 0xFFFFFFFF)
    return data[_HEADER:] if valid else None

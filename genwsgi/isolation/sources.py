"""Source lines: a traceback shows those that ran, and not what is on the disk by now.

:mod:`traceback`, :mod:`inspect`, :mod:`warnings` and :mod:`pdb` ask :mod:`linecache` for lines by
the name of the file alone, which every generation's modules have in common.  While installed, lines
of a file that a generation has in its snapshot come from there.  Whose file is meant is told by, in
this order, the frame or object whose lines are being looked up, the globals that linecache is
given, and who asks.

The printer that is written in C (up to 3.12, for what reaches ``sys.excepthook`` or
``threading.excepthook``) asks nobody and reads the disk.
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import linecache
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, FunctionType, MethodType, ModuleType, TracebackType
from typing import Any

from genwsgi.errors import SnapshotError
from genwsgi.isolation import lookup
from genwsgi.isolation.asking import table_of
from genwsgi.isolation.modules import ModuleTable

#: How many files' lines are kept.
KEPT = 128

#: What all of :mod:`traceback` extracts frames with.
_EXTRACT = "extract" if sys.version_info < (3, 11) else "_extract_from_extended_frame_gen"

_extract: Callable[..., traceback.StackSummary] = vars(traceback.StackSummary)[_EXTRACT].__func__
_lazycache = linecache.lazycache
_getlines = linecache.getlines
_updatecache = linecache.updatecache
_findsource = inspect.findsource

#: The lines of files by their keys in the store, and the keys in the order of reading.
_lines: dict[str, list[str]] = {}
_order: deque[str] = deque()


class _Looking(threading.local):
    """What is being looked up on this thread.

    :ivar table: whose lines; nobody is asked then.
    :ivar names: the globals of the code that is looked at.
    :ivar globals: those of the frames that are being extracted, in order.
    """

    table: ModuleTable | None = None
    names: Mapping[str, Any] | None = None
    globals: list[Any] | None = None


_looking = _Looking()


@contextmanager
def _meaning(names: Mapping[str, Any] | None) -> Iterator[None]:
    """Look lines up for the generation with these globals; others change nothing."""
    before = _looking.table, _looking.names
    table = _table_of_globals(names)
    if table is not None:
        _looking.table, _looking.names = table, names
    try:
        yield
    finally:
        _looking.table, _looking.names = before


def _of_generation(filename: str, names: Mapping[str, Any] | None) -> list[str] | None:
    """Return the lines of a file as the generation that is meant has it; ``None``: it hasn't."""
    meant = _looking.table or _table_of_globals(names)
    for table in lookup.tables() if meant is None else [meant]:
        if isinstance(table, ModuleTable) and filename in table.snapshot.files:
            break
    else:
        return _of_loader(filename, names if _looking.names is None else _looking.names)
    key = table.snapshot.files[filename]
    found = _lines.get(key)
    if found is None:
        try:
            text = importlib.util.decode_source(table.snapshot.source(filename))
        except (SnapshotError, SyntaxError, UnicodeDecodeError):
            # The generation has ended and its snapshot is gone: no line is better than a wrong one.
            return []
        found = _lines[key] = io.StringIO(text).readlines()
        _order.append(key)
        if len(_order) > KEPT:
            _lines.pop(_order.popleft(), None)
    return found


def _of_loader(filename: str, names: Mapping[str, Any] | None) -> list[str] | None:
    """Return the lines of a generation's file that is no file, as its loader has them."""
    if _table_of_globals(names) is None or names is None or os.path.exists(filename):
        return None
    get_source = getattr(names.get("__loader__"), "get_source", None)
    if names.get("__file__") != filename or get_source is None:
        return None
    try:
        return io.StringIO(get_source(names["__name__"]) or "").readlines()
    except (ImportError, OSError):
        return []


def _table_of_globals(names: Mapping[str, Any] | None) -> ModuleTable | None:
    own = names.get("__builtins__") if isinstance(names, dict) else None
    return table_of(own) if isinstance(own, dict) else None


def _lazycache_for_generation(filename: str, module_globals: Any) -> bool:
    if _looking.globals is not None:
        _looking.globals.append(module_globals)
    # A cache entry would hold the module's loader, and with it the generation.
    if _table_of_globals(module_globals) is not None:
        return False
    return _lazycache(filename, module_globals)


def _getlines_for_generation(filename: str, module_globals: Any = None) -> list[str]:
    found = _of_generation(filename, module_globals)
    return _getlines(filename, module_globals) if found is None else found


def _updatecache_for_generation(filename: str, module_globals: Any = None) -> list[str]:
    found = _of_generation(filename, module_globals)
    return _updatecache(filename, module_globals) if found is None else found


def _extract_for_generation(
    klass: type[traceback.StackSummary],
    frame_gen: Any,
    *,
    limit: int | None = None,
    lookup_lines: bool = True,
    capture_locals: bool = False,
) -> traceback.StackSummary:
    """Look each frame's line up for the generation of that frame, and at once."""
    before, _looking.globals = _looking.globals, []
    try:
        found = _extract(
            klass, frame_gen, limit=limit, lookup_lines=False, capture_locals=capture_locals
        )
        frames = _looking.globals
    finally:
        _looking.globals = before
    if len(frames) != len(found):
        # Somebody else has wrapped lazycache since, and does not call ours.
        frames = [None] * len(found)
    for summary, names in zip(found, frames, strict=True):
        if lookup_lines or _table_of_globals(names) is not None:
            with _meaning(names):
                summary.line  # noqa: B018 -- it is looked up now and kept
    # walk_stack(None) counts the frames above it, of which there is one more than it knows of.
    if (
        found
        and any(frames[0] is own for own in (globals(), vars(traceback)))
        and found[0].name in _COUNTED
    ):
        del found[0]
    return found


_COUNTED = {_extract_for_generation.__name__, "extract"}


def _findsource_for_generation(object: Any) -> tuple[list[str], int]:  # noqa: A002 -- inspect's
    with _meaning(_globals_of(object)):
        return _findsource(object)


def _globals_of(thing: Any) -> dict[str, Any] | None:
    """Return the globals of the code that ``thing`` is or has, if that can be told."""
    kind = type(thing)
    if kind is MethodType:
        return _globals_of(thing.__func__)
    if kind is FunctionType:
        return thing.__globals__  # type: ignore[no-any-return]
    if kind is TracebackType:
        return thing.tb_frame.f_globals  # type: ignore[no-any-return]
    if kind is FrameType:
        return thing.f_globals  # type: ignore[no-any-return]
    if issubclass(kind, ModuleType):
        return vars(thing)  # type: ignore[no-any-return]
    if issubclass(kind, type):
        functions = (item for item in vars(thing).values() if type(item) is FunctionType)
        return next((item.__globals__ for item in functions), None)
    return None


def install() -> None:
    """Begin to answer for generations.  The caller sees to it that this is done once."""
    linecache.lazycache = _lazycache_for_generation
    linecache.getlines = _getlines_for_generation
    linecache.updatecache = _updatecache_for_generation
    inspect.findsource = _findsource_for_generation
    setattr(traceback.StackSummary, _EXTRACT, classmethod(_extract_for_generation))


def uninstall() -> None:
    """Undo :func:`install`."""
    setattr(traceback.StackSummary, _EXTRACT, classmethod(_extract))
    inspect.findsource = _findsource
    linecache.updatecache = _updatecache
    linecache.getlines = _getlines
    linecache.lazycache = _lazycache
    _lines.clear()
    _order.clear()

"""Who imports whom: written down as it happens, for builds to look at.

What packages declare is not enough to know (many import more than they declare), so import
*statements* are recorded as they run.  ``importlib.import_module``, ``pickle`` and calls of
``__import__`` without globals import on somebody else's behalf, and that says nothing about the
module that makes them.

While at least one build runs, ``builtins.__import__`` is replaced; the interpreter then calls it
for every import statement of shared code.  Code of a generation has an ``__import__`` of its own,
which tells :func:`note`, in requests as well.  What else was loaded while nothing was recorded (by
the host program, or by a request) is asked what it holds instead.

``_lock`` guards installing; the dict of edges is written without it, one item at a time.
"""

from __future__ import annotations

import builtins
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

from genwsgi.isolation.holders import names_of
from genwsgi.isolation.view import ModuleProxy, real

#: Importing and imported top-level package -> how it was seen, as in ``"shop.cart: import attr"``.
Edges = Mapping[tuple[str, str], str]

_edges: dict[tuple[str, str], str] = {}
_lock = threading.Lock()
#: What recording goes on for.  Held weakly: a build may be given up in the very moment it begins.
_owners: weakref.WeakSet[object] = weakref.WeakSet()
#: Names of modules that were loaded under the eyes of the recorder, or are to be asked.
_known: set[str] = set()
#: Those that are still to be asked what they hold.
_unseen: set[str] = set()
#: Whether somebody has put an ``__import__`` of his own over ours, which then stays below it.
_covered = False
_original: Any = builtins.__import__


def note(importer: object, name: str) -> None:
    """Write down that the module called ``importer`` imports ``name``, an absolute name."""
    # The second is the quickest to tell, of most that functions import in requests.
    if type(importer) is not str or name in sys.stdlib_module_names:
        return
    edge = importer.partition(".")[0], name.partition(".")[0]
    if edge not in _edges and edge[0] != edge[1] and edge[1] not in sys.stdlib_module_names:
        _edges[edge] = f"{importer}: import {name}"


def begin(owner: object) -> None:
    """Record, for one build among others.  Any thread; balanced by :func:`end`."""
    global _original, _covered
    with _lock:
        if not _owners:
            _unseen.update(real.keys() - _known)
        _owners.add(owner)
        if builtins.__import__ is not _recorded_import and not _covered:
            _original = builtins.__import__
            builtins.__import__ = _recorded_import


def end(owner: object) -> None:
    """End what :func:`begin` began; what was loaded meanwhile has been seen."""
    global _covered
    with _lock:
        _owners.discard(owner)
        if not _owners:
            _covered = builtins.__import__ is not _recorded_import
            if not _covered:
                builtins.__import__ = _original
        _known.update(real)


def edges() -> Edges:
    """Return what has been seen in this process so far."""
    return _edges.copy()


def ask_unseen() -> None:
    """Ask the modules that were loaded while nothing was recorded whose things they hold."""
    while _unseen:
        try:
            name = _unseen.pop()
        except KeyError:  # another build has asked the last one
            break
        module = real.get(name)
        top = name.partition(".")[0]
        if not isinstance(module, ModuleType) or type(module) is ModuleProxy:
            continue
        if top not in sys.stdlib_module_names:
            for held in dict(names_of(module) or {}).values():
                origin = _origin(held)
                edge = top, origin.partition(".")[0]
                if edge[1] not in sys.stdlib_module_names and edge[0] != edge[1] and edge[1]:
                    _edges.setdefault(edge, f"{name} holds something of {origin}")


def _origin(held: Any) -> str:
    """Return the name of the module that ``held`` is or comes from, or nothing."""
    kind = type(held)
    if kind is FunctionType:
        # Not its ``__module__``, which may have been set to somebody else's.
        name = held.__globals__.get("__name__")
    else:
        names = names_of(held)
        if names is None:
            return ""
        name = names.get("__name__" if issubclass(kind, ModuleType) else "__module__")
    return name if type(name) is str else ""


def _recorded_import(
    name: str,
    globals: Mapping[str, object] | None = None,
    locals: Mapping[str, object] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """``builtins.__import__`` while something is built."""
    # A relative import stays in its own package.  Code in C that imports for others, as pickle does
    # what it loads, says so in the name of the module that called it, and with an empty list.
    if globals is not None and not level and fromlist != []:
        note(globals.get("__name__"), name)
    module: ModuleType = _original(name, globals, locals, fromlist, level)
    return module

"""What the source of a module says about other modules: which it imports, and what it takes.

Read from the source and not by running it; what is imported by a name that is computed isn't seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from genwsgi.hotupdate.own import Module

#: What a module imports that belongs to the program's machinery and is not itself updated.
MACHINERY = "genwsgi.hotupdate"


@dataclass(frozen=True)
class Imports:
    """The imports of one module, wherever in it they are.

    :ivar names: modules, and what might be modules: ``from a import b`` gives ``a`` and ``a.b``.
    :ivar taken: for ``from a import b as c`` on its top level: ``c`` and the pair ``a``, ``b``.
    :ivar used: which of the names that it takes are used by code of its own.
    """

    names: frozenset[str]
    taken: dict[str, tuple[str, str]]
    used: frozenset[str] = frozenset()


class Sources:
    """Reads modules' sources, each again only if the file was touched.  One thread at a time."""

    def __init__(self) -> None:
        self._hashes: dict[str, tuple[tuple[int, ...], str]] = {}
        self._imports: dict[tuple[str, str], Imports | None] = {}
        # What was known before begin(), and is forgotten at the next one unless it is asked for.
        self._old_hashes: dict[str, tuple[tuple[int, ...], str]] = {}
        self._old_imports: dict[tuple[str, str], Imports | None] = {}

    def begin(self) -> None:
        """An update begins: what the last one did not ask for (older releases) is forgotten."""
        self._old_hashes, self._hashes = self._hashes, {}
        self._old_imports, self._imports = self._imports, {}

    def hash(self, file: str) -> str:
        """Return what tells the content of ``file`` from another; empty if it can't be read."""
        try:
            found = os.stat(file)
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            known = self._hashes.get(file) or self._old_hashes.get(file)
            if known is not None and known[0] == stamp:
                self._hashes[file] = known
                return known[1]
            with open(file, "rb") as opened:
                digest = hashlib.sha256(opened.read()).hexdigest()
        except OSError:
            return ""
        self._hashes[file] = (stamp, digest)
        return digest

    def imports(self, module: Module) -> Imports | None:
        """Return what ``module`` imports; ``None``: its source can't be read or parsed."""
        key = (module.name, self.hash(module.file))
        if key in self._old_imports:
            self._imports[key] = self._old_imports[key]
        if key not in self._imports:
            try:
                with open(module.file, "rb") as opened:
                    self._imports[key] = _imports(ast.parse(opened.read()), module)
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                self._imports[key] = None
        return self._imports[key]


def compiled_from_another(file: str) -> bool:
    """Whether the bytecode that was kept when ``file`` was last imported is of another content.

    If there is none, or it does not say: no.
    """
    try:
        with open(importlib.util.cache_from_source(file), "rb") as opened:
            head = opened.read(16)
        found = os.stat(file)
    except (OSError, NotImplementedError):
        return False
    if len(head) < 16 or head[:4] != importlib.util.MAGIC_NUMBER or any(head[4:8]):
        return False  # PEP 552: it is checked by a hash, or not at all
    stamp = int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF
    return stamp != struct.unpack("<II", head[8:])


def _imports(tree: ast.Module, module: Module) -> Imports:
    names: set[str] = set()
    taken: dict[str, tuple[str, str]] = {}
    top = set(map(id, _top_level(tree)))
    for node in _run(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module)
            names.add(source)
            for alias in node.names:
                names.add(f"{source}.{alias.name}")
                if id(node) in top:
                    taken[alias.asname or alias.name] = (source, alias.name)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Imports(frozenset(names), taken, frozenset(used & set(taken)))


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    """The module that ``from ... import`` names."""
    if not node.level:
        return node.module or ""
    parts = module.parent.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1])
    return ".".join(part for part in (base, node.module) if part)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that may ever run: not what only type checkers read."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.id if isinstance(test, ast.Name) else getattr(test, "attr", None)
    return name == "TYPE_CHECKING"


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements whose names are the module's, those in ``try`` and ``if`` included."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            waiting += ast.iter_child_nodes(node)
        elif isinstance(node, ast.ExceptHandler):
            waiting += node.body

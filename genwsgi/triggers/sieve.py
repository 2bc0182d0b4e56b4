"""Which files matter: names in, yes or no out.  No files are read."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LETTER = "[A-Za-z0-9]"

#: What rsync writes before it renames: ``.name.XXXXXX``.  One of the six must not be a lower-case
#: letter, so that ``.env.docker`` is not taken for one; nor does a Kubernetes volume's
#: ``..2026_11_23.123456`` match.
SYNC_FILES = tuple(f".[!.]*.{_LETTER * place}[A-Z0-9]{_LETTER * (5 - place)}" for place in range(6))

#: What editors leave behind or write before they rename.
EDITOR_FILES = (
    ".*.sw?",
    "*~",
    ".#*",
    "#*#",
    "4913",
    "*.tmp",
    "*.bak",
    "*___jb_tmp___",
    "*___jb_old___",
    ".goutputstream-*",
)

#: Not a word about ``..data``: Kubernetes volumes keep the code behind it.
DEFAULT_IGNORE = (
    "__pycache__",
    "*.pyc",
    "*.pyo",
    ".git",
    ".hg",
    ".svn",
    "node_modules",
    ".venv",
    "venv",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    *EDITOR_FILES,
    *SYNC_FILES,
)


def relative(path: str, base: str) -> str | None:
    """Return ``path`` as seen from ``base`` ("." for itself), or ``None`` if it lies elsewhere.

    Both are absolute.  Compared by components: ``/app2`` is not below ``/app``.
    """
    found = os.path.relpath(path, base)
    return None if found.split(os.sep, 1)[0] == os.pardir else found


def _matcher(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)")


_SYNC = _matcher(SYNC_FILES)
_TEMPORARY = _matcher((*SYNC_FILES, *EDITOR_FILES))


@dataclass(frozen=True)
class Tree:
    """A directory whose files matter.

    :ivar base: its real path.
    :ivar everything: every file that isn't ignored; else Python sources and the patterns.
    """

    base: str
    everything: bool


class Sieve:
    """Tells relevant paths, relative to the base of their tree, from others.  Immutable.

    :param patterns: ``fnmatch`` patterns, each for a base name or a whole relative path.
    :param ignore: ``fnmatch`` patterns for any one component of a relative path.
    """

    def __init__(self, patterns: Sequence[str], ignore: Sequence[str]) -> None:
        self._wanted = _matcher(patterns)
        self._ignored = _matcher(ignore)

    def ignored(self, path: str) -> bool:
        """Whether a component of ``path`` is ignored."""
        return any(self._ignored.match(part) for part in path.split(os.sep))

    def relevant(self, path: str, *, everything: bool) -> bool:
        """Whether a change of the file ``path`` matters."""
        if self.ignored(path):
            return False
        name = os.path.basename(path)
        return (
            everything
            or name.endswith(".py")
            or self._wanted.match(name) is not None
            or self._wanted.match(path) is not None
        )

    def temporary(self, path: str) -> bool:
        """Whether ``path`` is a temporary file in a directory that isn't ignored."""
        parent, name = os.path.split(path)
        return _TEMPORARY.match(name) is not None and not (parent and self.ignored(parent))

    @staticmethod
    def syncing(path: str) -> bool:
        """Whether ``path`` is a temporary file of a program that copies many."""
        return _SYNC.match(os.path.basename(path)) is not None

"""Where a logical path really is, and what to watch to learn when that changes.

A path is resolved as the kernel does it, one component at a time.  On the way, each entry whose
replacement would change the outcome is a *hinge*: a symlink, the entry of the target itself, or the
first name that doesn't exist.  Watching the directories that hold the hinges shows a release
symlink that flips, a Kubernetes volume's ``..data``, a directory deleted and made again.

Reads the file system, changes nothing, keeps nothing; may be called from any thread.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genwsgi.triggers.sieve import Sieve, Tree, relative

#: As the kernel: more symlinks than this on one path are a loop.
SYMLINKS = 40

#: Symlinks inside the trees that are followed, and directories a followed target may have.  Beyond
#: these only the symlink itself is watched: a link to a data disk must not cost a watch for each of
#: its directories.
LINKS = 100
LINKED_DIRECTORIES = 1000


class Kind(enum.Enum):
    """What is at the end of a path."""

    DIRECTORY = "directory"
    FILE = "file"
    MISSING = "missing"


@dataclass(frozen=True)
class Trace:
    """One logical path, resolved.

    :ivar path: the logical path.
    :ivar place: the real path; of a missing one, the nearest directory that exists.
    :ivar identity: device and inode of a directory: another one may have taken the same name.
    :ivar hinges: the real paths of the entries that decide the outcome.
    """

    path: str
    place: str
    kind: Kind
    identity: tuple[int, int] | None
    hinges: frozenset[str]

    @property
    def outcome(self) -> object:
        """What differs when the path leads elsewhere."""
        return self.kind if self.kind is Kind.MISSING else (self.kind, self.place, self.identity)


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of ``path`` itself, or ``None`` if it can't be read."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def trace(path: str) -> Trace:
    """Resolve ``path`` (relative ones from the working directory) step by step; never raises."""
    # Not abspath(): it would take ".." off before the symlink in front of it is resolved.
    # And the working directory, which may have been deleted, only where it matters.
    absolute = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    left = absolute.split(os.sep)[::-1]
    place = os.sep
    hinges: set[str] = set()
    followed = 0
    while left:
        name = left.pop()
        if name in ("", os.curdir):
            continue
        if name == os.pardir:
            place = os.path.dirname(place)
            continue
        here = os.path.join(place, name)
        try:
            mode = os.lstat(here).st_mode
            target = os.readlink(here) if stat.S_ISLNK(mode) else None
        except OSError:
            hinges |= {here, place} if os.path.isdir(place) else {place}
            return Trace(path, place, Kind.MISSING, None, frozenset(hinges))
        if target is None:
            place = here
            continue
        hinges.add(here)
        followed += 1
        if followed > SYMLINKS:
            return Trace(path, place, Kind.MISSING, None, frozenset(hinges))
        left.extend(target.split(os.sep)[::-1])
        if os.path.isabs(target):
            place = os.sep
    hinges.add(place)
    if os.path.isdir(place):
        return Trace(path, place, Kind.DIRECTORY, identity(place), frozenset(hinges))
    return Trace(path, place, Kind.FILE, None, frozenset(hinges))


@dataclass(frozen=True)
class Plan:
    """What is relevant and what has to be watched for it.

    :ivar roots: the traces of the roots and of the extra paths.
    :ivar links: the traces of the symlinks inside the trees.
    :ivar skipped: symlinks whose targets are not watched, because that would cost too much.
    :ivar trees: directories whose files matter.
    :ivar files: real paths of single files that matter.
    :ivar hinges: real paths of all entries whose replacement calls for a new plan.
    :ivar recursive: real directories to watch with all that is below.
    :ivar shallow: real directories to watch for their own entries.
    """

    roots: tuple[Trace, ...] = ()
    links: tuple[Trace, ...] = ()
    skipped: tuple[str, ...] = ()
    trees: frozenset[Tree] = frozenset()
    files: frozenset[str] = frozenset()
    hinges: frozenset[str] = frozenset()
    recursive: frozenset[str] = frozenset()
    shallow: frozenset[str] = frozenset()

    def admits(self, path: str, sieve: Sieve) -> bool:
        """Whether an observer that looks at every file has to look at ``path``."""
        # All of them: were it only the hinges, a new plan's hinges would look like new files.
        if os.path.dirname(path) in self.shallow:
            return True
        for tree in self.trees:
            seen = relative(path, tree.base)
            if seen is not None and (not sieve.ignored(seen) or sieve.temporary(seen)):
                return True
            if relative(tree.base, path) is not None:
                return True
        return False


def make_plan(roots: Sequence[str], extra: Sequence[str], sieve: Sieve) -> Plan:
    """Resolve all paths and the symlinks below them, and say what to watch."""
    traces = [trace(path) for path in (*roots, *extra)]
    trees = {
        Tree(found.place, everything=number >= len(roots))
        for number, found in enumerate(traces)
        if found.kind is Kind.DIRECTORY
    }
    links: dict[str, Trace] = {}
    skipped: list[str] = []
    todo = sorted(trees, key=lambda tree: tree.base)
    while todo:
        tree = todo.pop()
        for link in symlinks(tree, sieve):
            if link in links:
                continue
            if len(links) == LINKS:
                skipped.append(link)
                continue
            found = links[link] = trace(link)
            target = Tree(found.place, tree.everything)
            if found.kind is not Kind.DIRECTORY or target in trees:
                continue
            if _affordable(target.base, trees):
                trees.add(target)
                todo.append(target)
            else:
                skipped.append(link)
    everything = (*traces, *links.values())
    hinges = frozenset().union(*(found.hinges for found in everything))
    bases = {tree.base for tree in trees}
    recursive = {base for base in bases if not _covered(base, bases - {base})}
    shallow = {os.path.dirname(hinge) for hinge in hinges}
    return Plan(
        roots=tuple(traces),
        links=tuple(links[path] for path in sorted(links)),
        skipped=tuple(sorted(skipped)),
        trees=frozenset(trees),
        files=frozenset(found.place for found in everything if found.kind is Kind.FILE),
        hinges=hinges,
        recursive=frozenset(recursive),
        shallow=frozenset(path for path in shallow if not _covered(path, recursive)),
    )


def symlinks(tree: Tree, sieve: Sieve, below: str = os.curdir) -> Iterator[str]:
    """Yield the real paths of the symlinks in ``tree`` that lead to code, or to nothing yet."""
    for path, seen in entries(tree, sieve, below):
        if os.path.islink(path) and (
            sieve.relevant(seen, everything=tree.everything) or not os.path.isfile(path)
        ):
            yield path


def entries(tree: Tree, sieve: Sieve, below: str = os.curdir) -> Iterator[tuple[str, str]]:
    """Yield real and relative path of all that isn't ignored in ``tree`` and is no directory.

    ``below`` is where to begin, relative to the base of the tree.
    """
    todo = [below]
    while todo:
        directory = todo.pop()
        try:
            with os.scandir(os.path.join(tree.base, directory)) as found:
                listed = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue  # gone since it was listed, or not readable: nothing to be seen in it
        for entry in listed:
            seen = os.path.normpath(os.path.join(directory, entry.name))
            if sieve.ignored(seen):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(seen)
            else:
                yield os.path.normpath(entry.path), seen


def git_locks(place: str) -> Iterator[tuple[str, int]]:
    """Yield the ``index.lock`` files of the git work trees that ``place`` is in, if git holds any.

    With each comes the time it was made, in nanoseconds, which tells it from the next one.
    A ``.git`` that is a file names the directory, as in a linked work tree or a submodule.
    """
    directory = place
    while True:
        git = os.path.join(directory, ".git")
        if os.path.isfile(git):
            try:
                with open(git, encoding="utf-8") as file:
                    git = os.path.join(directory, file.read().partition("gitdir:")[2].strip())
            except (OSError, UnicodeDecodeError):
                pass  # gone again, or not git's: no lock to wait for
        lock = os.path.join(git, "index.lock")
        try:
            yield lock, os.lstat(lock).st_mtime_ns
        except OSError:
            pass  # no git at work here
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent


def _covered(path: str, bases: set[str]) -> bool:
    return any(relative(path, base) is not None for base in bases)


def _affordable(target: str, trees: set[Tree]) -> bool:
    if _covered(target, {tree.base for tree in trees}):
        return True
    if any(relative(tree.base, target) is not None for tree in trees):
        return False
    return all(number < LINKED_DIRECTORIES for number, _ in enumerate(os.walk(target)))

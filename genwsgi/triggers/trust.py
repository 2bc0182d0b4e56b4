"""Which folders an order may name: nobody else's to write, and below a release root if need be.

What is checked is the folder as it really is, with every symlink resolved, and that path is what
the order then carries: a link that is turned afterwards changes nothing.  From the release root,
or the folder itself where there is none, down to the last file everything must belong to this user
or root and be writable by nobody else; and so must all that is above, or somebody could put another
in its place.  So between the check and the reading only those can change anything who may do so
anyway.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from genwsgi.errors import OrderError
from genwsgi.triggers.paths import trace

#: The most files and folders that are looked at below one path.
MOST: Final = 200_000

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def check_folder(
    path: str,
    roots: Iterable[str] | None,
    uid: int | None = None,
    *,
    what: str = "folder",
    deep: bool = True,
) -> str:
    """Return the real path of the folder ``path``, which an order may have code imported from.

    :param roots: the release roots; symlinks in them are resolved.  None: it may lie anywhere.
    :param what: what the order calls the folder.
    :param deep: it may lie below a root at any depth, or else only right in one.
    :param uid: whose it may be besides root's; this process's user unless given.
    :raises OrderError: it is no folder, lies elsewhere, or others may write in it.
    """
    owners = {0, os.geteuid() if uid is None else uid}
    try:
        real = os.path.realpath(path, strict=True)
    except (OSError, ValueError) as error:
        raise OrderError(f"{what} {path} can't be followed: {_why(error)}") from error
    base = real
    if roots is not None:
        bases = [os.path.realpath(root) for root in roots]
        above = [root for root in bases if real != root and _below(real, root)]
        if not above:
            shown = ", ".join(bases) or "none is given"
            raise OrderError(f"{what} {path} is not below a release root (--release-root: {shown})")
        if not deep and os.path.dirname(real) not in bases:
            raise OrderError(f"{what} {path} is not right in {', '.join(bases)} (release_root)")
        base = above[0]
    try:
        if not stat.S_ISDIR(os.lstat(real).st_mode):
            raise OrderError(f"{what} {path} is not a folder")
        _check_way(base, owners)
        for place in _from(base, real):
            _check(place, os.lstat(place), owners)
        _check_tree(real, owners)
    except OSError as error:
        raise OrderError(f"{what} {path} can't be checked: {_why(error)}") from error
    return real


def _below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def _from(base: str, path: str) -> Iterator[str]:
    """The folders from ``base`` down to ``path``, both of them too."""
    yield base
    place = base
    for part in os.path.relpath(path, base).split(os.sep):
        place = os.path.join(place, part)
        yield place


def _check(place: str, found: os.stat_result, owners: set[int]) -> None:
    if stat.S_ISLNK(found.st_mode):
        # It was none a moment ago; those in the tree are followed by _check_link.
        raise OrderError(f"{place} has become a link while it was looked at")
    _check_owner(place, found, owners)
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise OrderError(f"others may write to {place} (mode {mode:03o}): chmod go-w")


def _check_owner(place: str, found: os.stat_result, owners: set[int]) -> None:
    if found.st_uid not in owners:
        raise OrderError(f"{place} belongs to user {found.st_uid}, not to this user or root")


def _check_tree(folder: str, owners: set[int]) -> None:
    seen = 0
    left, known = [folder], {folder}
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > MOST:
                    raise OrderError(
                        f"{folder} holds more than {MOST} files: name a folder of code"
                    )
                place = entry.path
                if entry.is_symlink():
                    place = _check_link(place, owners)
                    inside = os.path.isdir(place)
                else:
                    _check(place, entry.stat(follow_symlinks=False), owners)
                    inside = entry.is_dir(follow_symlinks=False)
                if inside and place not in known:
                    known.add(place)
                    left.append(place)


def _check_link(link: str, owners: set[int]) -> str:
    """Return what a link in the tree leads to; the whole way must be as trustworthy as the tree."""
    found = trace(link)
    for hinge in found.hinges:
        if os.path.islink(hinge):
            _check_owner(hinge, os.lstat(hinge), owners)
            _check_way(os.path.dirname(hinge), owners, sticky_end=True)
    # Of one that leads nowhere this is the folder in which something may appear.
    _check_way(found.place, owners)
    return os.path.realpath(link)


def _check_way(path: str, owners: set[int], *, sticky_end: bool = False) -> None:
    """Refuse ``path`` if it, or what is above it, is somebody else's, or others may write there.

    :param sticky_end: ``path`` itself may be a sticky folder, as what is above it may.
    """
    for place in _from(os.sep, path):
        found = os.lstat(place)
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        # In a sticky folder nobody can replace another's entry.
        if sticky and (sticky_end or place != path):
            _check_owner(place, found, owners)
        else:
            _check(place, found, owners)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

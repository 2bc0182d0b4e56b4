"""Files beside the source that belong to a release: a change of theirs makes another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from genwsgi.isolation.scope import Scope
from genwsgi.triggers.sieve import DEFAULT_IGNORE, Sieve


def find_others(
    extra: Sequence[str], patterns: Sequence[str], ignore: Sequence[str] = DEFAULT_IGNORE
) -> Callable[[Scope], Iterator[str]]:
    """Return what lists, for a scope, the files that the watch takes for relevant beside Python's.

    :param extra, patterns, ignore: as for :class:`~genwsgi.triggers.watch.WatchTrigger`.
    """
    sieve = Sieve(patterns, ignore)

    def others(scope: Scope) -> Iterator[str]:
        for place in extra:
            if os.path.isdir(place):
                yield from _below(os.path.realpath(place), sieve, everything=True)
            elif os.path.exists(place):
                yield os.path.realpath(place)
        if patterns:
            for place in scope.watched:
                yield from _below(os.path.realpath(place), sieve, everything=False)

    return others


def _below(base: str, sieve: Sieve, *, everything: bool) -> Iterator[str]:
    for folder, folders, files in os.walk(base):
        inside = os.path.relpath(folder, base)
        folders[:] = sorted(name for name in folders if not sieve.ignored(name))
        for name in sorted(files):
            path = name if inside == os.curdir else os.path.join(inside, name)
            source = name.endswith(".py") and not everything  # in the snapshot already
            if not source and sieve.relevant(path, everything=everything):
                yield os.path.join(folder, name)

"""Which source each of the program's modules runs, as far as that can be known."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping

from genwsgi.hotupdate.own import Module
from genwsgi.hotupdate.source import Sources, compiled_from_another

#: How far the file system's clock may be behind the process's, in seconds.
SLACK = 0.1


class Running:
    """Tells modules that have changed from those that have not.  One thread at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        #: The hash of the source by the module's name; empty: not known.
        self._hashes: dict[str, str] = {}
        # When modules were noted last: any that is new after that was loaded later.
        self._noted = time.time()

    def begin(self, modules: Mapping[str, Module]) -> None:
        """Note what the program runs when hotupdate begins: taken to be what is on disk."""
        self._noted = math.inf
        self.note(modules)

    def note(
        self,
        modules: Mapping[str, Module],
        touched: Collection[str] = (),
        named: Collection[str] = (),
    ) -> None:
        """Note what modules run that are seen for the first time: what is on disk now.

        Unless that may have changed since they were loaded: their bytecode is of something else,
        they, or a folder or link on the way to them, were ``touched`` (real paths) or are newer
        than the last look, or somebody has ``named`` them as changed.
        """
        now = time.time()
        for name, module in modules.items():
            if name not in self._hashes:
                known = name not in named and not _is_touched(module.file, touched)
                known = known and not _changed_since(module.file, self._noted - SLACK)
                known = known and not compiled_from_another(module.file)
                self._hashes[name] = self._sources.hash(module.file) if known else ""
        self._noted = now

    def has_changed(self, module: Module, *, new: bool = False) -> bool:
        """Whether the source of ``module`` is not what runs.  ``new``: what if it does not run."""
        running = self._hashes.get(module.name)
        return new if running is None else self._sources.hash(module.file) != running

    def remember(self, modules: Iterable[Module], sources: Mapping[str, bytes]) -> None:
        """Note that those of ``modules`` run whose files are in ``sources``, with that content."""
        for module in modules:
            if module.file in sources:
                self._hashes[module.name] = hashlib.sha256(sources[module.file]).hexdigest()


def _is_touched(file: str, touched: Collection[str]) -> bool:
    place = os.path.realpath(file)
    return any(place == path or place.startswith(path + os.sep) for path in touched)


def _changed_since(file: str, when: float) -> bool:
    """Whether something else may have come to be at the path ``file``.

    A release that was unpacked long ago comes there by a new link, or because a folder is moved.

    :param when: in seconds since the epoch, as files have it: no other clock is theirs.
    """
    place = file
    while True:
        try:
            found = os.lstat(place)
        except OSError:
            return True
        # What is put in a folder changes both of its times; that it is moved, one.
        is_older = stat.S_ISDIR(found.st_mode) and found.st_ctime_ns == found.st_mtime_ns
        if not is_older and found.st_ctime >= when:
            return True
        if place == os.path.dirname(place):
            return False
        place = os.path.dirname(place)

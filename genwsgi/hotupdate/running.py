"""Which source each of the program's modules runs, as far as that can be known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping

from genwsgi.hotupdate.own import Module
from genwsgi.hotupdate.source import Sources, compiled_from_another


class Running:
    """Tells modules that have changed from those that have not.  One thread at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        #: The hash of the source by the module's name; empty: not known.
        self._hashes: dict[str, str] = {}

    def note(
        self,
        modules: Mapping[str, Module],
        touched: Collection[str] = (),
        named: Collection[str] = (),
    ) -> None:
        """Note what modules run that are seen for the first time: what is on disk now.

        Unless that may have changed since they were loaded: their bytecode is of something else,
        they were ``touched`` (real paths), or somebody has ``named`` them as changed.
        """
        for name, module in modules.items():
            if name not in self._hashes:
                known = name not in named and os.path.realpath(module.file) not in touched
                known = known and not compiled_from_another(module.file)
                self._hashes[name] = self._sources.hash(module.file) if known else ""

    def has_changed(self, module: Module, *, new: bool = False) -> bool:
        """Whether the source of ``module`` is not what runs.  ``new``: what if it does not run."""
        running = self._hashes.get(module.name)
        return new if running is None else self._sources.hash(module.file) != running

    def remember(self, modules: Iterable[Module], sources: Mapping[str, bytes]) -> None:
        """Note that those of ``modules`` run whose files are in ``sources``, with that content."""
        for module in modules:
            if module.file in sources:
                self._hashes[module.name] = hashlib.sha256(sources[module.file]).hexdigest()

"""The process that a generation has started afresh: see :mod:`~genwsgi.isolation.spawn`."""

from __future__ import annotations

import os
from typing import Any

from genwsgi.errors import GenwsgiError, SnapshotError
from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import Event
from genwsgi.isolation import imports, view
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.store import Store


def begin(heirlooms: list[tuple[str, str, int, str, Any]]) -> None:
    """Import from snapshots from now on, in a process that has just been started for it.

    :param heirlooms: for each generation the store, the digest, the generation's number and release
        and the descriptor that holds the snapshot, as ``multiprocessing`` hands descriptors on.
    :raises GenwsgiError: a snapshot can't be opened.
    """
    for path, digest, number, release, inherited in heirlooms:
        holding = inherited.detach()
        try:
            snapshot = Store(path).open(digest)
        except (SnapshotError, OSError) as error:
            raise GenwsgiError(
                f"a process of generation {number} can't have its code: {error}"
            ) from error
        finally:
            os.close(holding)
        generation = Generation(number, release)
        generation.modules = table = ModuleTable(generation, snapshot)
        generation.advance(Event.BUILT)
        generation.advance(Event.SWAPPED_IN)
        # A fork server may have imported some, from the disk.
        view.drop_shared(table.names)
        imports.opened(table)
        imports.install(lambda generation=generation: generation)  # type: ignore[misc]

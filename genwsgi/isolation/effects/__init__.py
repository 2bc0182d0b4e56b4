"""What a generation does to the process outside its modules, so that it can be undone.

Where Python has one function through which such an effect goes, it is wrapped and the effect is put
down to the generation in whose name it happens; what anybody can write to (``sys.path``, ...) is
compared before and after the build.  What a *shared* module does while it is imported is the
process's own business, whoever imports it.

Each family of effects is a module: it wraps what it has to in ``install()``, puts it back in
``uninstall()``, and has a :class:`~genwsgi.isolation.effects.base.Record` for what one generation
did of its kind.  :class:`Effects` is the book of one generation, with a record of each family.
"""

from __future__ import annotations

from genwsgi.isolation.effects.base import importing_shared
from genwsgi.isolation.effects.book import (
    Effects,
    effects_of,
    install,
    shared_import_begins,
    shared_import_ended,
    uninstall,
)
from genwsgi.isolation.effects.forgetting import forget
from genwsgi.isolation.effects.typings import forget_types

__all__ = [
    "Effects",
    "effects_of",
    "forget",
    "forget_types",
    "importing_shared",
    "install",
    "shared_import_begins",
    "shared_import_ended",
    "uninstall",
]

"""``mimetypes``: what a generation adds is known to itself.

Its types are kept in a table of its own, made from the process's when it first adds one.
"""

from __future__ import annotations

import os
from typing import Any

from genwsgi.isolation.asking import asking
from genwsgi.isolation.effects.base import Book, Patches, Record, acting, current

_patches = Patches()
_TABLES = ("encodings_map", "suffix_map")


class Mimes(Record):
    """The types of one generation.

    :ivar types: its ``mimetypes.MimeTypes``, or ``None`` as long as it has added nothing.
    """

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.types: Any = None

    def undo(self) -> None:
        """Forget them."""
        self.types = None

    def report(self) -> list[str]:
        """Whether there are any."""
        return ["MIME types"] if self.types is not None else []


def _own_types(module: Any, mimes: Mimes) -> Any:
    """Return the generation's table, a copy of the process's at first."""
    if mimes.types is None:
        if module._db is None:
            module.init()
        types, model = module.MimeTypes(), module._db
        for name in _TABLES:
            setattr(types, name, getattr(model, name).copy())
        types.types_map = tuple(one.copy() for one in model.types_map)
        types.types_map_inv = tuple(
            {kind: list(endings) for kind, endings in one.items()} for one in model.types_map_inv
        )
        mimes.types = types
    return mimes.types


def _meant() -> Any:
    """Return the table of the generation that asks, ``None``: the process's."""
    generation = asking()
    book = None if generation is None else generation.effects
    if book is None:
        newest = current()
        book = None if newest is None else newest[1]
    return None if book is None else book.of(Mimes).types


def _wrap(module: Any) -> None:
    def asker(name: str) -> Any:
        original = getattr(module, name)

        def ask(*args: Any, **kwargs: Any) -> Any:
            types = _meant()
            return (original if types is None else getattr(types, name))(*args, **kwargs)

        return ask

    # Made before any of them is replaced: ``guess_file_type`` came with 3.13.
    names = ("guess_type", "guess_file_type", "guess_all_extensions", "guess_extension")
    askers = {name: asker(name) for name in names if hasattr(module, name)}
    add_type, init = module.add_type, module.init

    def add_type_for_generation(type: str, ext: str, strict: bool = True) -> None:  # noqa: A002
        mimes = acting(Mimes)
        if mimes is None:
            add_type(type, ext, strict)
        else:
            _own_types(module, mimes).add_type(type, ext, strict)

    def init_for_generation(files: Any = None) -> None:
        mimes = acting(Mimes)
        if mimes is None or module._db is None:
            init(files)
            return
        if files is None:
            mimes.types = None
            return
        types = _own_types(module, mimes)
        for file in files:
            if os.path.isfile(file):
                types.read(file)

    for name, ask in askers.items():
        _patches.put(module, name, ask)
    _patches.put(module, "add_type", add_type_for_generation)
    _patches.put(module, "init", init_for_generation)


def install() -> None:
    """Wrap the module, once it is there."""
    _patches.when_loaded("mimetypes", _wrap)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

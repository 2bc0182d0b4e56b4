"""Registries of the standard library in which each generation may have an entry under one key.

:mod:`sqlite3` (adapters and converters), :mod:`copyreg` (how :mod:`pickle` and :mod:`copy` take
apart what they can't by themselves) and the generic functions of :func:`functools.singledispatch`
that shared code defines.  Two generations with an adapter each for ``datetime`` both have their
own; an entry whose key is a class of the application would keep that class for ever.
"""

from __future__ import annotations

import copyreg
import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

from genwsgi.isolation.effects.base import Patches, acting
from genwsgi.isolation.effects.claims import MISSING, Attribute, Claims, Entry

_pickle = copyreg.pickle
_add_extension = copyreg.add_extension
_singledispatch = functools.singledispatch
_patches = Patches()


#: Types whose values ``sqlite3`` binds without a look at its adapters, until one is registered.
_BASIC = (int, float, str, bytearray)


def _unadapted(value: Any) -> Any:
    """What ``sqlite3`` does with a value that has no adapter: it says that it can't bind it."""
    return value


def _unconverted(value: bytes) -> str:
    """What ``sqlite3`` does with a text column that has no converter."""
    return value.decode()


def _wrap_sqlite3(module: Any) -> None:
    adapters, converters = module.adapters, module.converters
    protocol, register_adapter = module.PrepareProtocol, module.register_adapter
    register_converter = module.register_converter

    def adapter_for_generation(type: Any, adapter: Any, /) -> None:  # noqa: A002 -- sqlite3's name
        claims = acting(Claims)
        if claims is None:
            _for_process(Entry(adapters, (type, protocol)), adapter, register_adapter, type)
        else:
            if type in _BASIC and (type, protocol) not in adapters:
                register_adapter(type, adapter)
                adapters.pop((type, protocol), None)
            claims.claim(Entry(adapters, (type, protocol)), adapter, "sqlite3 adapter", _unadapted)

    def converter_for_generation(typename: str, converter: Any, /) -> None:
        claims = acting(Claims)
        place = Entry(converters, typename.upper())
        if claims is None:
            _for_process(place, converter, register_converter, typename)
        else:
            claims.claim(place, converter, "sqlite3 converter", _unconverted)

    # The names that code may know it by; all of them are loaded now.
    for name in ("sqlite3", "sqlite3.dbapi2", "_sqlite3"):
        _patches.put(sys.modules[name], "register_adapter", adapter_for_generation)
        _patches.put(sys.modules[name], "register_converter", converter_for_generation)


def _reduced(value: Any) -> Any:
    """How ``pickle`` takes a value apart for whose class nothing is registered."""
    return value.__reduce_ex__(4)


class _Plainly:
    """What opens URLs where no generation and nobody else has installed an opener."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Open a URL as ``urlopen`` does by itself."""
        return sys.modules["urllib.request"].build_opener().open(*args, **kwargs)


def _wrap_urllib(module: Any) -> None:
    install_opener = module.install_opener

    def install_for_generation(opener: Any) -> None:
        claims = acting(Claims)
        if claims is None:
            install_opener(opener)
        else:
            place = Attribute(module, "_opener")
            claims.claim(place, opener, "URL opener", _Plainly())

    _patches.put(module, "install_opener", install_for_generation)


def _wrap_multiprocessing(module: Any) -> None:
    """A generation may set the start method, like a program, once; not only the first one may."""
    set_start_method, context = module.set_start_method, module.context._default_context

    def set_for_generation(method: Any, force: bool = False) -> None:
        claims = acting(Claims)
        if claims is None:
            set_start_method(method, force)
            return
        before = context._actual_context

        def add() -> bool:
            set_start_method(method, force)
            return True

        def remove() -> None:
            context._actual_context = before

        claims.share("multiprocessing", "start method", add, remove)
        set_start_method(method, True)

    _patches.put(module, "set_start_method", set_for_generation)


def _for_process(place: Entry, value: Any, register: Callable[..., Any], *key: Any) -> None:
    """Register what is everybody's, also where generations have something of their own."""
    choice = place.get()
    claimed = getattr(choice, "claims", None)
    register(*key, value)
    if claimed:
        choice.base = value
        place.set(choice)


def _pickle_for_generation(ob_type: Any, pickle_function: Any, constructor_ob: Any = None) -> None:
    claims = acting(Claims)
    if claims is None:
        _pickle(ob_type, pickle_function, constructor_ob)
        return
    if not callable(pickle_function) or (
        constructor_ob is not None and not callable(constructor_ob)
    ):
        _pickle(ob_type, pickle_function, constructor_ob)  # it says what is wrong
        return
    place = Entry(copyreg.dispatch_table, ob_type)
    claims.claim(place, pickle_function, "pickle function", _reduced)


def _extension_for_generation(module: str, name: str, code: int) -> None:
    """``copyreg.add_extension``; each code goes with the last generation that has added it."""
    claims = acting(Claims)
    if claims is None:
        _add_extension(module, name, code)
        return
    key = (module, name)
    known: dict[tuple[str, str], int] = copyreg._extension_registry  # type: ignore[attr-defined]

    def add() -> bool:
        new = known.get(key) != code
        _add_extension(module, name, code)
        return new

    claims.share(
        ("copyreg", key, code),
        "pickle extension",
        add,
        lambda: copyreg.remove_extension(module, name, code),
    )


def _singledispatch_for_generation(func: Any) -> Any:
    """``functools.singledispatch``; for shared code, what generations register is their own."""
    generic: Any = _singledispatch(func)
    if acting(Claims) is not None:
        return generic
    # The mapping that everybody may read is a view of the dict that nobody else has.
    (registry,) = gc.get_referents(generic.registry)
    register = generic.register

    def register_for_generation(cls: Any, func: Any = None) -> Any:
        claims = acting(Claims)
        if claims is None:
            return register(cls, func)
        before = registry.copy()
        result = register(cls, func)
        new = {key: one for key, one in registry.copy().items() if before.get(key) is not one}
        if not new and func is None and result is not cls:
            return lambda function: register_for_generation(cls, function)
        for key, implementation in new.items():
            place = Entry(registry, key, generic._clear_cache)
            place.set(before.get(key, MISSING))
            inherited = _Inherited(registry, key)
            claims.claim(place, implementation, "generic function's case", inherited)
        return result

    generic.register = register_for_generation
    return generic


class _Inherited:
    """What a generic function does for a class whose implementation another generation has."""

    def __init__(self, registry: dict[Any, Any], cls: Any) -> None:
        self._registry = registry
        self._cls = cls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        others = {key: value for key, value in self._registry.items() if key is not self._cls}
        find: Any = functools._find_impl  # type: ignore[attr-defined]
        return find(type(args[0]), others)(*args, **kwargs)


def install() -> None:
    """Wrap what registers."""
    _patches.put(copyreg, "pickle", _pickle_for_generation)
    _patches.put(copyreg, "add_extension", _extension_for_generation)
    _patches.put(functools, "singledispatch", _singledispatch_for_generation)
    _patches.when_loaded("sqlite3", _wrap_sqlite3)
    _patches.when_loaded("urllib.request", _wrap_urllib)
    _patches.when_loaded("multiprocessing", _wrap_multiprocessing)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

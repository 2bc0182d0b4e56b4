"""How the modules that a program has loaded become handles to all versions of themselves.

A program that takes updates holds its modules already: by ``import rules``, as attributes of their
packages, in containers.  So it is the module *objects* that change, by their class: a
:class:`LiveModule` answers with what the version that is asking, or the current one, has.  Its own
dictionary stays what it was, the globals of the first version's functions.

A package that keeps its own class would be given the new submodule as an attribute by importlib,
for all threads to see and before the swap; a :class:`LivePackage` keeps the handle instead.
"""

from __future__ import annotations

import importlib._bootstrap
import weakref
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any, cast

from genwsgi.generations.generation import Generation
from genwsgi.isolation import asking, lookup
from genwsgi.isolation.originals import Live, OriginalTable, within
from genwsgi.isolation.view import ModuleProxy, real

bootstrap: Any = importlib._bootstrap

#: Modules and packages that were changed, with the class that each had.
_changed: dict[str, tuple[ModuleType, type]] = {}

_own: Any = ModuleType.__getattribute__


class LiveModule(Live):
    """A module that was there before, and now stands for whichever version is meant."""

    def __getattribute__(self, name: str) -> Any:
        module = _meant_by(self)
        return _own(self, name) if module is self else getattr(module, name)

    def __setattr__(self, name: str, value: object) -> None:
        module = _meant_by(self)
        if module is self:
            ModuleType.__setattr__(self, name, value)
        else:
            setattr(module, name, value)

    def __delattr__(self, name: str) -> None:
        module = _meant_by(self)
        if module is self:
            ModuleType.__delattr__(self, name)
        else:
            delattr(module, name)

    def __dir__(self) -> list[str]:
        module = _meant_by(self)
        return list(ModuleType.__dir__(self)) if module is self else dir(module)

    def __repr__(self) -> str:
        module = _meant_by(self)
        return ModuleType.__repr__(self) if module is self else repr(module)


def _meant_by(live: ModuleType) -> ModuleType:
    name: str = _own(live, "__name__")
    table = lookup.table_for(name)
    return live if table is None else table.import_module(name)


class LivePackage(ModuleType):
    """A package that all versions share, with modules in it that each has for itself."""

    def __setattr__(self, name: str, value: object) -> None:
        if _is_a_version(value, f"{_own(self, '__name__')}.{name}"):
            value = real.get(f"{_own(self, '__name__')}.{name}", value)
        super().__setattr__(name, value)


def _is_a_version(value: Any, fullname: str) -> bool:
    """Whether ``value`` is a generation's own module of that name, as importlib binds it."""
    kind = type(value)
    if not issubclass(kind, ModuleType) or issubclass(kind, (Live, ModuleProxy)):
        return False
    names = _own(value, "__dict__")
    builtins = names.get("__builtins__")
    if type(builtins) is not dict or names.get("__name__") != fullname:
        return False
    return asking.table_of(builtins) is not None


class Reexport:
    """An attribute of a package that its ``__init__`` has taken out of a module with versions.

    A data descriptor: it goes before what is in the package's dictionary.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __get__(self, package: ModuleType | None, owner: type) -> Any:
        """Return what the version that is meant has under that name."""
        if package is None:
            return self
        return getattr(real[self._module], self._name)

    def __set__(self, package: ModuleType, value: object) -> None:
        """The program puts something else there: it is the package's own from now on."""
        for cls in type(package).__mro__:
            for alias, found in vars(cls).copy().items():
                if found is self:
                    delattr(cls, alias)
                    _own(package, "__dict__")[alias] = value


def adopt(names: Collection[str], table: OriginalTable, current: Generation) -> list[str]:
    """Make handles of the loaded modules that are, or lie below, ``names``.

    :param table: gets them.  ``current`` is whose code they are when they were not there before.
    :return: the names that can't become live, because what is in ``sys.modules`` is no module.
    """
    odd = []
    for name, module in sorted(real.copy().items()):
        if name in table.modules or type(module) is ModuleProxy or not within(name, names):
            continue
        if not issubclass(type(module), ModuleType) or not _become(name, module, LiveModule):
            odd.append(name)
            continue
        # Whoever is still loading it has to end first: then it is whole.
        bootstrap._lock_unlock_module(name)
        asking.adopted[id(_own(module, "__dict__"))] = weakref.ref(current)
        table.modules[name] = module
    table.names.update(names)
    lookup.begin(table)
    for name in names:
        parent = name.rpartition(".")[0]
        package = real.get(parent)
        if package is not None and not within(parent, names) and parent not in _changed:
            _become(parent, package, LivePackage)
    return odd


def reexport(package: str, taken: Mapping[str, tuple[str, str]]) -> None:
    """Have names that the package has taken out of modules with versions looked up anew.

    :param taken: for each name in the package the module and the name in it.
    """
    module = real[package]
    if package not in _changed and not _become(package, module, LivePackage):
        return
    for alias, (source, name) in _expanded(_own(module, "__dict__"), taken).items():
        if alias in _own(module, "__dict__") and alias not in vars(type(module)):
            setattr(type(module), alias, Reexport(source, name))


def _expanded(
    names: Mapping[str, Any], taken: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """Return ``taken`` with the names that ``*`` stands for: what a package has from there."""
    found = dict(taken)
    source, _ = found.pop("*", ("", ""))
    for name, value in _own(real[source], "__dict__").items() if source in real else ():
        if not name.startswith("__") and names.get(name) is value:
            found.setdefault(name, (source, name))
    return found


def release() -> None:
    """Give every module its class back: for everybody it is the first version again."""
    asking.adopted.clear()
    for module, before in _changed.values():
        object.__setattr__(module, "__class__", before)
    _changed.clear()


def _become(name: str, module: ModuleType, kind: type[ModuleType]) -> bool:
    before = type(module)
    if issubclass(before, kind):
        return True
    # A class of its own for each: names are looked up anew in one package and not in another.
    bases = (kind,) if before is ModuleType else (kind, before)
    try:
        made = cast("type[ModuleType]", type(kind.__name__, bases, {"__module__": __name__}))
        object.__setattr__(module, "__class__", made)
    except TypeError:  # of a layout of its own
        return False
    _changed[name] = (module, before)
    return True

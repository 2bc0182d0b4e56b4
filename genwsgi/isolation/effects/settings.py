"""Settings of the process: one value for all code, which a build may change.

All generations share them: what a build sets is in force at once, and stays so after it; no
difference can be seen between a successor that wants the same value and one that wants none.  Where
the value is an object (an event loop policy), it goes with the generation that set it, unless
another one has set its own since.

A failed build's are set back.  What is set through a function is the build's if its code calls it.
Of an attribute it is only seen that it has changed, and a request may have done that
(``redirect_stdout``): it is set back where it is an object of the build's code, or no other
generation was there, and else the log names it.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.effects.base import Book, Patches, Record, Run, alone, building, living
from genwsgi.isolation.holders import belongs

log = logging.getLogger("genwsgi")

_patches = Patches()


@dataclass(frozen=True)
class Setting:
    """A value, and how to get and set it.

    :ivar module: the module it needs: not looked at before something else has imported that.
    :ivar held: whether it is an object that may lead to a generation's code.
    :ivar by: the functions that set it, each as (module, name); without, it is an attribute.
    """

    get: Callable[[], Any]
    set: Callable[[Any], object]
    module: str = "sys"
    held: bool = False
    by: tuple[tuple[str, str], ...] = ()


def _attribute(module: str, name: str, *, held: bool = False) -> Setting:
    def get() -> Any:
        return getattr(sys.modules[module], name)

    def put(value: Any) -> None:
        setattr(sys.modules[module], name, value)

    return Setting(get, put, module, held)


def _start_context() -> Any:
    return sys.modules["multiprocessing.context"]._default_context


_CONTEXT = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _decimals() -> tuple[Any, ...]:
    context = sys.modules["decimal"].DefaultContext
    flags = (tuple(context.flags.items()), tuple(context.traps.items()))
    return (*(getattr(context, name) for name in _CONTEXT), *flags)


def _set_decimals(values: tuple[Any, ...]) -> None:
    context = sys.modules["decimal"].DefaultContext
    for name, value in zip(_CONTEXT, values, strict=False):
        setattr(context, name, value)
    context.flags.update(values[-2])
    context.traps.update(values[-1])


def _locale() -> str:
    module: Any = sys.modules["locale"]
    return str(module._setlocale(module.LC_ALL))


def _set_locale(name: str) -> None:
    module: Any = sys.modules["locale"]
    module._setlocale(module.LC_ALL, name)


def _showwarning() -> Any:
    """Return what shows warnings, or would without ``logging.captureWarnings``."""
    return logging._warnings_showwarning or warnings.showwarning  # type: ignore[attr-defined]


def _set_showwarning(function: Any) -> None:
    if logging._warnings_showwarning is not None:  # type: ignore[attr-defined]
        logging._warnings_showwarning = function  # type: ignore[attr-defined]
    else:
        warnings.showwarning = function


def _umask() -> int:
    """Read the umask where it can be read without setting it, which every thread would notice."""
    with open("/proc/self/status") as status:
        return next((int(line.split()[1], 8) for line in status if line.startswith("Umask")), 0)


def _level_names() -> tuple[dict[int, str], dict[str, int]]:
    return logging._levelToName.copy(), logging._nameToLevel.copy()


def _set_level_names(names: tuple[dict[int, str], dict[str, int]]) -> None:
    for table, before in zip((logging._levelToName, logging._nameToLevel), names, strict=True):
        for key in table.keys() - before.keys():  # type: ignore[attr-defined]
            del table[key]  # type: ignore[attr-defined]
        table.update(before)  # type: ignore[attr-defined]


def _set_collecting(on: bool) -> None:
    (gc.enable if on else gc.disable)()


_SETTINGS: dict[str, Setting] = {
    "working directory": Setting(os.getcwd, os.chdir, by=(("os", "chdir"), ("os", "fchdir"))),
    "umask": Setting(_umask, os.umask, by=(("os", "umask"),)),
    "sys.stdin": _attribute("sys", "stdin", held=True),
    "sys.stdout": _attribute("sys", "stdout", held=True),
    "sys.stderr": _attribute("sys", "stderr", held=True),
    "recursion limit": Setting(
        sys.getrecursionlimit, sys.setrecursionlimit, by=(("sys", "setrecursionlimit"),)
    ),
    "switch interval": Setting(
        sys.getswitchinterval, sys.setswitchinterval, by=(("sys", "setswitchinterval"),)
    ),
    "locale": Setting(_locale, _set_locale, "locale", by=(("locale", "setlocale"),)),
    "decimal defaults": Setting(_decimals, _set_decimals, "decimal"),
    "garbage collection": Setting(
        gc.isenabled, _set_collecting, by=(("gc", "enable"), ("gc", "disable"))
    ),
    "collection thresholds": Setting(
        gc.get_threshold, lambda was: gc.set_threshold(*was), by=(("gc", "set_threshold"),)
    ),
    "log level names": Setting(_level_names, _set_level_names, by=(("logging", "addLevelName"),)),
    "logging.disable": Setting(
        lambda: logging.root.manager.disable, logging.disable, by=(("logging", "disable"),)
    ),
    "logging.raiseExceptions": _attribute("logging", "raiseExceptions"),
    "logging.lastResort": _attribute("logging", "lastResort", held=True),
    "warnings.showwarning": Setting(_showwarning, _set_showwarning, held=True),
    "warnings.formatwarning": _attribute("warnings", "formatwarning", held=True),
    "socket timeout": Setting(
        lambda: sys.modules["socket"].getdefaulttimeout(),
        lambda was: sys.modules["socket"].setdefaulttimeout(was),
        "socket",
        by=(("socket", "setdefaulttimeout"),),
    ),
    "event loop policy": _attribute("asyncio.events", "_event_loop_policy", held=True),
    "multiprocessing start method": Setting(
        lambda: _start_context()._actual_context,
        lambda was: setattr(_start_context(), "_actual_context", was),
        "multiprocessing.context",
        by=(("multiprocessing", "set_start_method"),),
    ),
}


class Settings(Record):
    """What one build changed of them."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._before: dict[str, Any] = {}
        self._changed: dict[str, tuple[Any, Any]] = {}

        for module in {setting.module for setting in _SETTINGS.values()} & sys.modules.keys():
            self.look(module)

    def look(self, module: str) -> None:
        """Keep the attributes of a module as they are now, before the build changes them."""
        for name, setting in _SETTINGS.items():
            if setting.module == module and not setting.by:
                self._before[name] = setting.get()

    def changed(self, name: str, before: Any, now: Any) -> None:
        """Note that the build has set it to ``now``, where it was ``before``."""
        known = self._changed.pop(name, None)
        if known is not None and _same(known[1], before):
            before = known[0]
        if not _same(before, now):
            self._changed[name] = before, now

    def built(self) -> None:
        """See which attributes have changed."""
        for name, before in self._before.items():
            self.changed(name, before, _SETTINGS[name].get())
        self._before = {}

    def undo(self) -> None:
        """Set back what is the build's, where nobody has set it anew."""
        left = []
        for name, (before, mine) in self._changed.items():
            setting = _SETTINGS[name]
            try:
                if not _same(setting.get(), mine):
                    continue
                if setting.by or self._only_mine(mine):
                    setting.set(before)
                else:
                    left.append(name)
            except Exception:  # the working directory may be gone
                log.exception("%s: the %s could not be set back", self.name, name)
        self._changed = {}
        if left:
            log.warning(
                "%s is undone; this has changed meanwhile, nobody knows by whom, and stays so: %s",
                self.name,
                ", ".join(left),
            )

    def _only_mine(self, value: Any) -> bool:
        """Whether nobody but the build can have set an attribute to ``value``."""
        book = self.book()
        generation = None if book is None else book.generation()
        if book is None or generation is None:
            return False
        return alone(book) or _of(generation, value)

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Let go of objects of the generation's code, for what was there before."""
        book = self.book()
        generation = None if book is None else book.generation()
        for name, (before, mine) in self._changed.items():
            setting = _SETTINGS[name]
            if not setting.held or generation is None or not _of(generation, mine):
                continue
            for _, other in living():
                theirs = other.of(Settings)._changed
                if other is not book and name in theirs and theirs[name][0] is mine:
                    theirs[name] = before, theirs[name][1]
            if setting.get() is mine:
                setting.set(before)
        self._changed = {}

    def report(self) -> list[str]:
        """Which they are."""
        return list(self._changed)


def _of(generation: Generation, value: Any) -> bool:
    """Whether ``value``, or its class, is of the generation's code."""
    table = generation.modules
    if table is None or table.closed:
        return False
    return any(belongs(one, table.builtins, table.modules) for one in (value, type(value)))


def _same(one: Any, other: Any) -> bool:
    return one is other or bool(one == other)


def _recording(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return what does as ``function``, and notes that a build has changed the setting ``name``."""
    get = _SETTINGS[name].get

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        settings = building(Settings)
        if settings is None:
            return function(*args, **kwargs)
        try:
            before = get()
        except OSError:  # the working directory is gone
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        finally:
            settings.changed(name, before, get())

    return call


def _wrap(module: ModuleType) -> None:
    for name, setting in _SETTINGS.items():
        for owner, function in setting.by:
            if owner == module.__name__:
                _patches.put(module, function, _recording(vars(module)[function], name))


def _loaded(module: ModuleType) -> None:
    """A module has been imported for the first time, perhaps by a build that changes settings."""
    for _, book in living():
        if book.building:
            book.of(Settings).look(module.__name__)


def install() -> None:
    """Wrap what sets them, and notice modules with settings when they are imported."""
    for name in {owner for setting in _SETTINGS.values() for owner, _ in setting.by}:
        _patches.when_loaded(name, _wrap)
    for name in {setting.module for setting in _SETTINGS.values()} - sys.modules.keys():
        _patches.when_loaded(name, _loaded)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

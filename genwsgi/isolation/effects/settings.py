"""Settings of the process: one value for all code, which a build may change.

All generations share them: what a build sets is in force at once, and stays so after it; no
difference can be seen between a successor that wants the same value and one that wants none.  A
failed build's are set back.  Where the value is an object (an event loop policy), it goes with the
generation that set it, unless another one has set its own since.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.effects.base import Book, Patches, Record, Run, living
from genwsgi.isolation.holders import belongs

log = logging.getLogger("genwsgi")

_patches = Patches()


@dataclass(frozen=True)
class Setting:
    """A value, and how to get and set it.

    :ivar module: the module it needs: not looked at before something else has imported that.
    :ivar held: whether it is an object that may lead to a generation's code.
    """

    get: Callable[[], Any]
    set: Callable[[Any], object]
    module: str = "sys"
    held: bool = False


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
    return str(module.setlocale(module.LC_ALL))


def _set_locale(name: str) -> None:
    module: Any = sys.modules["locale"]
    module.setlocale(module.LC_ALL, name)


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
    "working directory": Setting(os.getcwd, os.chdir),
    "umask": Setting(_umask, os.umask),
    "sys.stdin": _attribute("sys", "stdin", held=True),
    "sys.stdout": _attribute("sys", "stdout", held=True),
    "sys.stderr": _attribute("sys", "stderr", held=True),
    "recursion limit": Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "switch interval": Setting(sys.getswitchinterval, sys.setswitchinterval),
    "locale": Setting(_locale, _set_locale, "locale"),
    "decimal defaults": Setting(_decimals, _set_decimals, "decimal"),
    "garbage collection": Setting(gc.isenabled, _set_collecting),
    "collection thresholds": Setting(gc.get_threshold, lambda was: gc.set_threshold(*was)),
    "log level names": Setting(_level_names, _set_level_names),
    "logging.disable": Setting(lambda: logging.root.manager.disable, logging.disable),
    "logging.raiseExceptions": _attribute("logging", "raiseExceptions"),
    "logging.lastResort": _attribute("logging", "lastResort", held=True),
    "warnings.showwarning": Setting(_showwarning, _set_showwarning, held=True),
    "warnings.formatwarning": _attribute("warnings", "formatwarning", held=True),
    "socket timeout": Setting(
        lambda: sys.modules["socket"].getdefaulttimeout(),
        lambda was: sys.modules["socket"].setdefaulttimeout(was),
        "socket",
    ),
    "event loop policy": _attribute("asyncio.events", "_event_loop_policy", held=True),
    "multiprocessing start method": Setting(
        lambda: _start_context()._actual_context,
        lambda was: setattr(_start_context(), "_actual_context", was),
        "multiprocessing.context",
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
        """Keep the settings of a module as they are now, before the build changes them."""
        for name, setting in _SETTINGS.items():
            if setting.module == module:
                with suppress(OSError):  # the working directory may be gone
                    self._before[name] = setting.get()

    def built(self) -> None:
        """See what has changed."""
        for name, before in self._before.items():
            now = _SETTINGS[name].get()
            if now is not before and now != before:
                self._changed[name] = before, now
        self._before = {}

    def undo(self) -> None:
        """Set it back."""
        for name, (before, _) in self._changed.items():
            try:
                _SETTINGS[name].set(before)
            except Exception:  # the working directory may be gone
                log.exception("%s: the %s could not be set back", self.name, name)
        self._changed = {}

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


def _loaded(module: ModuleType) -> None:
    """A module has been imported for the first time, perhaps by a build that changes settings."""
    for _, book in living():
        if book.building:
            book.of(Settings).look(module.__name__)


def install() -> None:
    """Notice modules with settings when they are imported."""
    for name in {setting.module for setting in _SETTINGS.values()} - sys.modules.keys():
        _patches.when_loaded(name, _loaded)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

"""Modules that are to be changed once somebody imports them, and not to be imported for that.

There is no lock: each step is one operation of a set, and whoever removes an entry acts on it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

#: Is given the module, on the thread that has imported it; must be quick, and not raise.
Act = Callable[[ModuleType], None]

_waiting: set[tuple[str, Act]] = set()


def when_loaded(name: str, act: Act) -> None:
    """Call ``act`` once with the shared module ``name``: now, or as soon as it has been imported.

    Any thread.  That it has been imported is noticed while imports are installed.
    """
    _waiting.add((name, act))
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        loaded(name)


def never_mind(name: str, act: Act) -> bool:
    """Take :func:`when_loaded` back; say whether ``act`` had not been called yet."""
    try:
        _waiting.remove((name, act))
    except KeyError:
        return False
    return True


def loaded(name: str) -> None:
    """A shared module has been imported: do what waits for it."""
    for wanted, act in tuple(_waiting):
        if wanted == name and never_mind(wanted, act):
            act(sys.modules[name])

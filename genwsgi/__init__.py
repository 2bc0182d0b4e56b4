"""Serve a WSGI application and take new code without closing a connection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from genwsgi._version import __version__

if TYPE_CHECKING:
    from genwsgi.app import GenerationalApp
    from genwsgi.hooks import on_handover, on_retire, put_forward, verify
    from genwsgi.keeping import keep

__all__ = [
    "GenerationalApp",
    "__version__",
    "keep",
    "on_handover",
    "on_retire",
    "put_forward",
    "verify",
]

#: Loaded when asked for: the command and the coordinator have no use for these.
_LATER = {
    "GenerationalApp": "genwsgi.app",
    "keep": "genwsgi.keeping",
    "on_handover": "genwsgi.hooks",
    "on_retire": "genwsgi.hooks",
    "put_forward": "genwsgi.hooks",
    "verify": "genwsgi.hooks",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)

"""Serve a WSGI application and take new code without closing a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genwsgi._version import __version__

if TYPE_CHECKING:
    from genwsgi.app import GenerationalApp

__all__ = ["GenerationalApp", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command and the coordinator have no use for it.
    if name == "GenerationalApp":
        from genwsgi.app import GenerationalApp

        return GenerationalApp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A small application to see generations with, of the standard library only.

Run it with ``genwsgi demo_app:create_app``, or without genwsgi as ``python -m demo_app``.
"""

from __future__ import annotations

from demo_app.application import create_app

__all__ = ["create_app"]

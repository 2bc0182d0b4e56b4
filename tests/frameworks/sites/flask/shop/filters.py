"""Filters of templates."""

from __future__ import annotations

VERSION = "v0"


def shout(text):
    """Say it loud, and which code says it."""
    return f"{text.upper()} [filter {VERSION}]"

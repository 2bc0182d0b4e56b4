"""Imported in the middle of a request."""

from __future__ import annotations

VERSION = "v0"


def mark():
    """Which code this is."""
    return f"[late {VERSION}]"

"""The fixtures of everything that builds generations."""

from __future__ import annotations

from tests.isolation.fixtures import site

__all__ = ["site"]

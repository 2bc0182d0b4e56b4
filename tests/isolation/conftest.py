"""The fixtures of everything that builds generations."""

from __future__ import annotations

from tests.isolation.fixtures import site
from tests.isolation.libraries import library

__all__ = ["library", "site"]

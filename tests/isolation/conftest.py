"""The fixtures of everything that builds generations."""

from __future__ import annotations

from tests.isolation.fixtures import site
from tests.isolation.libraries import library
from tests.isolation.tree import tree

__all__ = ["library", "site", "tree"]

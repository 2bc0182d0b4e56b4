"""What a deploy costs, measured."""

from __future__ import annotations

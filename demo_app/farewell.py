"""What a slow request says at its end; imported no earlier than that."""

from __future__ import annotations

from demo_app.greeting import GREETING


def farewell() -> str:
    """Return the words for the end of a request that was greeted with ``GREETING``."""
    return f"{GREETING} and goodbye"

"""What the site is about."""

from __future__ import annotations

VERSION = "v0"


class Note:
    """What somebody wrote."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return f"{self.text} [model {VERSION}]"

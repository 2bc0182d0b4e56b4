"""What to edit to see a deploy: save this file while the page is open in a browser."""

from __future__ import annotations

VERSION = "1"
GREETING = "Hello"
COLOUR = "teal"  # anything that CSS knows: "crimson", "#6a5acd"

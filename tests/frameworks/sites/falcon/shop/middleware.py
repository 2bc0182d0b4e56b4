"""Middleware."""

from __future__ import annotations

VERSION = "v0"


class Stamp:
    """Notes which code has seen the request first."""

    def process_request(self, request, response):
        """Do it."""
        request.context.stamp = f"[middleware {VERSION}]"

"""Middleware."""

from __future__ import annotations

VERSION = "v0"


class Stamp:
    """Tells in a header and to the views which code has run."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        """Pass the request on."""
        request.stamp = f"[middleware {VERSION}]"
        response = self.get_response(request)
        response["X-Stamp"] = VERSION
        return response

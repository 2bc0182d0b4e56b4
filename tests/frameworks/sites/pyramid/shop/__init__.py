"""A shop on Pyramid: a scan for views, a session in a signed cookie, a renderer, a subscriber."""

from __future__ import annotations

from pyramid.config import Configurator
from pyramid.session import SignedCookieSessionFactory

from shop.rendering import Templates


def create_app():
    """Make the application."""
    sessions = SignedCookieSessionFactory("for ever the same")
    with Configurator(session_factory=sessions) as config:
        config.add_renderer(".txt", Templates)
        config.add_route("page", "/")
        config.add_route("login", "/login")
        config.add_route("notes", "/notes")
        config.scan()
        return config.make_wsgi_app()

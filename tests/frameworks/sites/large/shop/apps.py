"""The application's configuration."""

from __future__ import annotations

from django.apps import AppConfig


class Shop(AppConfig):
    """Connects the receivers of signals."""

    name = "shop"

    def ready(self):
        """Import the receivers."""
        from shop import signals

        signals.connect()

"""What pytest needs to know before any test."""

from __future__ import annotations

from hypothesis import settings

from tests.rabbitmq import broker, the_broker

__all__ = ["broker", "the_broker"]

# Machines that run tests are busy: how long an example takes says nothing about the code.
settings.register_profile("genwsgi", deadline=None)
settings.load_profile("genwsgi")

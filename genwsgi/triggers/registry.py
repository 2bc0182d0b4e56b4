"""Finds the triggers that are installed, by their entry points in the group ``genwsgi.triggers``.

An entry point is a function ``make(options, submit, log)`` that returns a :class:`Trigger`, or
``None`` when the options don't ask for one.  ``options`` are genwsgi's options by name, and
``roots``: the folders and files of the application, ``target`` and ``run_dir``.

A trigger with a method ``follow(roots)`` is told when code is imported from other folders: an order
may say so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol

#: Hands in an order: the trigger's name, and what happened, in words for people; then what
#: :meth:`genwsgi.deploy.desk.Desk.submit` takes besides.
Submit = Callable[..., object]


class Trigger(Protocol):
    """Whatever asks for a deploy.  It runs on threads of its own."""

    name: str

    def start(self) -> None:
        """Begin; what happens after the return leads to an order."""

    def stop(self) -> None:
        """End, without waiting."""

    def join(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for its threads to end."""

    def status(self) -> dict[str, object]:
        """How it stands, for the status."""


def make_triggers(options: Mapping[str, Any], submit: Submit, log: logging.Logger) -> list[Trigger]:
    """Make the triggers that ``options`` ask for; one that can't be made is logged and left out."""
    made: list[Trigger] = []
    for entry in sorted(entry_points(group="genwsgi.triggers"), key=lambda entry: entry.name):
        try:
            trigger = entry.load()(options, submit, log)
        except Exception:  # somebody else's code; the others must work all the same
            log.exception("the trigger %s can't be made; its orders will not come", entry.name)
            continue
        if trigger is not None:
            made.append(trigger)
    return made

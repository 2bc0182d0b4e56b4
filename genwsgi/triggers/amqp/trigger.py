"""The broker as one of a server's triggers: its orders become the coordinator's."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from genwsgi.deploy.protocol import OrderOutcome
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import RunDirectoryError
from genwsgi.triggers.amqp.builder import Request, Result
from genwsgi.triggers.amqp.settings import from_options
from genwsgi.triggers.registry import Submit, Trigger

#: The trigger's name in orders.
NAME = "amqp"


class CoordinatorBuilder:
    """Hands requests to the coordinator of this host's server."""

    def __init__(self, submit: Submit, directory: RunDirectory, target: str) -> None:
        self.target = target
        self._submit = submit
        self._directory = directory
        self._committed = 0

    def request(self, request: Request, tell: Callable[[Result], None]) -> None:
        """Hand a request in; the coordinator's thread calls ``tell``."""

        def then(outcome: OrderOutcome) -> None:
            tell(
                Result(
                    outcome.outcome,
                    outcome.release,
                    outcome.generation,
                    outcome.seconds,
                    outcome.reason,
                )
            )

        self._submit(
            NAME,
            request.detail,
            id=request.id,
            path=request.path,
            modules=request.modules,
            hold=request.hold,
            then=then,
        )

    def withdraw(self, order: str, reason: str) -> None:
        """Have the coordinator drop what it prepares or holds for this request."""
        self._submit(NAME, reason, id=order, withdraw=True)

    def committed(self) -> int:
        """The number of the committed release."""
        with contextlib.suppress(RunDirectoryError):
            self._committed = self._directory.committed().number
        return self._committed


def make(options: Mapping[str, Any], submit: Submit, log: logging.Logger) -> Trigger | None:
    """Make what hears the broker that genwsgi's options ask for.

    See :mod:`genwsgi.triggers.registry`.
    """
    settings = from_options(options)
    if settings is None:
        return None
    from genwsgi.triggers.amqp.listener import Listener  # pika, which nobody else needs

    # What pika says of a broker that is away is said in one line here.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    directory = RunDirectory(options["run_dir"])
    return Listener(
        settings,
        CoordinatorBuilder(submit, directory, options.get("target", "")),
        log,
        memory=os.path.join(directory.path, "amqp"),
        server=directory.path,
    )

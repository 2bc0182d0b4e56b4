"""The steps of a deploy as fields of log records, for programs that read the log.

Each step is one record of the logger ``genwsgi``, whose ``extra`` is made here, so that a field has
one name everywhere.  A field that a step does not have is not there.
"""

from __future__ import annotations

import os
from typing import Final

#: The steps, in their order; a deploy that comes to nothing ends with one of the last four.
STEPS: Final = {
    "ordered": "an order was given",
    "read": "its source is read and compiled",
    "built": "a worker has built the generation",
    "verified": "a worker has tried it",
    "ready": "every worker has",
    "swapped": "a worker serves it",
    "committed": "every worker does",
    "retired": "a worker has sent the last response of a replaced generation",
    "collected": "nothing is left of that",
    "failed": "the release before it serves on",
    "refused": "the order may not be obeyed",
    "superseded": "a newer order has taken its place",
    "unchanged": "what is on disk is served already",
}

#: The fields, in the order in which they are written.
FIELDS: Final = ("step", "order", "trigger", "release", "generation", "worker", "seconds")


def step(
    name: str,
    *,
    order: str = "",
    trigger: str = "",
    release: str = "",
    generation: int | None = None,
    seconds: float | None = None,
) -> dict[str, object]:
    """Return the ``extra`` of the record of a step, one of :data:`STEPS`.

    With a ``generation`` it is a worker's step, and has the worker's pid.

    :param release: as the environ has it.
    :param seconds: how long the step took.
    """
    fields = {
        "step": name,
        "order": order,
        "trigger": trigger,
        "release": release,
        "generation": generation,
        "worker": None if generation is None else os.getpid(),
        "seconds": None if seconds is None else round(seconds, 6),
    }
    return {field: value for field, value in fields.items() if value not in ("", None)}

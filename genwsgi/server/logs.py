"""genwsgi's log goes where gunicorn's error log goes."""

from __future__ import annotations

import logging

NAME = "genwsgi"


def join_error_log() -> logging.Logger:
    """Return genwsgi's logger, writing to gunicorn's error log unless it was configured itself."""
    ours, theirs = logging.getLogger(NAME), logging.getLogger("gunicorn.error")
    if not ours.handlers:
        for handler in theirs.handlers:
            ours.addHandler(handler)
        ours.setLevel(theirs.level)
        ours.propagate = theirs.propagate
    return ours

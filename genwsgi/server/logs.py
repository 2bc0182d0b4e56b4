"""genwsgi's log goes where gunicorn's error log goes."""

from __future__ import annotations

import io
import logging

NAME = "genwsgi"


#: What came from gunicorn's error log, which gives itself new handlers when it is set up again.
_joined: list[logging.Handler] = []


def join_error_log() -> logging.Logger:
    """Return genwsgi's logger, writing to gunicorn's error log unless it was configured itself."""
    ours, theirs = logging.getLogger(NAME), logging.getLogger("gunicorn.error")
    if all(handler in _joined for handler in ours.handlers):
        for handler in theirs.handlers:
            _take_any_text(handler)
        _joined[:] = ours.handlers[:] = theirs.handlers
        ours.setLevel(theirs.level)
        ours.propagate = theirs.propagate
    return ours


def _take_any_text(handler: logging.Handler) -> None:
    """Have a log file take what has no UTF-8, as a file's name may: no line is lost to it."""
    if isinstance(handler, logging.FileHandler):
        handler.errors = "backslashreplace"  # for when it is opened again
        if isinstance(handler.stream, io.TextIOWrapper):
            handler.stream.reconfigure(errors=handler.errors)

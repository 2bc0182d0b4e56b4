"""The error log, gunicorn's and genwsgi's, as JSON lines: one object for each record."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from genwsgi.steps import FIELDS


class JSONFormatter(logging.Formatter):
    """Makes one line of JSON from a record.

    ``time`` is in UTC, as RFC 3339 has it.  What a step of a deploy has besides, and
    ``traceback``, are there where the record has them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        line.update((name, vars(record)[name]) for name in FIELDS if name in vars(record))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def with_json(logger_class: Any) -> Any:
    """Return ``logger_class``, gunicorn's or one like it, with an error log of JSON lines."""

    class JSONLogger(logger_class):
        def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
            if log is self.error_log:
                fmt = JSONFormatter()
            super()._set_handler(log, output, fmt, stream)

    JSONLogger.__name__ = f"JSON{logger_class.__name__}"
    return JSONLogger

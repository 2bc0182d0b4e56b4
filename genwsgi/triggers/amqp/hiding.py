"""Keeps a broker's password out of the list of processes, the log and the settings shown."""

from __future__ import annotations

import ctypes
import os
import re
from typing import Final

#: A URL of a broker with a password, up to the password; and the password, to the last "@".  Both
#: are as urllib.parse has them: there may be an "@" in a user's name, and spaces in a password.
_WITH_PASSWORD: Final = re.compile(rb"(?i)(amqps?://[^\0/?#:]*:)([^\0/?#]+)(?=@)")

#: Where in /proc/self/stat the addresses of the command line are, counted from the third field.
_ARG_START: Final = 45
_ARG_END: Final = 46


class HiddenURL(str):
    """A URL that shows no password when it is made text of, and still holds it."""

    __slots__ = ()

    def __str__(self) -> str:
        return without_password(self.reveal())

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def reveal(self) -> str:
        """The URL as it was given."""
        return str.__str__(self)


def without_password(text: str) -> str:
    """Return ``text`` with the passwords of brokers' URLs left out."""
    raw = text.encode("utf-8", "surrogateescape")
    return _WITH_PASSWORD.sub(rb"\1***", raw).decode("utf-8", "surrogateescape")


def hide_from_process_list() -> None:
    """Overwrite passwords of brokers' URLs in this process's command line, as others see it.

    They are seen for the time that a start takes up to here.  What Python has made of the command
    line (``sys.argv``) stays.  To be called by the main thread; a system that gives no access to
    its own memory is left as it is.
    """
    try:
        with open("/proc/self/cmdline", "rb") as file:
            line = file.read()
        with open("/proc/self/stat", "rb") as file:
            # After the name, which may hold anything, and in parentheses.
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, ValueError, IndexError):
        return
    if end - start < len(line) or os.name != "posix":
        return
    for found in _WITH_PASSWORD.finditer(line):
        ctypes.memset(start + found.start(2), ord("*"), len(found[2]))

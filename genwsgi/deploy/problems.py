"""What is wrong with a server now: each thing named once when it begins, and once when it ends.

Pure but for the log.  The status and the metrics read the same frozen list.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import Final

from genwsgi.deploy.framing import clip
from genwsgi.deploy.protocol import Problem

#: The longest text of a problem, in bytes of a frame: a status has to hold all of them.
LONGEST: Final = 1000

#: What can be done where the system has no more of something.
_REMEDIES: Final = {
    errno.EMFILE: "raise `ulimit -n` (LimitNOFILE= of a systemd unit)",
    errno.ENFILE: "raise fs.file-max",
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or raise the quota",
    errno.EROFS: "mount it for writing",
    errno.EAGAIN: "raise `ulimit -u` (TasksMax= of a systemd unit)",
    errno.ENOMEM: "free memory, or raise its limit",
}

#: The errors that say that something of the machine is used up.
NO_MORE: Final = frozenset(_REMEDIES)

#: The errors that say that a process, or the system, has no file descriptors left.
NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


def explained(error: OSError) -> str:
    """Say what the system refuses, and what can be done."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{error.strerror or error}{f'; {remedy}' if remedy else ''}"


class ProblemBook:
    """The problems of one process.  One thread at a time.

    :param pid: the process, if it is a worker.
    :param clock: the time of day, which is for people only.
    """

    def __init__(
        self,
        log: logging.Logger,
        pid: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._pid = pid
        self._clock = clock
        self._open: dict[str, Problem] = {}

    def __repr__(self) -> str:
        return f"<ProblemBook {', '.join(self._open) or 'empty'}>"

    def __contains__(self, name: str) -> bool:
        return name in self._open

    @property
    def now(self) -> tuple[Problem, ...]:
        """What is wrong now, the oldest first."""
        return tuple(self._open.values())

    def begin(self, name: str, text: str, *, logged: bool = False) -> None:
        """Note that ``name`` is wrong; what is known already is not told again.

        :param text: one line: what is wrong, what it costs, what to do.
        :param logged: whoever found it has told the log; its text may change as it goes on.
        """
        known = self._open.get(name)
        if known is not None and (not logged or known.text == clip(text, LONGEST)):
            return
        since = known.since if known is not None else self._clock()
        self._open[name] = Problem(name, clip(text, LONGEST), since, self._pid)
        if not logged:
            self._log.error("%s", text)

    def end(self, name: str, text: str = "") -> None:
        """Note that ``name`` is right again, if it was wrong.

        :param text: one line for the log; empty if whoever found out has told it.
        """
        if self._open.pop(name, None) is not None and text:
            self._log.info("%s", text)

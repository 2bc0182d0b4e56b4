"""What is wrong in one worker, and that it serves, as the host is to know.

The agent's thread, but for the beginning and the end of serving.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import Final

from genwsgi.deploy.descriptors import ENOUGH, FEW, has_spare, shortage
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import Problem, Problems
from genwsgi.deploy.rundir import RunDirectory

#: Between two looks, in seconds.
LOOK: Final = 2.0


class Health:
    """The health of this process, which is a worker.

    :ivar problems: what is wrong in it.
    :ivar due: when to look next, on the monotonic clock.
    """

    def __init__(self, directory: RunDirectory, log: logging.Logger) -> None:
        self._directory = directory
        self._pid = os.getpid()
        self._serves = False
        self._told: tuple[Problem, ...] = ()
        self.problems = ProblemBook(log, self._pid)
        self.due = 0.0

    def begin_serving(self) -> None:
        """Note on the disk that this worker serves; where that can't be done now, at a later look.

        Any thread may call this.
        """
        self._serves = True
        self._note()

    def end_serving(self) -> None:
        """Note that it serves no more.  Any thread may call this."""
        self._serves = False
        self._directory.end_serving(self._pid)

    def look(self) -> None:
        """See how things stand, if it is time."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + LOOK
        if self._serves and not self._directory.serves(self._pid):
            self._note()
        if "descriptors" in self.problems:
            if has_spare(ENOUGH):
                self.problems.end("descriptors", "this worker has file descriptors left again")
        elif not has_spare(FEW):
            self.problems.begin("descriptors", shortage("this worker"))

    def news(self, *, anew: bool = False) -> Problems | None:
        """What the coordinator does not know yet.

        :param anew: it knows nothing: the connection is new.
        """
        known, self._told = () if anew else self._told, self.problems.now
        return Problems(self._told) if self._told != known else None

    def _note(self) -> None:
        # A directory that is gone, or full, is the coordinator's to tell of.
        with contextlib.suppress(OSError):
            self._directory.begin_serving(self._pid)
        if not self._serves:  # it has ended on another thread, just before that was noted
            self._directory.end_serving(self._pid)

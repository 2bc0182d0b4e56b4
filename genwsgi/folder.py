"""The folder of one process's snapshots: made, held while it is needed, and removed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from typing import Final

from genwsgi.deploy.rundir import hold

#: A folder that nobody holds is left over if it is older than this, in seconds: it may be new.
LEFT: Final = 60.0


class Folder:
    """A temporary folder of this process, made after those are removed that others left behind.

    A process that is killed, as programs without a handler for SIGTERM are, removes nothing.

    :param prefix: what the names of such folders, and of no others, begin with.
    :ivar path: where it is.
    :raises OSError: it can't be made.
    """

    def __init__(self, prefix: str) -> None:
        base = tempfile.gettempdir()
        for entry in os.listdir(base):
            if entry.startswith(prefix):
                _remove_if_left(os.path.join(base, entry))
        self.path = tempfile.mkdtemp(prefix=prefix, dir=base)
        self._pid = os.getpid()
        # The lock ends with this process, and not before that of a forked child.
        self._held: int | None = hold(self.path)
        atexit.register(self.remove)

    def remove(self) -> None:
        """Remove it, as the end of the process does.  Any thread, any number of times.

        Not in a child that was forked: the parent still needs it.
        """
        if os.getpid() != self._pid:
            return
        atexit.unregister(self.remove)
        shutil.rmtree(self.path, ignore_errors=True)
        held, self._held = self._held, None
        if held is not None:
            os.close(held)


def _remove_if_left(folder: str) -> None:
    try:
        found = os.lstat(folder)
        if found.st_uid != os.geteuid() or found.st_mtime > time.time() - LEFT:
            return
        descriptor = hold(folder)
    except OSError:  # held, or gone
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)

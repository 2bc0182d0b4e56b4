"""The folder of one process's snapshots: made, held while it is needed, and removed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from typing import Final

from genwsgi.deploy.rundir import hold

#: What such folders' names begin with.
PREFIX: Final = "genwsgi-hotupdate-"

#: A folder that nobody holds is left over if it is older than this, in seconds: it may be new.
LEFT: Final = 60.0


def make_folder() -> str:
    """Make a folder that goes with this process, and remove those that others left behind.

    A process that is killed, as programs without a handler for SIGTERM are, removes nothing.
    """
    base = tempfile.gettempdir()
    for entry in os.listdir(base):
        if entry.startswith(PREFIX):
            _remove_if_left(os.path.join(base, entry))
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=base)
    # Never closed: the lock is to end with the process, and not before that of a forked child.
    hold(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


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


def _remove(folder: str, pid: int) -> None:
    # A child that was forked has the same callbacks, and its parent still needs the folder.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)

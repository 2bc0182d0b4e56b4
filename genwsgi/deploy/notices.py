"""Where the servers of a host are found by those who were not told where they are.

A server without ``--run-dir`` has its run directory among the user's run-time files, under a name
that says so.  One that was given another place leaves a *notice* there instead: a folder of such a
name, which holds nothing but a link to that place.  Like the run directory, a notice is held for as
long as the server lives, so that no cleaner of temporary files takes it away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from typing import Final

from genwsgi.deploy.rundir import PREFIX, hold, runtime_folder

_LINK: Final = "at"


def bases() -> list[str]:
    """Every folder in which this user's servers may be, whatever environment they were given."""
    folders = [os.environ.get("XDG_RUNTIME_DIR") or "", f"/run/user/{os.geteuid()}"]
    with contextlib.suppress(FileNotFoundError):  # none can be written, so none has a server
        folders.append(tempfile.gettempdir())
    return list({os.path.realpath(path): path for path in folders if os.path.isdir(path)}.values())


class Notice:
    """Says where the run directory ``path`` is.

    :param uid, gid: the user the workers run as, who may look for it too.
    :raises RunDirectoryError: no folder is there for it.
    """

    def __init__(self, path: str, uid: int, gid: int) -> None:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
        self.folder = os.path.join(runtime_folder(uid), PREFIX + name)
        self._path = path
        self._owner = uid, gid

    def put_up(self) -> None:
        """Leave the notice, or take over the one of a server that was killed.

        It is a convenience: whatever is in its way, the server serves without it.
        """
        _sweep(os.path.dirname(self.folder))
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            # By its descriptor, or somebody could put another folder in its place meanwhile.  The
            # workers inherit it: as with the run directory, it is held until the last has ended.
            descriptor = hold(self.folder)
            found = os.fstat(descriptor)
            if found.st_uid not in {os.geteuid(), self._owner[0]} or found.st_mode & 0o077:
                os.close(descriptor)
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_LINK, dir_fd=descriptor)
            os.symlink(self._path, _LINK, dir_fd=descriptor)
            if os.geteuid() != self._owner[0]:
                os.chown(_LINK, *self._owner, dir_fd=descriptor, follow_symlinks=False)
                os.fchown(descriptor, *self._owner)

    def take_down(self) -> None:
        """Remove the notice: the server is gone."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, _LINK))
            os.rmdir(self.folder)


def _sweep(folder: str) -> None:
    """Remove the notices in ``folder`` that nobody holds: those of servers that were killed."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            path = os.path.join(folder, entry)
            if not entry.startswith(PREFIX) or not os.path.islink(os.path.join(path, _LINK)):
                continue
            with contextlib.suppress(OSError):  # held, or somebody else's
                descriptor = hold(path)
                with contextlib.suppress(OSError):
                    os.unlink(_LINK, dir_fd=descriptor)
                    os.rmdir(path)
                os.close(descriptor)


def places() -> Iterator[str]:
    """Where run directories may be: whether they are, and whose, is for the caller to see."""
    for folder in bases():
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(folder)):
                if entry.startswith(PREFIX):
                    path = os.path.join(folder, entry)
                    try:
                        yield os.readlink(os.path.join(path, _LINK))
                    except OSError:
                        yield path

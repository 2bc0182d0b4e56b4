"""The run directory: what the processes of one server on one host share on disk.

::

    lock               held by the master for as long as any process of the server lives; says who
                       that is, and what is served
    committed          the committed release; renamed into place, which is the commit point
    store/             the snapshots
    serving/<pid>      one empty file for each worker that serves requests
    orders             orders that were accepted and have no outcome yet
    releases           what was committed before, and can be gone back to
    paused             that automatic orders are not taken, and why
    restart            that the master is to replace the workers
    amqp               which orders came by a broker, and how they ended
    coordinator.sock   where agents and clients meet the coordinator

It belongs to the user the workers run as, and to nobody else: whoever can write here decides what
code the server runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

from genwsgi.deploy import framing
from genwsgi.deploy.control import Pause
from genwsgi.deploy.protocol import Release
from genwsgi.errors import ProtocolError, RunDirectoryError

#: The longest path that a unix socket can have, with its final zero byte (unix(7)).
_SOCKET_PATH_MAX = 108

#: What the names of run directories begin with that were given none.
PREFIX: Final = "genwsgi-"

_FILES = frozenset(
    {"committed", "orders", "releases", "paused", "restart", "amqp", "coordinator.sock"}
)
_FOLDERS = frozenset({"store", "serving"})
_UNFINISHED = ".new"


class RunDirectory:
    """The run directory at ``path``.  Every method may be called by any thread of any process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.store = os.path.join(path, "store")
        self.socket = os.path.join(path, "coordinator.sock")
        self.lock = os.path.join(path, "lock")
        self._committed = os.path.join(path, "committed")
        self._serving = os.path.join(path, "serving")
        self._orders = os.path.join(path, "orders")
        self._releases = os.path.join(path, "releases")
        self._paused = os.path.join(path, "paused")
        self._restart = os.path.join(path, "restart")
        #: The master's pid of the server that has left the directory behind, if one has.
        self.left_by: int | None = None
        # The descriptors that hold the lock and the folder, in the master.
        self._held: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<RunDirectory {self.path}>"

    @classmethod
    def create(
        cls, path: str | None = None, uid: int | None = None, serves: str = ""
    ) -> RunDirectory:
        """Make the directory, or take over what a server that is gone has left.

        :param path: ``None`` for a new private folder among the run-time files.
        :param uid: who else it may belong to: the user the workers run as.
        :param serves: the target, for people.
        :raises RunDirectoryError: it belongs to somebody else, is open to others, holds something
            else, is in use by a living server, its path is too long for a socket, or it can't be
            written.
        """
        if path is None:
            base = runtime_folder(uid)
            try:
                path = tempfile.mkdtemp(prefix=PREFIX, dir=base)
            except OSError as error:
                raise RunDirectoryError(base, f"can't be written: {error.strerror}") from error
        path = os.path.abspath(path)
        directory = cls(path)
        if len(os.fsencode(directory.socket)) >= _SOCKET_PATH_MAX:
            raise RunDirectoryError(path, "is too long a path for a socket; choose a shorter one")
        directory.left_by = directory.server()[0]
        directory._claim(uid, serves)
        directory._clear()
        directory.make_folders()
        return directory

    def restore(self, uid: int, gid: int, serves: str) -> None:
        """Make again, and lock, what somebody has deleted under the running server.  The master's.

        What was in it is for the coordinator and the workers to write once more.

        :param uid, gid: whom it is to belong to.
        :raises RunDirectoryError: as :meth:`create`.
        """
        self._claim(uid, serves)
        self.make_folders()
        self.give_to(uid, gid)

    def is_held(self) -> bool:
        """Whether the path still leads to the lock that this process holds."""
        try:
            found = os.stat(self.lock, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._held[self.lock]))

    def _claim(self, uid: int | None, serves: str) -> None:
        """Make the directory unless it is there, and lock it."""
        try:
            os.mkdir(self.path, mode=0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise RunDirectoryError(self.path, f"can't be made: {error.strerror}") from error
        self.check(uid)
        if os.geteuid() == 0:
            # Until give_to() nobody else may put anything here: what is written is written as root.
            os.chown(self.path, 0, -1, follow_symlinks=False)
        self._lock(serves)

    def make_folders(self) -> None:
        """Make the folders in it that are not there.

        :raises RunDirectoryError: they can't be made.
        """
        for folder in (self._serving, self.store):
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError as error:
                reason = f"can't be written: {error.strerror}"
                raise RunDirectoryError(self.path, reason) from error

    def give_to(self, uid: int, gid: int) -> None:
        """Make everything in it belong to the user the workers run as, if that is another one."""
        if uid == os.geteuid():
            return
        for folder, folders, files in os.walk(self.path):
            for name in (os.curdir, *folders, *files):
                os.chown(os.path.join(folder, name), uid, gid, follow_symlinks=False)

    def check(self, uid: int | None = None) -> None:
        """See that it may be written into.

        :param uid: who else it may belong to.
        :raises RunDirectoryError: it belongs to somebody else, is open to others, or holds
            something else.
        """
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode):
            raise RunDirectoryError(self.path, "is not a directory")
        if found.st_uid not in {os.geteuid(), uid}:
            raise RunDirectoryError(self.path, f"belongs to user {found.st_uid}, not to this one")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise RunDirectoryError(
                self.path, f"is open to others (mode {mode:03o}); chmod 700 it or choose another"
            )
        # Whatever is in it is removed: it had better be ours.
        own = {"lock", *_FILES, *_FOLDERS, *(name + _UNFINISHED for name in _FILES)}
        foreign = sorted(set(os.listdir(self.path)) - own)
        if foreign:
            raise RunDirectoryError(
                self.path, f"holds something else ({foreign[0]}); choose an empty or a new one"
            )

    def _lock(self, serves: str) -> None:
        # The workers inherit the descriptors with their locks: a directory is free only when the
        # last process that could still use it is gone.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.lock, flags, 0o600)
        except OSError as error:
            raise RunDirectoryError(self.path, f"can't be locked: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._hold_folder()
        except BlockingIOError:
            os.close(descriptor)
            owner = self.server()[0] or "unknown"
            raise RunDirectoryError(
                self.path, f"is in use by a running server (pid {owner}); stop it or choose another"
            ) from None
        self._keep(self.lock, descriptor)
        about = f"{os.getpid()}\n{serves}".rstrip() + "\n"
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, about.encode("utf-8", "surrogateescape"), 0)
        except OSError as error:
            raise RunDirectoryError(self.path, f"can't be written: {error.strerror}") from error

    def _hold_folder(self) -> None:
        """Hold the folder itself, unless it is the one that is held already."""
        known = self._held.get(self.path)
        if known is None or not os.path.samestat(os.stat(self.path), os.fstat(known)):
            self._keep(self.path, hold(self.path))

    def _keep(self, path: str, descriptor: int) -> None:
        """Hold ``path`` from now on by ``descriptor``, and no more by that of what was there."""
        before = self._held.get(path)
        self._held[path] = descriptor
        if before is not None:
            os.close(before)

    def server(self) -> tuple[int | None, str]:
        """The master's pid and the target of the server that made the directory, gone or not.

        ``None`` and nothing where they have not been written yet, or can't be read.
        """
        try:
            with open(self.lock, encoding="utf-8", errors="replace") as file:
                pid, _, serves = file.read(4096).partition("\n")
        except OSError:
            return None, ""
        # No larger than any pid can be (proc(5)), or the system would stumble over it.
        return int(pid) if pid.isdecimal() and len(pid) < 8 else None, serves.strip()

    def _clear(self) -> None:
        """Remove what a server has put here, but for the lock."""
        for name in _FOLDERS:
            place = os.path.join(self.path, name)
            if os.path.islink(place):
                os.unlink(place)  # rmtree() lets it be, and what we write would go where it leads
            else:
                shutil.rmtree(place, ignore_errors=True)
        for name in _FILES:
            for leftover in (name, name + _UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, leftover))

    def remove(self) -> None:
        """Remove the directory: the server is gone.  What others have put there stays."""
        with contextlib.suppress(OSError):
            self._clear()
            os.unlink(self.lock)
            os.rmdir(self.path)

    def committed(self) -> Release:
        """Return the committed release.

        :raises RunDirectoryError: it can't be read.
        """
        try:
            with open(self._committed, encoding="utf-8") as file:
                fields = json.load(file)
            lists = {name: tuple(fields.get(name, ())) for name in ("path", "aside")}
            return Release(**{**fields, **lists})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RunDirectoryError(self.path, f"the committed release is lost: {error}") from error

    def record(self, release: Release) -> None:
        """Make ``release`` the committed one: the commit point of a deploy.

        :raises OSError: it could not be written, and the old one still is the committed release.
        """
        _replace(self._committed, json.dumps(asdict(release)))

    def is_whole(self) -> bool:
        """Whether everything is there that has to be while a server runs, but for the socket."""
        return os.path.exists(self._committed) and os.path.isdir(self._serving)

    def try_to_write(self, size: int) -> None:
        """See whether a file of ``size`` bytes could be written.

        :raises OSError: it could not.
        """
        trial = self._orders + _UNFINISHED
        try:
            with open(trial, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(trial)

    def serving(self) -> frozenset[int]:
        """The pids of the workers that serve requests."""
        with contextlib.suppress(OSError):
            return frozenset(int(entry) for entry in os.listdir(self._serving) if entry.isdigit())
        return frozenset()

    def begin_serving(self, pid: int) -> None:
        """Say that the worker ``pid`` serves requests from now on."""
        with open(os.path.join(self._serving, str(pid)), "w", encoding="ascii"):
            pass

    def end_serving(self, pid: int) -> None:
        """Say that the worker ``pid`` is gone."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._serving, str(pid)))

    def serves(self, pid: int) -> bool:
        """Whether the worker ``pid`` has said that it serves requests."""
        return os.path.exists(os.path.join(self._serving, str(pid)))

    def first(self, event: str) -> bool:
        """Whether ``event`` has not been marked before; it is now.  One caller gets ``True``.

        More than one does where it can't be marked, on a disk that is full.
        """
        try:
            os.close(os.open(self._mark(event), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        except OSError:
            pass
        return True

    def happened(self, event: str) -> bool:
        """Whether ``event`` has been marked with :meth:`first`."""
        return os.path.exists(self._mark(event))

    def _mark(self, event: str) -> str:
        return os.path.join(self._serving, f"event-{event}")

    def orders(self) -> list[dict[str, object]]:
        """The orders that a coordinator had accepted and not ended when it died."""
        try:
            with open(self._orders, encoding="utf-8") as file:
                found: list[dict[str, object]] = json.load(file)
        except (OSError, ValueError):
            return []
        return found

    def keep_orders(self, orders: list[dict[str, object]]) -> None:
        """Write down the orders that have no outcome yet.

        :raises OSError: they could not be written.
        """
        _replace(self._orders, json.dumps(orders))

    def releases(self) -> list[Release]:
        """The releases that were committed before and are kept, oldest first."""
        try:
            with open(self._releases, "rb") as file:
                return [framing.read(Release, line) for line in file.read().splitlines()]
        except (OSError, ProtocolError):
            return []

    def keep_releases(self, releases: Iterable[Release]) -> None:
        """Write down the releases that are kept.

        :raises OSError: they could not be written.
        """
        _replace(self._releases, "".join(json.dumps(asdict(one)) + "\n" for one in releases))

    def paused(self) -> Pause | None:
        """Why automatic orders are not taken; ``None``: they are."""
        try:
            with open(self._paused, "rb") as file:
                return framing.read(Pause, file.read())
        except FileNotFoundError:
            return None
        except (OSError, ProtocolError) as error:
            return Pause(f"somebody ({error})", 0.0)

    def pause(self, pause: Pause | None) -> None:
        """Take no automatic orders, or take them again.

        :raises OSError: that could not be written down.
        """
        if pause is not None:
            _replace(self._paused, json.dumps(asdict(pause)))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._paused)

    def ask_restart(self) -> None:
        """Ask the master to replace the workers.

        :raises OSError: it can't be asked.
        """
        _replace(self._restart, "")

    def take_restart(self) -> bool:
        """Whether the master was asked to replace the workers; it is not any more."""
        try:
            os.unlink(self._restart)
        except OSError:
            return False
        return True


def _replace(path: str, text: str) -> None:
    temporary = path + _UNFINISHED
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):  # half of it, on a disk that is full, helps nobody
            os.unlink(temporary)
        raise


def runtime_folder(uid: int | None = None) -> str:
    """The folder for run-time files: the user's own, or else that of temporary files.

    :param uid: whose the files will be; this process's user unless given.
    """
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own and os.access(own, os.W_OK) and uid in (None, os.geteuid()):
        return own
    return tempfile.gettempdir()


def hold(folder: str) -> int:
    """Lock ``folder`` itself, which tells cleaners of temporary files to keep out (tmpfiles.d(5)).

    :returns: the descriptor; the lock ends when it is closed, here and in all forked processes.
    :raises BlockingIOError: somebody else holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a unix socket, as the kernel vouches for it (unix(7))."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    return int(struct.unpack("3i", credentials)[1])

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
import errno
import fcntl
import os
import shutil
import socket
import stat
import struct
import tempfile
from typing import Final

from genwsgi.deploy.problems import NO_MORE
from genwsgi.deploy.records import UNFINISHED, Records
from genwsgi.errors import RunDirectoryError

#: The longest path that a unix socket can have, with its final zero byte (unix(7)).
_SOCKET_PATH_MAX = 108

#: What the names of run directories begin with that were given none.
PREFIX: Final = "genwsgi-"

_FILES = frozenset(
    {"committed", "orders", "releases", "paused", "restart", "amqp", "coordinator.sock"}
)
_FOLDERS = frozenset({"store", "serving"})


class RunDirectory(Records):
    """The run directory at ``path``.

    Who makes it, holds it and removes it is the master; what is written in it is :class:`Records`'.
    Every method may be called by any thread of any process.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.store = os.path.join(path, "store")
        self.socket = os.path.join(path, "coordinator.sock")
        self.lock = os.path.join(path, "lock")
        #: The master's pid of the server that has left the directory behind, if one has.
        self.left_by: int | None = None
        # The master of the server that this process belongs to, once it is known.
        self._master: int | None = None
        # The descriptors that hold the lock and the folder, in the master.
        self._held: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<RunDirectory {self.path}>"

    @classmethod
    def create(
        cls, path: str | None = None, uid: int | None = None, serves: str = ""
    ) -> RunDirectory:
        """Make the directory, or take over what a server that is gone has left.

        :param path: ``None`` for a new private folder among the run-time files, from which those
            are removed that killed servers have left.
        :param uid: who else it may belong to: the user the workers run as.
        :param serves: the target, for people.
        :raises RunDirectoryError: it belongs to somebody else, is open to others, holds something
            else, is in use by a living server, its path is too long for a socket, or it can't be
            written.
        """
        if path is None:
            _remove_left_over(runtime_folder(uid), uid)
            path = private_folder(uid)
        path = os.path.abspath(path)
        directory = cls(path)
        if len(os.fsencode(directory.socket)) >= _SOCKET_PATH_MAX:
            raise RunDirectoryError(path, "is too long a path for a socket; choose a shorter one")
        directory.left_by = directory.server()[0]
        directory._claim(uid, serves)
        directory._clear()
        # One that is still there is somebody's who goes on filling it, and may lead anywhere.
        directory.make_folders(anew=True)
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
            return os.path.samestat(found, os.fstat(self._held[self.lock]))
        except (OSError, KeyError):
            return False

    def join(self) -> None:
        """This process belongs to the server that has the directory now.  Its master does so."""
        self._master = self.server()[0]

    def is_ours(self) -> bool:
        """Whether the server that this process belongs to has the directory.

        Somebody may have deleted it, and started another server in its place.

        :raises OSError: as :meth:`server`.
        """
        return self._master is None or self.server()[0] == self._master

    def guard(self) -> None:
        """See that what is to be written is still this server's to write.

        :raises OSError: the directory is another server's now, or gone.
        """
        if not self.is_ours():
            raise FileNotFoundError(
                errno.ENOENT, "it was deleted, and is not this server's any more", self.path
            )

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
            self.check()  # that user could put another in its place until now
        self._lock(serves)

    def make_folders(self, *, anew: bool = False) -> None:
        """Make the folders in it that are not there.

        :param anew: none may be there.
        :raises RunDirectoryError: they can't be made.
        """
        for folder in (self._serving, self.store):
            try:
                os.makedirs(folder, mode=0o700, exist_ok=not anew)
            except OSError as error:
                reason = f"can't be written: {error.strerror}"
                raise RunDirectoryError(self.path, reason) from error

    def give_to(self, uid: int, gid: int) -> None:
        """Make everything in it belong to the user the workers run as, if that is another one.

        That user may have been here before, and may put a link in the place of a folder at any
        moment: so no folder is looked for by its path, and the first is given last.
        """
        if uid == os.geteuid():
            return
        top = self._held[self.path]
        for _, folders, files, folder in os.fwalk(os.curdir, topdown=False, dir_fd=top):
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        os.chown(top, uid, gid)

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
        own = {"lock", *_FILES, *_FOLDERS, *(name + UNFINISHED for name in _FILES)}
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
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            owner = self.server()[0] or "unknown"
            raise RunDirectoryError(
                self.path, f"is in use by a running server (pid {owner}); stop it or choose another"
            ) from None
        before = self._held.get(self.lock)
        began = os.fstat(before).st_mtime_ns if before is not None else None
        self._keep(self.lock, descriptor)
        self._master = os.getpid()
        about = f"{os.getpid()}\n{serves}".rstrip() + "\n"
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, about.encode("utf-8", "surrogateescape"), 0)
            if began is not None:  # its time says since when the server runs
                os.utime(descriptor, ns=(began, began))
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

    def _let_go(self) -> None:
        """Hold nothing any more."""
        while self._held:
            os.close(self._held.popitem()[1])

    def server(self) -> tuple[int | None, str]:
        """The master's pid and the target of the server that made the directory, gone or not.

        ``None`` and nothing where they have not been written yet, or can't be read.

        :raises OSError: the system has no descriptor, or no memory, to look with.
        """
        try:
            with open(self.lock, encoding="utf-8", errors="replace", opener=_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None, ""
                pid, _, serves = file.read(4096).partition("\n")
        except OSError as error:
            if error.errno in NO_MORE:
                raise
            return None, ""
        # No larger than any pid can be (proc(5)), or the system would stumble over it.
        return int(pid) if pid.isdecimal() and len(pid) < 8 else None, serves.strip()

    def _clear(self) -> None:
        """Remove what a server has put here, but for the lock."""
        # Where the path leads its owner decides, who may be another user than the one that removes.
        held = f"/proc/self/fd/{self._held[self.path]}"
        for name in _FOLDERS:
            place = os.path.join(held, name)
            if os.path.islink(place):
                os.unlink(place)  # rmtree() lets it be, and what we write would go where it leads
            else:
                shutil.rmtree(place, ignore_errors=True)
        for name in _FILES:
            for leftover in (name, name + UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(held, leftover))

    def remove(self) -> None:
        """Remove the directory: the server is gone.  What others have put there stays.

        Only if it still is the one that this process holds, and then holds no more.
        """
        if not self.is_held():
            return
        with contextlib.suppress(OSError):
            self._clear()
            os.unlink(os.path.basename(self.lock), dir_fd=self._held[self.path])
            os.rmdir(self.path)
        self._let_go()


def _remove_left_over(base: str, uid: int | None) -> None:
    """Remove the directories without a name that nobody will take over."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(base):
            directory = RunDirectory(os.path.join(base, entry))
            # One that is just being made has no pid yet.
            if not entry.startswith(PREFIX) or directory.server()[0] is None:
                continue
            try:
                directory.check(uid)
                directory._lock("")
                directory.remove()
            except RunDirectoryError:
                pass  # it is in use, or not ours
            finally:
                directory._let_go()


def _at_once(path: str, flags: int) -> int:
    """Open ``path``, which may be anybody's, without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def runtime_folder(uid: int | None = None) -> str:
    """The folder for run-time files: the user's own, or else that of temporary files.

    :param uid: whose the files will be; this process's user unless given.
    :raises RunDirectoryError: no folder of temporary files can be written.
    """
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own and os.access(own, os.W_OK) and uid in (None, os.geteuid()):
        return own
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        reason = "can't be written, nor any other folder of temporary files; set TMPDIR to one"
        raise RunDirectoryError(os.environ.get("TMPDIR", "/tmp"), reason) from error


def private_folder(uid: int | None = None) -> str:
    """Make a folder of its own among the run-time files, and return its path.

    :param uid: whose files it is for; this process's user unless given.  It belongs to this one.
    :raises RunDirectoryError: it can't be made.
    """
    base = runtime_folder(uid)
    try:
        return tempfile.mkdtemp(prefix=PREFIX, dir=base)
    except OSError as error:
        raise RunDirectoryError(base, f"can't be written: {error.strerror}") from error


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
    return _credentials(connection)[1]


def peer_pid(connection: socket.socket) -> int:
    """The process that has connected a unix socket, as the kernel vouches for it (unix(7))."""
    return _credentials(connection)[0]


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", found)
    return pid, uid, gid

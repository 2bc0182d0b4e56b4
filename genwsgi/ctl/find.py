"""Which server is meant: the one of a run directory, of a pid file, or the only one of this user.

A directory is believed to be a server's if it belongs to this user, or this user is root, and if it
is open to nobody else; then whoever wrote into it may give orders to the server anyway.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from genwsgi.deploy.notices import places
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import ServerNotFound


@dataclass(frozen=True)
class Server:
    """A server of this host.

    :ivar pid: its master's.
    :ivar serves: the target.
    :ivar run_dir: its run directory.
    :ivar since: when it began, in wall-clock seconds since the epoch.
    """

    pid: int
    serves: str
    run_dir: str
    since: float

    @property
    def directory(self) -> RunDirectory:
        """Its run directory."""
        return RunDirectory(self.run_dir)


def choose(run_dir: str | None = None, pid_file: str | None = None) -> Server:
    """Return the server that is meant.

    :param run_dir: its run directory, if that is given.
    :param pid_file: the file with its master's pid (gunicorn's ``--pid``), if that is given.
    :raises ServerNotFound: there is none, or it can't be told which of several.
    """
    if run_dir is not None:
        return at(run_dir)
    servers = running()
    if pid_file is not None:
        pid = _pid_in(pid_file)
        for server in servers:
            if server.pid == pid:
                return server
        raise ServerNotFound(
            f"{pid_file}: process {pid} is no server of this user that genwsgi runs; is it another "
            "user's? Then name its directory with --run-dir"
        )
    if not servers:
        raise ServerNotFound("no server of this user runs; start one, or name it with --run-dir")
    if len(servers) > 1:
        raise ServerNotFound(f"{len(servers)} servers run; choose one with --run-dir", servers)
    return servers[0]


def running() -> list[Server]:
    """Return every server that runs and is this user's, the oldest first."""
    found: dict[str, Server] = {}
    for place in places():
        try:
            server = at(place)
        except ServerNotFound:
            continue  # left over, somebody else's, or not a server's at all
        # Root may give orders to all, and is asked only about those that root has started.
        if _owner(f"/proc/{server.pid}") == os.geteuid() or os.geteuid() != 0:
            found[os.path.realpath(place)] = server
    return sorted(found.values(), key=lambda server: (server.since, server.pid))


def at(run_dir: str) -> Server:
    """Return the server of a run directory.

    :raises ServerNotFound: it is not to be believed, or no server runs there any more.
    """
    directory = RunDirectory(os.path.abspath(run_dir))
    path = directory.path
    try:
        found, lock = os.lstat(path), os.lstat(directory.lock)
    except FileNotFoundError:
        raise ServerNotFound(f"{path} is no run directory: no server has been there") from None
    except OSError as error:
        raise ServerNotFound(f"{path} can't be looked at: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or not stat.S_ISREG(lock.st_mode):
        raise ServerNotFound(f"{path} is no run directory")
    if os.geteuid() not in {0, found.st_uid}:
        raise ServerNotFound(
            f"{path} belongs to user {found.st_uid}; only that user or root may ask"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ServerNotFound(
            f"{path} is not to be believed: open to others (mode {mode:03o}); chmod 700 it"
        )
    pid, serves = directory.server()
    if pid is None or not _holds(pid, lock):
        shown = "" if pid is None else f" (pid {pid})"
        raise ServerNotFound(
            f"{path} is left over: the server{shown} that used it does not run; start it again "
            "with the same --run-dir, or remove the directory"
        )
    return Server(pid, serves, path, lock.st_mtime)


def _holds(pid: int, lock: os.stat_result) -> bool:
    """Whether process ``pid`` lives, and has locked the file whose status is ``lock``.

    Only looked at and never tried: a lock that is tried, if only for an instant, could keep a
    server from starting.
    """
    if not os.path.exists(f"/proc/{pid}"):
        return False
    try:
        with open("/proc/locks", encoding="ascii") as file:
            return any(_is_lock(line.split(), pid, lock.st_ino) for line in file)
    except OSError:
        return True


def _is_lock(words: list[str], pid: int, inode: int) -> bool:
    """Whether a line of /proc/locks (proc(5)) is of that process and that file.

    The device is not compared: file systems above others (overlayfs) show another one there.
    """
    return words[1] == "FLOCK" and words[4] == str(pid) and words[5].endswith(f":{inode}")


def _pid_in(path: str) -> int:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(64).strip()
    except OSError as error:
        raise ServerNotFound(f"{path} can't be read: {error.strerror}") from error
    if not text.isdecimal():
        raise ServerNotFound(f"{path} holds no pid; give the file that --pid of genwsgi names")
    return int(text)


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None

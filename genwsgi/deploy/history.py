"""How the latest orders ended, in a file that outlives the server: one JSON object in each line.

The file belongs to an application (its target and where it is served from), not to a server.  Only
coordinators write it: anew as a whole, under another name, so a reader never sees half of it; and
one after the other, for several of them may have taken up the same change at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from genwsgi.deploy import framing
from genwsgi.deploy.control import HistoryEntry
from genwsgi.deploy.framing import clip
from genwsgi.deploy.problems import ProblemBook
from genwsgi.deploy.protocol import OrderOutcome, Outcome, Release
from genwsgi.errors import ProtocolError

#: How many entries there are at most.
LENGTH: Final = 50

#: The room that one text of an entry may take, in bytes: an answer has to hold all of them.
_LONGEST: Final = 2000

#: The room that a line may take, in bytes, for the same reason.
_LONGEST_LINE: Final = framing.MAX_FRAME // (LENGTH + 1)

#: The end of the last year that has four digits, in seconds since the epoch.
_LAST_TIME: Final = 253402300799

_PROBLEM: Final = "history"

#: How long to wait until another coordinator has written, and between two looks, in seconds.
_PATIENCE: Final = 0.2
_LOOK: Final = 0.002


def state_folder(asked: str | None, target: str, folder: str, *, shared: bool = False) -> str:
    """Where the state of an application is kept.

    The first of these that is given: ``asked`` (``--state-dir``), ``STATE_DIRECTORY``
    (systemd.exec(5)), ``XDG_STATE_HOME`` (the XDG Base Directory Specification); else it is in this
    user's home.

    :param target, folder: what is served, and from where.
    :param shared: the workers are another user, who can't get at this one's home.
    """
    name = re.sub(r"\W+", "-", target).strip("-")[:40]
    unique = hashlib.sha256(os.fsencode(f"{os.path.realpath(folder)}\0{target}")).hexdigest()[:8]
    # With several directories, systemd separates them by colons.
    base = asked or os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not base:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        base = os.path.join("/var/lib" if shared else home, "genwsgi")
    return os.path.join(os.path.abspath(base), f"{name}-{unique}")


def give_state(folder: str, uid: int, gid: int) -> None:
    """Make the folder of the state for another user, if this one can; else a problem will tell."""
    with contextlib.suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chown(folder, uid, gid, follow_symlinks=False)


class History:
    """The latest entries, here and on disk.  One thread at a time.

    A disk that can't be written costs the memory beyond this process and not the deploys: that is
    a problem, for the log and the status.

    :param folder: where the file is; made when it is first written.  None: nowhere.
    """

    def __init__(self, folder: str | None, problems: ProblemBook, log: logging.Logger) -> None:
        self._path = os.path.join(folder, "history") if folder is not None else None
        self._problems = problems
        self._log = log
        self._entries = self._read()

    def latest(self, count: int = LENGTH) -> tuple[HistoryEntry, ...]:
        """The latest ``count`` entries, the latest first."""
        return self._entries[: -count - 1 : -1]

    def begin(self, release: Release) -> None:
        """Note what the server was started with, unless that was noted before."""
        entry = HistoryEntry(
            time=release.created,
            order="",
            trigger=release.trigger,
            detail=clip(release.detail, _LONGEST),
            outcome=Outcome.COMMITTED,
            reason="",
            seconds=0.0,
            release=release.number,
            digest=release.digest,
            path=release.path,
            generation=None,
        )
        if release.number == 1 and entry not in self._entries:
            self._add(entry)

    def add(
        self, outcome: OrderOutcome, trigger: str, detail: str, release: Release | None, now: float
    ) -> None:
        """Note how an order ended.

        :param release: what it was about, if it was committed.
        :param now: the time of day, in seconds since the epoch.
        """
        self._add(
            HistoryEntry(
                time=now,
                order=outcome.id,
                trigger=trigger,
                detail=clip(detail, _LONGEST),
                outcome=outcome.outcome,
                reason=clip(outcome.reason, _LONGEST),
                seconds=outcome.seconds,
                release=outcome.release,
                digest=release.digest if release is not None else "",
                path=release.path if release is not None else (),
                generation=outcome.generation,
            )
        )

    def outcome(self, order: str) -> OrderOutcome | None:
        """How ``order`` ended, as far as that was written down; None: not as far as is known."""
        for entry in reversed(self._entries):
            if entry.order == order:
                return OrderOutcome(
                    order,
                    entry.outcome,
                    entry.release,
                    entry.reason,
                    "",
                    entry.seconds,
                    entry.generation,
                )
        return None

    def _add(self, entry: HistoryEntry) -> None:
        if self._path is None:
            self._entries = (*self._entries, entry)[-LENGTH:]
            return
        with _alone(os.path.dirname(self._path)):
            self._merge(entry)
            try:
                self._write(self._path)
            except OSError as error:
                reason = f"the history of deploys can't be written to {self._path}"
                hint = "give a writable --state-dir"
                self._problems.begin(_PROBLEM, f"{reason}: {error.strerror}; {hint}")
            else:
                self._problems.end(_PROBLEM, f"the history of deploys is in {self._path} again")

    def _merge(self, entry: HistoryEntry) -> None:
        known = self._entries
        others = set(self._read()).difference(known)
        if others:  # another server of the same application has written meanwhile
            known = tuple(sorted((*known, *others), key=lambda one: one.time))
        self._entries = (*known, entry)[-LENGTH:]

    def _write(self, path: str) -> None:
        temporary = f"{path}.{os.getpid()}.new"
        try:
            with open(temporary, "w", encoding="ascii", opener=_privately) as file:
                file.writelines(json.dumps(asdict(entry)) + "\n" for entry in self._entries)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _read(self) -> tuple[HistoryEntry, ...]:
        """What is on disk.  Lines that are none of ours are passed over, and the log says so."""
        if self._path is None:
            return ()
        try:
            # What is no file, as a pipe that nobody writes to, is not to be waited for.
            with open(self._path, "rb", opener=_without_waiting) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return ()
        except OSError as error:
            reason = f"the history of deploys can't be read from {self._path}: {error.strerror}"
            self._problems.begin(_PROBLEM, f"{reason}; give another --state-dir")
            return ()
        entries, damaged = [], []
        for number, line in enumerate(lines, 1):
            try:
                entries.append(_entry(line))
            except ProtocolError as error:
                damaged.append(f"line {number}: {error}")
        if damaged:
            self._log.warning(
                "%s: lines that are passed over, for they are damaged: %d; the first is %s",
                self._path,
                len(damaged),
                damaged[0],
            )
        return tuple(entries[-LENGTH:])


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Make the folder, and keep other servers from writing there meanwhile.

    Without a folder, or if another one takes its time, nothing is kept: an entry of theirs may then
    be missing until they write the next one.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            deadline = time.monotonic() + _PATIENCE
            while not _locked(descriptor) and time.monotonic() < deadline:
                time.sleep(_LOOK)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _entry(line: bytes) -> HistoryEntry:
    """Return what a line of the file says.

    :raises ProtocolError: it is no entry, or one that could not be shown.
    """
    if len(line) > _LONGEST_LINE:
        raise ProtocolError(f"it takes {len(line)} bytes, more than {_LONGEST_LINE}")
    entry = framing.read(HistoryEntry, line)
    if not 0 <= entry.time <= _LAST_TIME:
        raise ProtocolError(f"its time is {entry.time:g}")
    return entry


def _without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", path)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

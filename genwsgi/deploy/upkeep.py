"""What the coordinator does so that the run directory is there, and can be written.

One thread, the coordinator's.  The master makes the directory itself again and holds its lock; all
that is in it is written once more here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import Final

from genwsgi.deploy.descriptors import ENOUGH, has_spare, shortage
from genwsgi.deploy.problems import NO_DESCRIPTORS, ProblemBook, explained
from genwsgi.deploy.protocol import Release
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import RunDirectoryError
from genwsgi.isolation.store import Store

#: Between two looks, in seconds.
LOOK: Final = 2.0

#: The longest time between two attempts where deploys fail again after each, in seconds.
LONGEST: Final = 60.0

#: What a release may need beside what the store has already, in bytes.
ROOM: Final = 1 << 20

#: What the system answers about a directory that has been deleted.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


class Upkeep:
    """Looks after the run directory, and notes what is wrong with it.

    :param rewrite: writes everything that is not the store's into the directory once more; raises
        ``OSError``.
    :param recovered: called when deploys that have failed may succeed again.
    """

    def __init__(
        self,
        directory: RunDirectory,
        store: Store,
        problems: ProblemBook,
        rewrite: Callable[[], None],
        recovered: Callable[[], object],
    ) -> None:
        self._directory = directory
        self._store = store
        self._problems = problems
        self._rewrite = rewrite
        self._recovered = recovered
        self._manifests: dict[str, bytes] = {}
        self._socket: os.stat_result | None = None
        # The committed release of which not everything is there, if it is so.
        self._incomplete: str | None = None
        self._look_at = 0.0
        # How long to wait before deploys are tried again, and from when on.
        self._pause = LOOK
        self._try_at = 0.0

    def listening(self) -> None:
        """Remember what the socket's file is: it has just been made."""
        self._socket = os.stat(self._directory.socket)

    def remember(self, digests: Iterable[str]) -> None:
        """Remember what snapshots consist of, so that they can be made again.

        :raises OSError: it can't be read.
        """
        known = self._manifests
        self._manifests = {one: known.get(one) or self._store.manifest(one) for one in digests}

    def failed(self, error: OSError) -> None:
        """Something that had to be written, or opened, could not be."""
        if error.errno in NO_DESCRIPTORS:
            self._problems.begin("descriptors", shortage("the coordinator"))
        elif error.errno in _GONE:
            self._look_at = 0.0  # the directory, most likely
        else:
            self._problems.begin(
                "disk",
                f"run directory {self._directory.path} can't be written: {explained(error)}; "
                "until it can, what is committed is served and nothing is deployed",
            )

    @property
    def due(self) -> float:
        """When to look next, on the monotonic clock."""
        return self._look_at

    def look(self, now: float, committed: Release) -> None:
        """See how everything stands."""
        self._look_at = now + LOOK
        self._look_at_directory(committed)
        if now < self._try_at:
            return
        ended = False
        if "disk" in self._problems and self._has_room():
            place = self._directory.path
            self._problems.end("disk", f"run directory {place} can be written again")
            ended = True
        if "descriptors" in self._problems and has_spare(ENOUGH):
            self._problems.end("descriptors", "the coordinator has file descriptors left again")
            ended = True
        if ended:
            # What a release needs is only known when it was written: should there not be as much,
            # then it is not tried every other second.
            calm = now >= self._try_at + LONGEST
            self._pause = LOOK if calm else min(2 * self._pause, LONGEST)
            self._try_at = now + self._pause
            self._recovered()

    def _look_at_directory(self, committed: Release) -> None:
        directory, place = self._directory, self._directory.path
        if self._incomplete not in (None, committed.digest):
            self._incomplete = None
            self._problems.end("snapshot", "the committed release is all there")
        if self._is_whole(committed):
            return
        self._problems.begin(
            "run-directory",
            f"run directory {place} was deleted, or something in it: no deploy is possible and "
            "genwsgictl finds no server until it is made again, which is tried all the time",
        )
        try:
            directory.guard()
            directory.check()
            directory.make_folders()
            lost = self._restore_snapshots(committed)
            self._rewrite()
        except (RunDirectoryError, OSError):
            return  # the master has not made it again, or can't and has said why; or it is full
        self._problems.end("run-directory", f"run directory {place} is there again")
        if lost:
            self._incomplete = committed.digest
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            self._problems.begin(
                "snapshot",
                f"of the committed release is lost: {', '.join(lost[:3])}{more}; what is loaded "
                "serves on, but a worker that is replaced can't start; order a deploy",
            )
        self._recovered()

    def _is_whole(self, committed: Release) -> bool:
        try:
            found = os.stat(self._directory.socket)
        except OSError:
            return False
        return (
            self._socket is not None
            and os.path.samestat(found, self._socket)
            and self._directory.is_whole()
            and self._store.has(committed.digest)
        )

    def _restore_snapshots(self, committed: Release) -> list[str]:
        """Write the snapshots again; return what is lost of the committed release's."""
        lost = {one: self._store.restore(one, what) for one, what in self._manifests.items()}
        return lost.get(committed.digest, [])

    def _has_room(self) -> bool:
        try:
            self._directory.try_to_write(self._store.size() + ROOM)
        except OSError:
            return False
        return True

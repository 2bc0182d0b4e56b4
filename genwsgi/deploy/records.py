"""What is written down in the run directory, file by file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

from genwsgi.deploy import framing
from genwsgi.deploy.control import Pause
from genwsgi.deploy.problems import NO_MORE
from genwsgi.deploy.protocol import Release
from genwsgi.errors import ProtocolError, RunDirectoryError

#: Ends the name of a file that is being written.
UNFINISHED: Final = ".new"


class Records:
    """The files of the run directory at ``path``, each replaced whole."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._committed = os.path.join(path, "committed")
        self._serving = os.path.join(path, "serving")
        self._orders = os.path.join(path, "orders")
        self._releases = os.path.join(path, "releases")
        self._paused = os.path.join(path, "paused")
        self._restart = os.path.join(path, "restart")
        # As it was when it could be read.
        self._pause: Pause | None = None

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
        self._replace(self._committed, json.dumps(asdict(release)))

    def is_whole(self) -> bool:
        """Whether everything is there that has to be while a server runs, but for the socket."""
        return os.path.exists(self._committed) and os.path.isdir(self._serving)

    def try_to_write(self, size: int) -> None:
        """See whether a file of ``size`` bytes could be written.

        :raises OSError: it could not.
        """
        trial = self._orders + UNFINISHED
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
        """Say that the worker ``pid`` serves requests from now on.

        :raises OSError: it can't be written.
        """
        self.guard()
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
        self._replace(self._orders, json.dumps(orders))

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
        self._replace(self._releases, "".join(json.dumps(asdict(one)) + "\n" for one in releases))

    def paused(self) -> Pause | None:
        """Why automatic orders are not taken; ``None``: they are.

        While the system has no descriptor to look with, it is as it was.
        """
        try:
            with open(self._paused, "rb") as file:
                self._pause = framing.read(Pause, file.read())
        except FileNotFoundError:
            self._pause = None
        except (OSError, ProtocolError) as error:
            if not isinstance(error, OSError) or error.errno not in NO_MORE:
                self._pause = Pause(f"somebody ({error})", 0.0)
        return self._pause

    def pause(self, pause: Pause | None) -> None:
        """Take no automatic orders, or take them again.

        :raises OSError: that could not be written down.
        """
        if pause is not None:
            self._replace(self._paused, json.dumps(asdict(pause)))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._paused)

    def ask_restart(self) -> None:
        """Ask the master to replace the workers.

        :raises OSError: it can't be asked.
        """
        self._replace(self._restart, "")

    def take_restart(self) -> bool:
        """Whether the master was asked to replace the workers; it is not any more."""
        try:
            os.unlink(self._restart)
        except OSError:
            return False
        return True

    def guard(self) -> None:
        """See that what is to be written is still this server's to write.

        :raises OSError: the directory is another server's now.
        """

    def _replace(self, path: str, text: str) -> None:
        self.guard()
        temporary = path + UNFINISHED
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):  # half of it, on a disk that is full, helps nobody
                os.unlink(temporary)
            raise

"""Processes that a build starts: they are not ended, for nobody knows what they are at.

Those that still run at the build's end without success, and at its generation's, are named.
"""

from __future__ import annotations

import functools
import logging
import os
from types import ModuleType
from typing import Any

from genwsgi.isolation.effects.base import Book, Patches, Record, Run, building

log = logging.getLogger("genwsgi")

_patches = Patches()


class Processes(Record):
    """The processes that one build started: what each runs, by its number."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.started: dict[int, str] = {}

    def running(self) -> dict[int, str]:
        """Return those that still run."""
        return {pid: what for pid, what in self.started.copy().items() if _runs(pid)}

    def undo(self) -> None:
        """Name them."""
        self._name("is undone")

    def retire(self, run: Run) -> None:  # noqa: ARG002
        """Name them."""
        self._name("has retired")

    def report(self) -> list[str]:
        """How many there are."""
        count = len(self.running())
        return [f"{count} process{'' if count == 1 else 'es'}"] if count else []

    def _name(self, ended: str) -> None:
        left = ", ".join(f"{pid} ({what})" for pid, what in self.running().items())
        if left:
            log.warning("%s %s but processes that it started still run: %s", self.name, ended, left)


def _runs(pid: int) -> bool:
    """Whether that child of this process runs; one that has ended is left to be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _program(args: Any) -> str:
    """Return the program of a command, without its arguments: there may be secrets in them."""
    first = args if isinstance(args, (str, bytes, os.PathLike)) else next(iter(args), "")
    return os.fsdecode(first).partition(" ")[0]


def _wrap_subprocess(module: ModuleType) -> None:
    begin = module.Popen.__init__

    @functools.wraps(begin)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        begin(self, *args, **kwargs)
        processes = building(Processes)
        if processes is not None:
            processes.started[self.pid] = _program(self.args)

    _patches.put(module.Popen, "__init__", __init__)


def _wrap_multiprocessing(module: ModuleType) -> None:
    begin = module.BaseProcess.start

    @functools.wraps(begin)
    def start(self: Any) -> None:
        begin(self)
        processes = building(Processes)
        if processes is not None:
            processes.started[self.pid] = self.name

    _patches.put(module.BaseProcess, "start", start)


def install() -> None:
    """Wrap what starts them."""
    _patches.when_loaded("subprocess", _wrap_subprocess)
    _patches.when_loaded("multiprocessing.process", _wrap_multiprocessing)


def uninstall() -> None:
    """Undo :func:`install`."""
    _patches.take_back()

"""Completion of the commands in a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

SHELLS: Final = ("bash", "zsh", "tcsh")

#: Arguments that are files or folders, by what ``--help`` calls them.
_FILES: Final = frozenset({"CONFIG", "FILE", "PATH"})
_FOLDERS: Final = frozenset({"CHDIR", "DIR"})


class PrintCompletion(argparse.Action):
    """``--print-completion SHELL``: write the script that makes a shell complete the command."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _namespace: argparse.Namespace,
        value: str | Sequence[Any] | None,
        _option: str | None = None,
    ) -> None:
        """Write it and exit."""
        import shtab  # takes long to import, for what is asked for once

        _mark(parser, shtab.FILE, shtab.DIRECTORY)
        try:
            print(shtab.complete(parser, str(value)), flush=True)  # noqa: T201 -- a command talks
        except BrokenPipeError:
            sys.stdout = None  # whoever read has seen enough
        parser.exit(0)


def _mark(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Say in shtab's way which arguments are files and folders."""
    for action in parser._actions:
        called = action.metavar or action.dest.upper()
        if called in _FILES | _FOLDERS:
            vars(action)["complete"] = file if called in _FILES else folder
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _mark(inner, file, folder)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command's parser."""
    parser.add_argument(
        "--print-completion",
        metavar="SHELL",
        choices=SHELLS,
        action=PrintCompletion,
        help="write what makes a shell (bash, zsh or tcsh) complete this command, and exit",
    )

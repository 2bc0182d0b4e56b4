"""Tests of genwsgi.completion: the real shells complete the real commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genwsgi.completion import SHELLS

#: Asks bash what the last of some words can become, as the Tab key does.
ASK = r"""
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
function=$(complete -p "$1" | sed 's/.* -F \([^ ]*\) .*/\1/')
$function "$1" "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


def script(module: str, shell: str) -> str:
    """What a command writes for a shell."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--print-completion", shell],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The commands' scripts for bash, by the commands."""
    folder = tmp_path_factory.mktemp("completion")
    made = {}
    for command, module in (("genwsgictl", "genwsgi.ctl"), ("genwsgi", "genwsgi")):
        made[command] = folder / command
        made[command].write_text(script(module, "bash"))
    return made


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("genwsgictl st", {"status"}),
        ("genwsgictl r", {"resume", "restart", "rollback"}),
        ("genwsgictl status --wat", {"--watch"}),
        ("genwsgictl deploy --no", {"--no-wait"}),
        ("genwsgictl deploy --run-dir fol", {"folder"}),
        ("genwsgictl status --pid fi", {"file"}),
        ("genwsgi --watch-pat", {"--watch-path", "--watch-pattern"}),
        ("genwsgi --print-completion b", {"bash"}),
        ("genwsgi --chdir fol", {"folder"}),
    ],
)
def test_bash_completes(
    scripts: dict[str, Path], tmp_path: Path, words: str, completions: set[str]
):
    """Subcommands, options, the words that an option takes, folders and files."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    command, *rest = words.split()
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", str(scripts[command]), command, *rest],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert set(done.stdout.split()) == completions, done.stderr


@pytest.mark.parametrize("module", ["genwsgi.ctl", "genwsgi"])
@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_script_for_each_shell(module: str, shell: str):
    """It names the command, and the shell finds no mistake in it if it is there."""
    text = script(module, shell)
    assert "genwsgictl" in text if module == "genwsgi.ctl" else "genwsgi" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True, timeout=60)


@pytest.mark.parametrize("module", ["genwsgi.ctl", "genwsgi"])
def test_a_reader_that_has_seen_enough_is_no_error(module: str):
    """Who reads only the beginning of the script gets no traceback after it."""
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", module, "--print-completion", "bash"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_it_costs_a_start_nothing():
    """What writes the scripts is imported only when it is asked for."""
    modules = "sys, genwsgi.server.settings, genwsgi.ctl.__main__"
    code = f"import {modules}; sys.exit('shtab' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

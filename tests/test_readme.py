"""What the documents show is tried: their commands, their Python, their options, their links."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from genwsgi.ctl.__main__ import parser
from genwsgi.server.settings import GenwsgiConfig
from tests.helpers import wait_until
from tests.process.harness import put, serving

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README = ROOT / "README.md"

#: How the README's two commands begin; they differ in what comes then.
VENV = "python3 -m venv .venv && .venv/bin/pip install "


def blocks(document: Path, language: str) -> list[str]:
    """Return the text of every fenced block of ``language`` in ``document``."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, document.read_text(), re.DOTALL | re.MULTILINE)


def in_documents(language: str) -> list[object]:
    """Return a parameter for every fenced block of ``language`` in all documents."""
    return [
        pytest.param(block, id=f"{document.name}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(blocks(document, language), 1)
    ]


def command_of_readme(end: str) -> str:
    """Return the README's one command whose end matches the regular expression ``end``."""
    lines = "".join(blocks(README, "sh")).splitlines()
    (command,) = [ln for ln in lines if ln.startswith(VENV) and re.search(f"{end}$", ln)]
    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the demo application in it, as in a fresh clone."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "demo_app", tmp_path / "demo_app", ignore=ignore)
    return tmp_path


def test_ci_runs_the_command_of_the_readme():
    """The README's command for the tests is, to the letter, what CI runs."""
    command = command_of_readme("-m tests")
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def test_first_command_serves_the_demo(folder):
    """What the README's first command serves shows an edit of greeting.py, as it says."""
    command = command_of_readme(r"genwsgi .*")
    *options, target = shlex.split(command.rpartition(".venv/bin/genwsgi ")[2])
    with serving(folder, *options, target=target) as server:
        assert "<h1>Hello</h1>" in server.get("/")
        greeting = folder / "demo_app" / "greeting.py"
        put(greeting, greeting.read_text().replace('"Hello"', '"Goodbye"'))
        wait_until(lambda: "<h1>Goodbye</h1>" in server.get("/"), what="the new greeting")


@pytest.mark.parametrize("block", in_documents("python"))
def test_python_runs(block, folder):
    """A block of Python runs to its end, and the interpreter with it, without a warning."""
    subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=folder, check=True, timeout=60)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_options_exist(document):
    """Every option that a document puts in code at the beginning is one that the command has."""
    (commands,) = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    subcommands = commands.choices.values()
    parsers = [GenwsgiConfig().parser(), parser(), *subcommands]
    known = {flag for one in parsers for action in one._actions for flag in action.option_strings}
    named = set(re.findall(r"`(?:genwsgi )?(--[a-z-]+)", document.read_text()))
    assert named <= known


def test_what_is_to_be_installed_is_this_folder() -> None:
    """Whoever is told to install an extra is told of one that there is, and where its source is."""
    there_are = metadata("genwsgi").get_all("Provides-Extra", [])
    texts = [*DOCUMENTS, *ROOT.glob("genwsgi/**/*.py")]
    told = [re.findall(r"pip install (?:-e )?'(.*?)\[(.*?)\]'", path.read_text()) for path in texts]
    pairs = [pair for pairs in told for pair in pairs]
    extras = {extra for _, extra in pairs}
    assert {"gevent", "metrics"} <= extras <= {*there_are}
    assert {source for source, _ in pairs} == {"."}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_commands_that_are_shown_are_obeyed(document):
    """Every line of genwsgictl that a session or a script shows is one that its parser takes."""
    shown = "".join(blocks(document, "console") + blocks(document, "sh"))
    for line in re.findall(r"^(?:\$ )?genwsgictl (.*)$", shown, re.MULTILINE):
        with contextlib.suppress(SystemExit) if "--print-" in line else contextlib.nullcontext():
            parser().parse_args(shlex.split(re.split(r" [>|&]", line)[0]))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document):
    """Every relative link of a document leads to a file of the project."""
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []

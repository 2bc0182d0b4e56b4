"""Make the table in compatibility.md: what is installed here, and what each site's scope is.

Run from anywhere: ``python docs/compatibility.py``.  Whether the sites work is what the tests say.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITES = ROOT / "tests" / "frameworks" / "sites"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"

#: Site -> its target, and the distributions that it is about.
TRIED = {
    "flask": ("shop", "Flask Flask-SQLAlchemy SQLAlchemy Flask-Login Jinja2"),
    "django": ("project.wsgi", "Django djangorestframework"),
    "large": (
        "project.wsgi",
        (
            "Django wagtail djangorestframework django-allauth django-filter django-taggit "
            "django-treebeard swapper telepath"
        ),
    ),
    "pyramid": ("shop", "pyramid venusian zope.interface"),
    "bottle": ("shop", "bottle"),
    "falcon": ("shop", "falcon"),
    "cherrypy": ("shop", "CherryPy"),
    "dash": ("shop", "dash plotly"),
    "libraries": ("shop", "prometheus_client celery kombu marshmallow pydantic numpy Jinja2"),
}


def scope(site: str, target: str) -> list[str]:
    """Return the packages of others that are in a site's scope by themselves."""
    command = [sys.executable, "-m", "genwsgi", "--explain-scope", target]
    with tempfile.TemporaryDirectory() as data:
        shown = subprocess.run(
            command,
            cwd=SITES / site,
            env={**os.environ, "SITE_DATA": data},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    found = re.findall(r"^(\S+) +in +(.*)$", shown, re.MULTILINE)
    return [name for name, why in found if why != "the application's own"]


def main() -> None:
    """Make the table and put it into the document."""
    lines = [
        f"CPython {platform.python_version()}, genwsgi's tests.",
        "",
        "| site | with | in the scope by itself |",
        "|---|---|---|",
    ]
    for site, (target, names) in TRIED.items():
        versions = ", ".join(f"{name} {version(name)}" for name in names.split())
        inside = ", ".join(f"`{name}`" for name in scope(site, target)) or "nothing of others"
        lines.append(f"| {site} | {versions} | {inside} |")
    document = ROOT / "docs" / "compatibility.md"
    before, rest = document.read_text().split(BEGIN)
    after = rest.split(END)[1]
    document.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main()

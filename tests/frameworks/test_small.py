"""Smaller frameworks, and libraries that keep something about the application, across deploys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.frameworks.served import Browser, Site, serving_site, visiting

#: Each site's marks.
MARKS = {
    "pyramid": {"view", "late", "model", "template", "event"},
    "bottle": {"view", "late", "model", "template", "hook"},
    "falcon": {"view", "late", "model", "template", "middleware"},
    "cherrypy": {"view", "late", "model", "template", "tool"},
    "libraries": {
        *("view", "late", "model", "template", "filter"),
        *("schema", "pydantic", "task", "counter"),
    },
}


HELD: dict[str, int] = {}


def write(name: str) -> Callable[[Browser], str]:
    """Return a visit that sends a form to the site ``name`` and looks at its page."""
    counts: dict[Browser, int] = {}

    def visit(browser: Browser) -> str:
        counts[browser] = counts.get(browser, 0) + 1
        page = browser.post("/notes", {"text": "hello"})
        assert f"user=ann count={counts[browser]}" in page.text
        assert set(page.marks) == MARKS[name]
        return page.version

    return visit


def call_back(browser: Browser) -> str:
    """Do what Dash's page does: fetch the layout, then send what is in a field of it."""
    layout = browser.get("/_dash-layout")
    assert "user=ann" in layout.text
    assert set(layout.marks) == {"view", "model"}
    assert layout.version
    field = {"id": "text", "property": "value", "value": "hello"}
    order = {
        "output": "note.children",
        "outputs": {"id": "note", "property": "children"},
        "inputs": [field],
        "changedPropIds": ["text.value"],
    }
    answer = browser.ask(
        "POST", "/_dash-update-component", json.dumps(order), kind="application/json"
    )
    assert "user=ann" in answer.text
    assert set(answer.marks) == {"model", "callback", "late"}
    return answer.version


def deploy_often(site: Site, visit: Callable[[Browser], str], *, held: int = 0) -> None:
    """Log in three visitors and let them visit the site while it is deployed four times."""
    browsers = [site.browser() for _ in range(3)]
    for browser in browsers:
        browser.post("/login", {"user": "ann"})
    with visiting(browsers, visit) as visits:
        visits.wait_for("v0", 5)
        for number in range(1, 5):
            site.deploy(f"v{number}")
            visits.wait_for(f"v{number}", 5)
    site.wait_collected(held=held)


@pytest.mark.parametrize("name", sorted(MARKS))
def test_forms(tmp_path: Path, name: str) -> None:
    """Pages, forms and a session go on across deploys, on one version each, and old ones go."""
    with serving_site(name, tmp_path, "shop") as site:
        deploy_often(site, write(name), held=HELD.get(name, 0))


def test_dash(tmp_path: Path) -> None:
    """A layout, callbacks and a session go on across deploys, on one version each."""
    with serving_site("dash", tmp_path, "shop") as site:
        deploy_often(site, call_back)
        assert "[template v4]" in site.browser().get("/").text

"""Flask with SQLAlchemy, blueprints, a login and signals, across deploys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.served import Browser, serving_site, visiting

MARKS = {"view", "late", "signal", "template", "filter", "model"}


def visit(browser: Browser) -> str:
    """Look at the page, write a note, and find it on the page."""
    browser.get("/")
    page = browser.post("/notes", {"text": "hello"})
    assert "user=ann" in page.text
    assert set(page.marks) == MARKS
    return page.version


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_flask(tmp_path: Path, worker_class: str) -> None:
    """Pages, forms and a session go on across deploys, on one version each, and old ones go."""
    arguments = [f"--worker-class={worker_class}"]
    with serving_site("flask", tmp_path, "shop", *arguments) as site:
        first = site.browser()
        first.post("/setup", {})
        browsers = [first, site.browser(), site.browser()]
        for browser in browsers:
            assert "user=ann" in browser.post("/login", {"user": "ann"}).text
        with visiting(browsers, visit) as visits:
            visits.wait_for("v0", 5)
            for number in range(1, 6):
                site.deploy(f"v{number}")
                visits.wait_for(f"v{number}", 5)
        site.wait_collected()

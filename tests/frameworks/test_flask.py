"""Flask with SQLAlchemy, blueprints, a login and signals, across deploys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.served import Browser, differences, serving_site, visiting

MARKS = {"view", "late", "signal", "template", "filter", "model"}


def visit(browser: Browser) -> str:
    """Look at the page, write a note, and find it on the page."""
    browser.get("/")
    page = browser.post("/notes", {"text": "hello"})
    assert "user=ann" in page.text
    assert set(page.marks) == MARKS
    return page.version


@pytest.mark.parametrize(("worker_class", "swaps"), [("gthread", 20), ("gevent", 5)])
def test_flask(tmp_path: Path, worker_class: str, swaps: int) -> None:
    """Pages, forms and a session go on across swaps, on one version each, and nothing stays.

    Old generations are collected; threads, log handlers, files and exit callbacks are as after the
    first swap.
    """
    arguments = [f"--worker-class={worker_class}"]
    with serving_site("flask", tmp_path, "shop", *arguments) as site:
        first = site.browser()
        first.post("/setup", {})
        browsers = [first, site.browser(), site.browser()]
        for browser in browsers:
            assert "user=ann" in browser.post("/login", {"user": "ann"}).text
        with visiting(browsers, visit) as visits:
            visits.wait_for("v0", 5)
            for number in range(1, swaps + 1):
                site.deploy(f"v{number}")
                visits.wait_for(f"v{number}", 3)
                if number == 1:
                    begun = site.wait_collected()
        assert differences(begun, site.wait_collected()) == []

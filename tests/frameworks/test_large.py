"""A Django project of more than a thousand modules, most of them other people's, across deploys."""

from __future__ import annotations

import json
from pathlib import Path

from tests.frameworks.served import Browser, serving_site, visiting


def visit(browser: Browser) -> str:
    """Write a note, look at a page of the CMS, open the CMS's editor, and ask the API."""
    page = browser.get("/")
    page = browser.post("/", {**page.hidden(), "text": "hello"})
    assert "user=ann" in page.text
    assert set(page.marks) == {
        *("view", "late", "middleware", "template", "tag", "filter", "model"),
    }
    assert page.version
    shown = browser.get("/pages/hello/")
    assert set(shown.marks) == {"template", "filter", "page", "tag"}
    assert "tagged=greeting" in shown.text
    assert shown.version
    editor = browser.get("/cms/pages/3/edit/")
    assert "hello" in editor.text
    assert set(editor.marks) == {"hook"}
    written = browser.ask(
        "POST", "/api/notes/", json.dumps({"text": "sent"}), kind="application/json", status=201
    )
    assert set(written.marks) == {"model", "serializer", "signal"}
    assert written.version
    answer = browser.get("/api/notes/?text=no+such+note")
    assert answer.text == "[]"
    return page.version


def test_large(tmp_path: Path) -> None:
    """Pages, an editor, an API and a session go on across deploys, on one version each."""
    with serving_site("large", tmp_path, "project.wsgi", setup="setup_site") as site:
        browsers = [site.browser() for _ in range(1)]
        for browser in browsers:
            form = browser.get("/accounts/login/?next=/").hidden()
            fields = {**form, "login": "ann", "password": "secret"}
            assert "user=ann" in browser.post("/accounts/login/", fields).text
        with visiting(browsers, visit) as visits:
            visits.wait_for("v0", 2)
            for number in range(1, 3):
                site.deploy(f"v{number}")
                visits.wait_for(f"v{number}", 2)
        for census in site.wait_collected().values():
            assert census.modules >= 1000

"""Django, with its admin, and Django REST framework, across deploys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.frameworks.served import Browser, Offence, differences, serving_site, visiting

PAGE = {
    "view",
    "late",
    "middleware",
    "translation",
    "url",
    "template",
    "tag",
    "filter",
    "model",
}


def log_in(browser: Browser) -> None:
    """Log the administrator in, through the form."""
    form = browser.get("/admin/login/?next=/").hidden()
    page = browser.post("/admin/login/", {**form, "username": "ann", "password": "secret"})
    assert "user=ann" in page.text


def visit(browser: Browser) -> str:
    """Look at the page, write a note by its form, and another one as a program."""
    page = browser.get("/")
    page = browser.post("/", {**page.hidden(), "text": "hello"})
    assert "user=ann" in page.text
    assert set(page.marks) == PAGE
    written = browser.ask(
        "POST", "/api/notes/", json.dumps({"text": "sent"}), kind="application/json", status=201
    )
    assert set(written.marks) == {"model", "serializer", "signal"}
    assert written.version
    return page.version


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_django(tmp_path: Path, worker_class: str) -> None:
    """Pages, forms, the API and a session go on across deploys, on one version each."""
    arguments = [f"--worker-class={worker_class}"]
    with serving_site("django", tmp_path, "project.wsgi", *arguments, setup="setup_site") as site:
        browsers = [site.browser() for _ in range(3)]
        for browser in browsers:
            log_in(browser)
        with visiting(browsers, visit) as visits:
            visits.wait_for("v0", 5)
            for number in range(1, 4):
                site.deploy(f"v{number}")
                visits.wait_for(f"v{number}", 5)
        site.wait_collected()


#: What one deploy after the other changes: the file, and the mark that shows its version.
CHANGES = {
    "shop/models.py": "model",
    "shop/views.py": "view",
    "shop/templatetags/shop.py": "tag",
    "project/urls.py": "url",
}


def test_django_admin(tmp_path: Path) -> None:
    """An object is edited over 20 deploys by one session on one connection, each page whole.

    What the generations leave does not add up either.
    """
    with serving_site("django", tmp_path, "project.wsgi", setup="setup_site") as site:
        releases: list[dict[str, str]] = []

        def marks_of(text: dict[str, str]) -> dict[str, str]:
            return {mark: text[mark] for mark in CHANGES.values()}

        def look(browser: Browser) -> str:
            seen = marks_of(browser.get("/").marks)
            if seen not in releases:
                raise Offence(f"of no release: {seen}")
            return f"v{releases.index(seen)}"

        releases.append(dict.fromkeys(CHANGES.values(), "v0"))
        editor, *others = [site.browser() for _ in range(3)]
        for browser in (editor, *others):
            log_in(browser)
        with visiting(others, look) as visits:
            for number in range(1, 21):
                file, mark = list(CHANGES.items())[number % 4]
                releases.append({**releases[-1], mark: f"v{number}"})
                form = editor.get("/admin/shop/note/1/change/")
                site.deploy(f"v{number}", file)
                # The form is of the release before, and is sent to the new one.
                listed = editor.post(
                    "/admin/shop/note/1/change/", {**form.hidden(), "text": f"edit {number}"}
                )
                assert f"edit {number} [model {releases[-1]['model']}]" in listed.text
                assert "/admin/logout/" in listed.text
                assert marks_of(editor.get("/").marks) == releases[-1]
                assert editor.get(f"/where-{releases[-1]['url']}/").version == releases[-1]["view"]
                visits.wait_for(f"v{number}", 3)
                if number == 1:
                    begun = site.wait_collected()
        assert differences(begun, site.wait_collected()) == []

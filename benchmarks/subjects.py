"""The applications that are served, each with its version in every page."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.deploys import FLASK_PAGE
from tests.process.harness import put

#: A page that costs nothing, so that all there is to see is the server.
NOTHING = """\
V = "{version}"
BODY = V.encode()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
"""

#: Keeps a processor busy at import.
BURNING = """\
V = "{version}"
import time

until = time.thread_time() + {seconds}
while time.thread_time() < until:
    sum(range(1000))


def application(environ, start_response):
    body = V.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

#: A Django site with the admin, but for the view that has the version.
DJANGO = {
    "shop/__init__.py": "",
    "shop/settings.py": """\
SECRET_KEY = "for ever the same"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [__file__.rpartition("/")[0]],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
""",
    "shop/models.py": """\
from django.db import models


class Note(models.Model):
    text = models.CharField(max_length=40)
""",
    "shop/admin.py": """\
from django.contrib import admin
from shop.models import Note

admin.site.register(Note)
""",
    "shop/urls.py": """\
from django.contrib import admin
from django.urls import path
from shop import views

urlpatterns = [path("admin/", admin.site.urls), path("", views.page)]
""",
    "shop/page.html": """\
<!doctype html>
<title>{{ version }}</title>
{% for line in lines %}<p>{{ forloop.counter }}: {{ line|upper }}</p>
{% endfor %}""",
    "shop/wsgi.py": """\
import os

from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
application = get_wsgi_application()

# As the first request would: a worker that had none yet would serve new views with old code.
import shop.urls
""",
}

DJANGO_VIEW = """\
from django.shortcuts import render

V = "{version}"


def page(request):
    return render(request, "page.html", {{"version": V, "lines": ["one", "two", "three"]}})
"""

#: One of the generated modules: what modules have, and nothing that takes its time.
MODULE = '''\
"""Module {number} of many."""

import dataclasses
import re

PATTERN = re.compile(r"[a-z]+-{number}")


@dataclasses.dataclass
class Item:
    """One thing."""

    name: str
    count: int = {number}

    def total(self, price):
        """Return what all of it costs."""
        return self.count * price


class Shelf:
    """Several things."""

    def __init__(self):
        self.items = []

    def add(self, name, count=1):
        """Put a thing there."""
        if not PATTERN.match(name):
            raise ValueError(name)
        self.items.append(Item(name, count))

    def total(self, price):
        """Return what everything costs."""
        return sum(item.total(price) for item in self.items)
'''


@dataclass(frozen=True)
class Subject:
    """An application in a folder, of which a deploy changes one file.

    :ivar target: what every server can be given, as ``module:callable``.
    :ivar changing: the file that has the version, below the folder.
    :ivar text: that file's, from its version.
    :ivar files: all others, written once.
    :ivar rate: the requests per second that leave two cores room to breathe.
    """

    name: str
    target: str
    changing: str
    text: Callable[[str], str]
    files: dict[str, str] = field(default_factory=dict)
    rate: float = 300.0

    def lay(self, root: Path) -> None:
        """Write all of it, as version v0."""
        for name, text in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.write(root, "v0")

    def write(self, root: Path, version: str) -> None:
        """Change the version, as deploy tools do: the new file is renamed over the old."""
        put(root / self.changing, self.text(version))


def burning(seconds: float) -> Subject:
    """An application whose import takes so many seconds of a processor's time."""
    return Subject(
        "import",
        "myapp:application",
        "myapp.py",
        lambda version: BURNING.format(version=version, seconds=seconds if version > "v0" else 0),
    )


def generated(modules: int) -> Subject:
    """An application of so many modules, each of which its first one imports."""
    names = [f"part{number // 100}.module{number}" for number in range(modules - 1)]
    files = {
        f"many/{name.replace('.', os.sep)}.py": MODULE.format(number=number)
        for number, name in enumerate(names)
    }
    packages = {f"many/{name.partition('.')[0]}/__init__.py": "" for name in names}
    imports = "".join(f"import many.{name}\n" for name in names)
    return Subject(
        f"{modules} modules",
        "many:application",
        "many/__init__.py",
        lambda version: f"{NOTHING.format(version=version)}\n\n{imports}",
        {**files, **packages},
    )


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "nothing",
            "myapp:application",
            "myapp.py",
            lambda version: NOTHING.format(version=version),
        ),
        Subject(
            "flask",
            "myapp:application",
            "myapp.py",
            lambda version: f"{FLASK_PAGE.format(version=version)}\n\napplication = create_app()\n",
        ),
        Subject(
            "django",
            "shop.wsgi:application",
            "shop/views.py",
            lambda version: DJANGO_VIEW.format(version=version),
            DJANGO,
            150.0,
        ),
        burning(3.0),
    )
}

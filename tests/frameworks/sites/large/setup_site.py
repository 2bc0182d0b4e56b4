"""Make the database, with an administrator and a page, before the site is served."""

from __future__ import annotations

import os

import django
from django.core.management import call_command


def main():
    """Do it."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    from django.contrib.auth import get_user_model
    from shop.models import NotePage
    from wagtail.models import Locale, Page, Site

    get_user_model().objects.create_superuser("ann", "ann@example.org", "secret")
    Locale.objects.create(language_code="en")
    root = Page.add_root(title="Root", slug="root")
    home = root.add_child(instance=NotePage(title="home", slug="home"))
    page = home.add_child(instance=NotePage(title="hello", slug="hello"))
    page.tags.add("greeting")
    page.save_revision().publish()
    Site.objects.create(hostname="localhost", root_page=home, is_default_site=True)


if __name__ == "__main__":
    main()

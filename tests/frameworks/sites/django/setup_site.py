"""Make the database, with an administrator, before the site is served."""

from __future__ import annotations

import os

import django
from django.core.management import call_command


def main():
    """Do it; may be repeated."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    from django.contrib.auth import get_user_model
    from shop.models import Note

    get_user_model().objects.create_superuser("ann", "ann@example.org", "secret")
    Note.objects.create(text="first")


if __name__ == "__main__":
    main()

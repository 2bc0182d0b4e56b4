"""Tables."""

from __future__ import annotations

from django.db import models

VERSION = "v0"


class Note(models.Model):
    """What somebody wrote."""

    text = models.CharField(max_length=40)
    saved_by = models.CharField(max_length=40, blank=True, editable=False)

    def __str__(self):
        return f"{self.text} [model {VERSION}]"

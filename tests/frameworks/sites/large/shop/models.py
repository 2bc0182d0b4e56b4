"""Tables."""

from __future__ import annotations

import swapper
from django.db import models
from modelcluster.contrib.taggit import ClusterTaggableManager
from modelcluster.fields import ParentalKey
from taggit.models import TaggedItemBase
from wagtail import blocks
from wagtail.admin.panels import FieldPanel
from wagtail.fields import StreamField
from wagtail.models import Page
from wagtail.snippets.models import register_snippet

VERSION = "v0"


@register_snippet
class Note(models.Model):
    """What somebody wrote."""

    text = models.CharField(max_length=40)
    saved_by = models.CharField(max_length=40, blank=True, editable=False)

    class Meta:
        """A model that a project may replace by its own."""

        swappable = swapper.swappable_setting("shop", "Note")

    def __str__(self):
        return f"{self.text} [model {VERSION}]"


class NoteTag(TaggedItemBase):
    """A tag of a page."""

    content_object = ParentalKey("shop.NotePage", related_name="tagged_items")


class NotePage(Page):
    """A page that editors edit."""

    body = StreamField([("text", blocks.CharBlock())], blank=True)
    tags = ClusterTaggableManager(through=NoteTag, blank=True)

    content_panels = (*Page.content_panels, FieldPanel("body"), FieldPanel("tags"))

    def mark(self):
        """Which code this is."""
        return f"[page {VERSION}]"

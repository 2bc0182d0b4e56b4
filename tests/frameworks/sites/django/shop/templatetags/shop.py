"""Tags and filters of templates."""

from __future__ import annotations

from django import template

VERSION = "v0"

register = template.Library()


@register.filter
def shout(text):
    """Say it loud, and which code says it."""
    return f"{text.upper()} [filter {VERSION}]"


@register.simple_tag
def tag():
    """Which code this is."""
    return f"[tag {VERSION}]"

"""Notes in the administration."""

from __future__ import annotations

from django.contrib import admin

from shop.models import Note

VERSION = "v0"


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    """The form tells which code shows it."""

    readonly_fields = ("code",)

    @admin.display(description="code")
    def code(self, note):
        """Which code this is."""
        return f"[admin {VERSION}]"

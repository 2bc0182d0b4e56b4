"""How programs see the tables."""

from __future__ import annotations

from rest_framework import serializers

from shop.models import Note

VERSION = "v0"


class NoteSerializer(serializers.ModelSerializer):
    """A note, and which code shows it."""

    shown = serializers.CharField(source="__str__", read_only=True)
    mark = serializers.SerializerMethodField()

    class Meta:
        """What is shown."""

        model = Note
        fields = ("id", "text", "saved_by", "shown", "mark")

    def get_mark(self, note):
        """Which code this is."""
        return f"[serializer {VERSION}]"

"""Pages."""

from __future__ import annotations

import django_filters
import swapper
from django.contrib.auth.decorators import login_required
from django.shortcuts import redirect, render
from rest_framework import serializers, viewsets

VERSION = "v0"

Note = swapper.load_model("shop", "Note")


@login_required
def page(request):
    """Show the newest notes, or write one."""
    if request.method == "POST":
        Note.objects.create(text=request.POST["text"])
        return redirect("/")
    from shop import late

    marks = [f"[view {VERSION}]", late.mark(), request.stamp]
    notes = Note.objects.order_by("-id")[:3]
    return render(request, "shop/page.html", {"marks": marks, "notes": notes})


class NoteFilter(django_filters.FilterSet):
    """Notes by their text."""

    class Meta:
        """What is asked for."""

        model = Note
        fields = ("text",)


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


class Notes(viewsets.ModelViewSet):
    """Notes for programs."""

    queryset = Note.objects.order_by("-id")
    serializer_class = NoteSerializer
    filterset_class = NoteFilter

"""Pages."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from rest_framework import viewsets

from shop.models import Note
from shop.serializers import NoteSerializer

VERSION = "v0"


@login_required(login_url="/admin/login/")
def page(request):
    """Show the newest notes, or write one."""
    if request.method == "POST":
        Note.objects.create(text=request.POST["text"])
        return redirect("/")
    from shop import late

    marks = [f"[view {VERSION}]", late.mark(), request.stamp, gettext("which version")]
    marks.append(f"[url {reverse('where').split('-')[1].strip('/')}]")
    notes = Note.objects.order_by("-id")[:3]
    return render(request, "shop/page.html", {"marks": marks, "notes": notes})


def where(request):
    """Answer below a URL that changes with the version."""
    return HttpResponse(f"[view {VERSION}]")


class Notes(viewsets.ModelViewSet):
    """Notes for programs."""

    queryset = Note.objects.order_by("-id")
    serializer_class = NoteSerializer

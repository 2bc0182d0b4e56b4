"""Pages."""

from __future__ import annotations

from pyramid.events import NewRequest, subscriber
from pyramid.httpexceptions import HTTPForbidden, HTTPFound
from pyramid.view import view_config

from shop.model import Note

VERSION = "v0"


@subscriber(NewRequest)
def stamp(event):
    """Note which code has seen the request first."""
    event.request.stamp = f"[event {VERSION}]"


@view_config(route_name="login", request_method="POST")
def login(request):
    """Log in."""
    request.session["user"] = request.POST["user"]
    return HTTPFound("/")


@view_config(route_name="page", renderer="templates/page.txt")
def page(request):
    """Show everything."""
    if "user" not in request.session:
        raise HTTPForbidden
    from shop import late

    return {
        "user": request.session["user"],
        "count": request.session.get("count", 0),
        "note": Note(request.session.get("text", "")),
        "marks": f"[view {VERSION}] {request.stamp} {late.mark()}",
    }


@view_config(route_name="notes", request_method="POST")
def add(request):
    """Write a note."""
    request.session["text"] = request.POST["text"]
    request.session["count"] = request.session.get("count", 0) + 1
    return HTTPFound("/")

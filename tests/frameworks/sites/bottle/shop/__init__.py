"""A shop on Bottle: its request of the thread, signed cookies, its templates."""

from __future__ import annotations

import os

import bottle

from shop.model import Note

VERSION = "v0"
SECRET = "for ever the same"

app = bottle.Bottle()
TEMPLATES = [os.path.join(os.path.dirname(__file__), "templates")]


@app.hook("before_request")
def stamp():
    """Note which code has seen the request first."""
    bottle.request.environ["shop.stamp"] = f"[hook {VERSION}]"


@app.post("/login")
def login():
    """Log in."""
    save({"user": bottle.request.forms["user"], "count": 0, "text": ""})
    bottle.redirect("/")


@app.get("/")
def page():
    """Show everything."""
    session = bottle.request.get_cookie("session", secret=SECRET)
    if session is None:
        bottle.abort(403)
    from shop import late

    marks = f"[view {VERSION}] {bottle.request.environ['shop.stamp']} {late.mark()}"
    return bottle.template(
        "page", session, note=Note(session["text"]), marks=marks, template_lookup=TEMPLATES
    )


@app.post("/notes")
def add():
    """Write a note."""
    session = bottle.request.get_cookie("session", secret=SECRET)
    save({**session, "count": session["count"] + 1, "text": bottle.request.forms["text"]})
    bottle.redirect("/")


def save(session):
    """Put the session into the cookie."""
    bottle.response.set_cookie("session", session, secret=SECRET)

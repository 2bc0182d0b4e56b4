"""A shop on Falcon: resources, hooks, a middleware, a signed cookie, Jinja2."""

from __future__ import annotations

import falcon
import jinja2
from itsdangerous import URLSafeSerializer

from shop.middleware import Stamp
from shop.model import Note

VERSION = "v0"

signer = URLSafeSerializer("for ever the same")
templates = jinja2.Environment(loader=jinja2.PackageLoader("shop"), autoescape=True)


def session_of(request, response, resource, params):
    """Read the session; a hook of the resources."""
    cookies = request.get_cookie_values("session")
    if not cookies:
        raise falcon.HTTPForbidden
    params["session"] = signer.loads(cookies[0])


class Login:
    """Where one logs in."""

    def on_post(self, request, response):
        """Log in."""
        save(response, {"user": request.get_media()["user"], "count": 0, "text": ""})


class Page:
    """The page."""

    @falcon.before(session_of)
    def on_get(self, request, response, session):
        """Show everything."""
        from shop import late

        marks = f"[view {VERSION}] {request.context.stamp} {late.mark()}"
        response.content_type = falcon.MEDIA_HTML
        response.text = templates.get_template("page.html").render(
            session, note=Note(session["text"]), marks=marks
        )


class Notes:
    """Where one writes."""

    @falcon.before(session_of)
    def on_post(self, request, response, session):
        """Write a note."""
        text = request.get_media()["text"]
        save(response, {**session, "count": session["count"] + 1, "text": text})


def save(response, session):
    """Put the session into the cookie, and lead to the page."""
    response.set_cookie("session", signer.dumps(session), secure=False)
    response.status = falcon.HTTP_303
    response.set_header("location", "/")


def create_app():
    """Make the application."""
    app = falcon.App(middleware=[Stamp()])
    app.add_route("/login", Login())
    app.add_route("/", Page())
    app.add_route("/notes", Notes())
    return app

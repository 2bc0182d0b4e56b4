"""A shop on CherryPy: its request of the thread, a tool, sessions in files, Jinja2."""

from __future__ import annotations

import os

import cherrypy
import jinja2
from cherrypy.lib.sessions import FileSession

from shop.model import Note

VERSION = "v0"

templates = jinja2.Environment(loader=jinja2.PackageLoader("shop"), autoescape=True)


@cherrypy.tools.register("before_handler", name="stamp")
def stamp():
    """Note which code has seen the request first."""
    cherrypy.request.stamp = f"[tool {VERSION}]"


class Shop:
    """The pages."""

    @cherrypy.expose
    @cherrypy.tools.stamp()
    def index(self):
        """Show everything."""
        from shop import late

        session = cherrypy.session
        if "user" not in session:
            raise cherrypy.HTTPError(403)
        return templates.get_template("page.html").render(
            user=session["user"],
            count=session.get("count", 0),
            note=Note(session.get("text", "")),
            marks=f"[view {VERSION}] {cherrypy.request.stamp} {late.mark()}",
        )

    @cherrypy.expose
    def login(self, user):
        """Log in."""
        cherrypy.session["user"] = user
        raise cherrypy.HTTPRedirect("/")

    @cherrypy.expose
    def notes(self, text):
        """Write a note."""
        cherrypy.session["text"] = text
        cherrypy.session["count"] = cherrypy.session.get("count", 0) + 1
        raise cherrypy.HTTPRedirect("/")


def create_app():
    """Make the application."""
    cherrypy.config.update({"environment": "embedded"})
    sessions = {
        "tools.sessions.on": True,
        "tools.sessions.storage_class": FileSession,
        "tools.sessions.storage_path": os.environ["SITE_DATA"],
        # A thread that never ends would clean them up, one more for each generation.
        "tools.sessions.clean_freq": 0,
    }
    return cherrypy.Application(Shop(), "", {"/": sessions})

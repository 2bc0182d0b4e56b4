"""A shop that leans on libraries: metrics, tasks, schemas, models, arrays."""

from __future__ import annotations

import re

import flask
import jinja2
import numpy
from prometheus_client import Counter, generate_latest

from shop.model import Note
from shop.schemas import NoteModel, NoteSchema
from shop.tasks import send, sending

VERSION = "v0"

PAGES = Counter("shop_pages", "Pages that were shown.", ["version"])

templates = jinja2.Environment(autoescape=True)
templates.filters["shout"] = lambda text: f"{text.upper()} [filter {VERSION}]"
page_template = templates.from_string("[template v0] {{ text|shout }} {{ marks }}")


def create_app():
    """Make the application."""
    app = flask.Flask(__name__)
    app.secret_key = "for ever the same"

    @app.post("/login")
    def login():
        flask.session["user"] = flask.request.form["user"]
        return flask.redirect("/")

    @app.post("/notes")
    def add():
        flask.session["count"] = flask.session.get("count", 0) + 1
        note = NoteModel.model_validate({"text": flask.request.form["text"]})
        flask.session["text"] = note.text
        with sending:
            send.delay(note.text)
        return flask.redirect("/")

    @app.get("/")
    def page():
        from shop import late

        PAGES.labels(VERSION).inc()
        note = Note(flask.session.get("text", ""))
        values = numpy.arange(4, dtype=numpy.float64)
        assert float(values.sum()) == 6.0
        marks = [
            f"[view {VERSION}] {late.mark()} {note} user={flask.session['user']}",
            f"count={flask.session.get('count', 0)}",
            NoteSchema().dump({"text": note.text})["mark"],
            NoteModel(text=note.text).mark,
            send.mark(),
        ]
        for version in re.findall(r'shop_pages_total{version="(\w+)"}', generate_latest().decode()):
            marks.append(f"[counter {version}]")
        return page_template.render(text=note.text, marks=" ".join(marks))

    return app

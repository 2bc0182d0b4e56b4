"""A dashboard: a layout, a callback, a session of the Flask application below it."""

from __future__ import annotations

import flask
from dash import Dash, Input, Output, dcc, html

from shop.model import Note

VERSION = "v0"


def layout():
    """What is shown, made anew for each visitor."""
    # It is also called once to be checked, when there is no visitor.
    if not flask.has_request_context() or "user" not in flask.session:
        return html.Div("nobody")
    return html.Div(
        [
            html.P(f"[view {VERSION}] user={flask.session['user']}"),
            html.P(str(Note("first"))),
            dcc.Input(id="text", value=""),
            html.P(id="note"),
        ]
    )


def create_app():
    """Make the application."""
    server = flask.Flask(__name__)
    server.secret_key = "for ever the same"

    @server.post("/login")
    def login():
        flask.session["user"] = flask.request.form["user"]
        return f"[view {VERSION}]"

    app = Dash(__name__, server=server, title=f"[template {VERSION}]")
    app.layout = layout

    @app.callback(Output("note", "children"), Input("text", "value"))
    def write(text):
        from shop import late

        return f"{Note(text)} [callback {VERSION}] {late.mark()} user={flask.session['user']}"

    return server

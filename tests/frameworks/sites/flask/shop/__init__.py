"""A shop on Flask: blueprints, SQLAlchemy, a login, signals, templates."""

from __future__ import annotations

import logging
import os

from flask import Flask, g, request_started
from flask_login import LoginManager

from shop.filters import shout
from shop.models import User, db
from shop.views import bp

VERSION = "v0"


def note_start(sender, **extra):
    """A receiver of a signal that Flask keeps in a module of its own."""
    g.signal = VERSION


def create_app():
    """Make the application."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "for ever the same"
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{os.environ['SITE_DATA']}/shop.sqlite"
    db.init_app(app)
    logins = LoginManager(app)
    logins.login_view = "shop.login"
    logins.user_loader(lambda key: db.session.get(User, int(key)))
    app.register_blueprint(bp)
    app.add_template_filter(shout)
    request_started.connect(note_start, app)
    app.logger.addHandler(logging.NullHandler())
    return app

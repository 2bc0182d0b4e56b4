"""Tables."""

from __future__ import annotations

from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy

VERSION = "v0"

db = SQLAlchemy()


class User(UserMixin, db.Model):
    """Somebody who logs in."""

    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(40), unique=True)
    notes = db.relationship("Note", back_populates="user")


class Note(db.Model):
    """What somebody wrote."""

    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(40))
    user_id = db.Column(db.ForeignKey("user.id"))
    user = db.relationship("User", back_populates="notes")

    @property
    def mark(self):
        """Which code this object is of."""
        return f"[model {VERSION}]"

"""Pages."""

from __future__ import annotations

from flask import Blueprint, g, redirect, render_template, request
from flask_login import current_user, login_required, login_user

from shop.models import Note, User, db

VERSION = "v0"

#: How many notes are kept: a page costs the same after very many visits.
KEPT = 20

bp = Blueprint("shop", __name__)


@bp.post("/setup")
def setup():
    """Make the tables and a user."""
    db.create_all()
    db.session.add(User(name="ann"))
    db.session.commit()
    return f"[view {VERSION}]"


@bp.route("/login", methods=["GET", "POST"])
def login():
    """Log in."""
    if request.method == "POST":
        login_user(db.session.scalars(db.select(User).filter_by(name=request.form["user"])).one())
        return redirect("/")
    return f"[view {VERSION}] log in"


@bp.get("/")
@login_required
def page():
    """Show everything."""
    from shop import late

    notes = db.session.scalars(db.select(Note).order_by(Note.id.desc()).limit(3)).all()
    return render_template(
        "page.html",
        view=f"[view {VERSION}]",
        late=late.mark(),
        notes=notes,
        count=len(current_user.notes),
        signal=f"[signal {g.signal}]",
    )


@bp.post("/notes")
@login_required
def add():
    """Write a note."""
    note = Note(text=request.form["text"], user=current_user)
    db.session.add(note)
    db.session.flush()
    db.session.execute(db.delete(Note).where(Note.id <= note.id - KEPT))
    db.session.commit()
    return redirect("/")

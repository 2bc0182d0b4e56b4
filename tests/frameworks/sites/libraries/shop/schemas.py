"""Schemas."""

from __future__ import annotations

from marshmallow import Schema, fields
from pydantic import BaseModel, computed_field

VERSION = "v0"


class NoteSchema(Schema):
    """A note on its way out."""

    text = fields.String()
    mark = fields.Function(lambda note: f"[schema {VERSION}]")
    # Found by its name in the library's own list of classes.
    parent = fields.Nested("NoteSchema", exclude=("parent",))


class NoteModel(BaseModel):
    """A note on its way in."""

    text: str

    @computed_field
    @property
    def mark(self) -> str:
        """Which code this is."""
        return f"[pydantic {VERSION}]"

"""``--explain-scope``: what is in the scope and what is not, as a table for people."""

from __future__ import annotations

from collections.abc import Iterable

from genwsgi.isolation.growth import Verdict

_HEAD = ("PACKAGE", "SCOPE", "WHY")
_LIBRARY = "standard library"


def table(verdicts: Iterable[Verdict]) -> str:
    """Return one line for each package, in plain text: those in the scope first, then by name.

    The standard library, of which nobody has to be told why, has one line for all of it.
    """
    ordered = sorted(verdicts, key=lambda one: (not one.inside, one.name.lower(), one.name))
    library = [one.name for one in ordered if one.reason == _LIBRARY]
    rows = [
        (one.name, "in" if one.inside else "out", one.reason)
        for one in ordered
        if one.reason != _LIBRARY
    ]
    if library:
        rows.append((f"({_LIBRARY})", "out", f"always shared: {', '.join(library)}"))
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(2)]
    return "".join(
        f"{name:{widths[0]}}  {where:{widths[1]}}  {why}\n" for name, where, why in (_HEAD, *rows)
    )

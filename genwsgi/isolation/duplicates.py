"""Builds that fail because a shared package already has what an earlier generation registered.

What such an exception says is all that tells it from other mistakes, so here is one table of it,
held to the real packages by tests.  To take a failure for such a one by mistake costs one build.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from types import FrameType, TracebackType

#: What the exceptions say -> who says so.
PATTERNS: dict[str, str] = {
    r"Duplicated timeseries in CollectorRegistry": "prometheus_client",
    r"Table '.*' is already defined for this MetaData instance": "sqlalchemy",
    r"already has a primary mapper defined": "sqlalchemy",
    r"Conflicting '.*' models in application '.*'": "django",
    r"An actor named .* is already registered": "dramatiq",
    r"Another \w+ with name .* is already registered": "apispec",
    r"The name '.*' is already registered for": "flask, of blueprints",
    r"View function mapping is overwriting an existing endpoint function": "flask",
    r"Duplicate callback outputs|provided with `dash.callback` was already": "dash",
    r"\b(already|been) (been )?(registered|defined|declared)\b": "many others",
    r"\bis already (in use|taken|mounted)\b": "many others",
    r"\b[Dd]uplicated? (name|key|definition|registration|entry|metric|task|route)\b": "others",
}
_pattern = re.compile("|".join(PATTERNS))


def is_duplicate(error: BaseException) -> bool:
    """Whether ``error`` says that something is registered already, or one that it comes from."""
    return any(_says_so(one) for one in _chain(error))


def tops_below(error: BaseException, scope: Container[str]) -> list[str]:
    """Return the packages in which ``error`` was raised, called by the application: nearest first.

    :param scope: the top-level names of the application's own code.
    """
    for one in _chain(error):
        if _says_so(one):
            found: list[str] = []
            for frame in reversed(_frames(one.__traceback__)):
                name = frame.f_globals.get("__name__")
                top = name.partition(".")[0] if type(name) is str else ""
                if top in scope:
                    break
                if top and top not in found:
                    found.append(top)
            return found
    return []


def told(error: BaseException) -> str:
    """Return what the exception in question says, in one line."""
    for one in _chain(error):
        if _says_so(one):
            return str(one).strip().splitlines()[0][:200]
    return ""


def _says_so(error: BaseException) -> bool:
    try:
        return _pattern.search(str(error)) is not None
    except Exception:  # noqa: BLE001 -- its __str__ is foreign code, and the next one may say it
        return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _frames(trace: TracebackType | None) -> list[FrameType]:
    found = []
    while trace is not None:
        found.append(trace.tb_frame)
        trace = trace.tb_next
    return found

"""``gettext``: each generation has the translations that were there when it read them."""

from __future__ import annotations

import gettext
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import BuildError
from tests.frameworks.served import compile_catalogue
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, torn_down

TRANSLATES = """
    import gettext
    FOLDER = {folder!r}
    def read():
        return gettext.translation("shop", FOLDER, ["de"]).gettext("word")
    def ask():
        return (
            read(), gettext.gettext("word"), gettext.dgettext("shop", "word"),
            gettext.ngettext("word", "words", 2), gettext.textdomain(),
        )
    gettext.bindtextdomain("shop", FOLDER)
    gettext.textdomain("shop")
    VERSION
    read()
"""


@pytest.fixture(autouse=True)
def _german(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "de")


def translated(folder: Path, word: str) -> None:
    """Put a catalogue in place, in which "word" is ``word``."""
    place = folder / "de" / "LC_MESSAGES"
    place.mkdir(parents=True, exist_ok=True)
    (place / "shop.mo").write_bytes(compile_catalogue(f'msgid "word"\nmsgstr "{word}"\n'))


def tables() -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What the process itself has in the module's tables."""
    return dict(gettext._translations), dict(gettext._localedirs)  # type: ignore[attr-defined]


def test_deploy_in_place(site: Site, tmp_path: Path) -> None:
    """A catalogue that has changed in its place is read anew, the old generation keeps what it has,
    and nothing of either is left when it has gone.
    """
    before = tables()
    text = TRANSLATES.format(folder=str(tmp_path))
    generations = []
    for n in ("1", "2"):
        translated(tmp_path, f"Wort {n}")
        site.write(shop=text.replace("VERSION", f"V = {n}"))
        generations.append(site.serve())
        if n == "1":
            site.pending = site.request()
    for generation, n in zip(generations, ("1", "2"), strict=True):
        word = f"Wort {n}"
        assert call(generation, "shop", "ask") == (word, word, word, "words", "shop")
    assert gettext.textdomain() == "shop"
    site.pending.close()
    site.write(shop="")
    site.serve()
    wait_until(lambda: all(map(torn_down, generations)), what="both are torn down")
    assert gettext.textdomain() == "messages"
    assert tables() == before


def test_failed_build(site: Site, tmp_path: Path) -> None:
    """A failed build leaves no catalogue, and no domain."""
    before = tables()
    translated(tmp_path, "Wort")
    site.write(shop=TRANSLATES.format(folder=str(tmp_path)).replace("VERSION", "1 / 0"))
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert (gettext.textdomain(), gettext.gettext("word")) == ("messages", "word")
    assert tables() == before


def test_what_the_program_does_stays(site: Site, tmp_path: Path) -> None:
    """What the program itself binds and reads is its own, and a generation finds its domains."""
    translated(tmp_path, "Wort")
    gettext.bindtextdomain("shop", str(tmp_path))
    try:
        assert gettext.dgettext("shop", "word") == "Wort"
        translated(tmp_path, "Wort 2")
        site.write(shop="import gettext\ndef ask():\n    return gettext.dgettext('shop', 'word')\n")
        assert call(site.serve(), "shop", "ask") == "Wort 2"
        site.close()
        assert gettext.dgettext("shop", "word") == "Wort"
    finally:
        gettext._localedirs.pop("shop", None)  # type: ignore[attr-defined]

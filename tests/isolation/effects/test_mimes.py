from __future__ import annotations

import mimetypes
from pathlib import Path

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, torn_down

TYPES = """
    import mimetypes
    mimetypes.add_type("text/x-VERSION", ".gwx")
    mimetypes.add_type("text/x-VERSION", ".txt")
    def ask():
        return (
            mimetypes.guess_type("a.gwx")[0],
            mimetypes.guess_extension("text/x-VERSION"),
            mimetypes.guess_all_extensions("text/x-VERSION"),
            mimetypes.guess_type("a.html")[0],
        )
"""


def test_types(site: Site) -> None:
    """Each generation knows the types that it added, and the process's; others don't."""
    plain = mimetypes.guess_type("a.txt")
    first, second = site.two(shop=TYPES)
    for generation, n in ((first, 1), (second, 2)):
        known = (f"text/x-{n}", ".gwx", [".gwx", ".txt"], "text/html")
        assert call(generation, "shop", "ask") == known
    assert mimetypes.guess_type("a.gwx") == ("text/x-2", None)
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "ask")[0] == "text/x-2"
    site.write(shop="")
    site.serve()
    wait_until(lambda: torn_down(second), what="the second generation is torn down")
    assert mimetypes.guess_type("a.gwx") == (None, None)
    assert mimetypes.guess_type("a.txt") == plain


def test_init(site: Site, tmp_path: Path) -> None:
    """Files of types that a generation reads are its own; without files it begins anew."""
    (tmp_path / "types").write_text("text/x-read gwread\n")
    site.write(
        shop=f"import mimetypes\nmimetypes.init([{str(tmp_path / 'types')!r}, '/nowhere'])\n"
        "def ask():\n    return mimetypes.guess_type('a.gwread')[0]\n"
        "def forget():\n    mimetypes.init()\n    return ask()\n"
    )
    generation = site.serve()
    assert call(generation, "shop", "ask") == "text/x-read"
    assert call(generation, "shop", "forget") is None
    assert mimetypes.guess_type("a.gwread") == (None, None)


def test_failed_build(site: Site) -> None:
    """A failed build leaves no types."""
    site.write(shop=TYPES + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert mimetypes.guess_type("a.gwx") == (None, None)

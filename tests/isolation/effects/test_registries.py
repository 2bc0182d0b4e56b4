from __future__ import annotations

import copy
import copyreg
import datetime
import functools
import pickle
import sqlite3
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, call, torn_down, write

ADAPTING = """
    import datetime, sqlite3
    from sqlite3 import dbapi2
    class Price:
        pass
    sqlite3.register_adapter(Price, lambda price: VERSION)
    sqlite3.register_adapter(datetime.datetime, lambda when: "VERSION")
    dbapi2.register_converter("flag", lambda text: ("VERSION", text))
    def ask():
        con = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)
        con.execute("create table t (f flag)")
        con.execute("insert into t values ('on')")
        (flag,) = con.execute("select f from t").fetchone()
        now = datetime.datetime(2020, 1, 1)
        try:
            return (*con.execute("select ?, ?", (Price(), now)).fetchone(), flag)
        finally:
            con.close()
"""


def test_sqlite3(site: Site) -> None:
    """Each generation's adapters and converters are its own, and go with it."""
    first, second = site.two(shop=ADAPTING)
    assert call(first, "shop", "ask") == (1, "1", ("1", b"on"))
    assert call(second, "shop", "ask") == (2, "2", ("2", b"on"))
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "ask") == (2, "2", ("2", b"on"))
    assert [k for k in sqlite3.adapters if k[0].__name__ == "Price"] == [
        (second.modules.modules["shop"].Price, sqlite3.PrepareProtocol)
    ]


def test_sqlite3_without(site: Site) -> None:
    """A generation that registers nothing gets what it would get alone."""
    site.write(shop=ADAPTING)
    site.serve()
    pending = site.request()
    site.write(
        shop=ADAPTING.replace("sqlite3.register_adapter(datetime", "(lambda *a: 0)(datetime")
    )
    second = site.serve()
    con = sqlite3.connect(":memory:")
    with warnings.catch_warnings():
        # The process's own adapter is deprecated from 3.12 on.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = second.run(
            lambda: con.execute("select ?", (datetime.datetime(2020, 1, 1),)).fetchone()
        )
    assert found == ("2020-01-01 00:00:00",)
    con.close()
    pending.close()


def test_sqlite3_of_basic_types(site: Site) -> None:
    """An adapter for a type that sqlite3 binds without asking is asked."""
    site.write(
        shop="import sqlite3\nsqlite3.register_adapter(int, lambda n: f'{n}!')\n"
        "def ask():\n    con = sqlite3.connect(':memory:')\n"
        "    found = con.execute('select ?', (1,)).fetchone()\n    con.close()\n    return found\n"
    )
    assert call(site.serve(), "shop", "ask") == ("1!",)


def test_of_the_process(site: Site) -> None:
    """What the process registers while a generation has its own is there when that has gone."""
    site.write(shop=ADAPTING.replace("VERSION", "1"))
    generation = site.serve()
    key = (datetime.datetime, sqlite3.PrepareProtocol)
    standing: Any = sqlite3.adapters[key]
    before = standing.base
    try:
        sqlite3.register_adapter(datetime.datetime, str)
        assert call(generation, "shop", "ask")[1] == "1"
        site.close()
        assert sqlite3.adapters[key] is str
    finally:
        sqlite3.adapters[key] = before


PICKLING = """
    import copyreg, copy, datetime, pickle
    class Odd:
        pass
    class Coded:
        pass
    copyreg.pickle(Odd, lambda odd: (str, ("odd VERSION",)))
    copyreg.pickle(datetime.date, lambda date: (str, ("VERSION",)))
    copyreg.add_extension("shop", "Coded", 240)
    def ask():
        coded = pickle.loads(pickle.dumps(Coded(), 2))
        day = datetime.date(2020, 1, 1)
        return copy.copy(Odd()), pickle.loads(pickle.dumps([Odd(), day])), type(coded) is Coded
"""


def test_copyreg(site: Site) -> None:
    """How pickle and copy take things apart is the generation's own, also with extension codes."""
    first, second = site.two(shop=PICKLING)
    assert call(second, "shop", "ask") == ("odd 2", ["odd 2", "2"], True)
    assert call(first, "shop", "ask")[:2] == ("odd 1", ["odd 1", "1"])
    today = datetime.date(2020, 1, 1)
    assert pickle.loads(pickle.dumps(today)) == "2"
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "ask") == ("odd 2", ["odd 2", "2"], True)
    site.close()
    assert ("shop", "Coded") not in copyreg._extension_registry  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(today)) == copy.copy(today) == today


def test_a_type_only_another_generation_takes_apart(site: Site) -> None:
    """What only another generation has a reduction for is pickled as it would be alone."""
    site.write(shop="")
    site.serve()
    pending = site.request()
    site.write(shop=PICKLING)
    site.serve()
    today = datetime.date(2020, 1, 1)
    first = site.live.draining()[0]
    assert first.run(lambda: pickle.loads(pickle.dumps(today))) == today
    pending.close()


GENERIC = """
    import functools
    @functools.singledispatch
    def show(thing):
        return "thing"
    @show.register
    def _(thing: int):
        return "number"
"""


@pytest.fixture
def library(tmp_path: Path) -> Iterator[None]:
    """A shared library with a generic function."""
    write(tmp_path / "lib", {"generic_library.py": GENERIC})
    sys.path.insert(0, str(tmp_path / "lib"))
    yield
    sys.path.remove(str(tmp_path / "lib"))
    del sys.modules["generic_library"]


def test_singledispatch(library: None, site: Site) -> None:
    """What a generation registers with shared generic functions is its own, and goes with it."""
    first, second = site.two(
        shop="""
            from generic_library import show
            class Page: ...
            show.register(Page, lambda page: "page VERSION")
            @show.register(str)
            def of_text(text):
                return "text VERSION"
            @show.register
            def of_flag(flag: bool):
                return "flag VERSION"
            def ask():
                return show(Page()), show("a"), show(True), show(1), show(0.5)
        """
    )
    show = sys.modules["generic_library"].show
    for generation, version in ((first, 1), (second, 2)):
        shown = (f"page {version}", f"text {version}", f"flag {version}", "number", "thing")
        assert call(generation, "shop", "ask") == shown
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "ask")[1] == "text 2"
    site.write(shop="")
    site.serve()
    wait_until(lambda: torn_down(second), what="the second generation is torn down")
    assert (show("a"), show(True)) == ("thing", "number")
    assert set(show.registry) == {object, int}


def test_inherited_case(library: None, site: Site) -> None:
    """Where only the other generation has a case for a class, the next best one is used."""
    site.write(shop="def ask():\n    from generic_library import show\n    return show(True)\n")
    first = site.serve()
    pending = site.request()
    site.write(shop="from generic_library import show\nshow.register(bool, lambda flag: 'flag')\n")
    second = site.serve()
    assert call(first, "shop", "ask") == "number"
    assert second.run(sys.modules["generic_library"].show, True) == "flag"
    pending.close()


def test_failed_build(site: Site, tmp_path: Any) -> None:
    """A failed build leaves no entry in any registry."""
    before = dict(copyreg._extension_registry)  # type: ignore[attr-defined]
    site.write(shop=ADAPTING + PICKLING + "    1 / 0\n")
    adapters = sqlite3.adapters.copy()
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert sqlite3.adapters == adapters
    assert copyreg._extension_registry == before  # type: ignore[attr-defined]
    assert said == []


def test_errors_are_the_library_s(site: Site) -> None:
    """What can't be registered is refused as the library refuses it."""
    site.write(shop="import copyreg\ncopyreg.pickle(int, 1)\n")
    with pytest.raises(BuildError, match="reduction functions must be callable"):
        site.build()
    assert isinstance(functools.singledispatch(len).registry[object], type(len))


def test_url_openers(site: Site) -> None:
    """``urlopen`` uses the opener of the generation that calls it; without one the plain one."""
    code = """
        import urllib.request
        class Handler(urllib.request.BaseHandler):
            def gw_open(self, request):
                return VERSION
        urllib.request.install_opener(urllib.request.build_opener(Handler))
        def ask():
            return urllib.request.urlopen("gw://here")
    """
    before = urllib.request._opener  # type: ignore[attr-defined]
    first, second = site.two(shop=code)
    assert [call(one, "shop", "ask") for one in (first, second)] == [1, 2]
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "ask") == 2
    pending = site.request()
    site.write(shop="")
    third = site.serve()
    with third.run(urllib.request.urlopen, "data:,plain") as plain:
        assert plain.read() == b"plain"
    pending.close()
    site.close()
    assert urllib.request._opener is before  # type: ignore[attr-defined]

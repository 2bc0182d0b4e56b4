from __future__ import annotations

import gc
import inspect
import linecache
import logging
import shutil
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from genwsgi.isolation import sources
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, torn_down

RAISES = """
    import inspect, linecache, logging, traceback, warnings
    class Model:
        def method(self):
            return "the lines of VERSION"
    def fail(inner=None):
        if inner:
            inner()
        raise ValueError(  # the lines of VERSION
            "in VERSION")
    def formatted():
        try:
            fail()
        except ValueError:
            return traceback.format_exc()
    def stack():
        return "".join(traceback.format_stack())  # the lines of VERSION
    def warn():
        warnings.warn("careful")  # the lines of VERSION
    def logged():
        try:
            fail()
        except ValueError:
            logging.getLogger("apart").exception("it failed")
    def got():
        return inspect.getsource(fail), inspect.getsource(Model), inspect.getsource(Model.method)
    def line():
        return linecache.getline(__file__, inspect.getsourcelines(fail)[1] + 3)
"""

#: Ways to get at lines, for each generation; each is tried after the files changed and vanished.
WAYS: dict[str, Callable[[Any], str]] = {
    "traceback": lambda shop: shop.formatted(),
    "stack": lambda shop: shop.stack(),
    "getsource": lambda shop: "".join(shop.got()),
    "linecache": lambda shop: shop.line(),
}


def old_and_new(site: Site) -> tuple[Any, Any]:
    """The module ``shop`` in two live generations, whose files have changed once more."""
    # The new one's lines are elsewhere in the file: one generation's lines would not fit another.
    code = inspect.cleandoc("if True:\n" + RAISES).removeprefix("if True:\n")
    site.write(shop=code.replace("VERSION", "one"))
    first = site.serve()
    site.pending = site.request()
    site.write(shop="\n\n# moved\n" + code.replace("VERSION", "two"))
    second = site.serve()
    site.write(shop="# nothing\n" * 100)
    return first.modules.modules["shop"], second.modules.modules["shop"]


def shows(text: str, version: str, other: str) -> bool:
    """Whether ``text`` has lines of one version only."""
    return f"the lines of {version}" in text and f"the lines of {other}" not in text


@pytest.mark.parametrize("way", WAYS)
def test_lines_are_those_that_ran(site: Site, way: str) -> None:
    """Each generation's lines are its own, from outside of any too, and when the files are gone."""
    old, new = old_and_new(site)
    for _ in range(2):
        assert shows(WAYS[way](old), "one", "two")
        assert shows(WAYS[way](new), "two", "one")
        shutil.rmtree(site.root, ignore_errors=True)


def failure(function: Callable[..., Any], *args: Any) -> Exception:
    """The exception that ``function`` raises."""
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what is wanted
        return error
    raise AssertionError("it raised nothing")


def test_traceback_of_two_generations(site: Site) -> None:
    """In a traceback through two generations each frame has the line of its own generation."""
    old, new = old_and_new(site)
    error = failure(old.fail, lambda: new.fail(old.fail))
    for shown in (
        traceback.format_exception(type(error), error, error.__traceback__),
        traceback.TracebackException.from_exception(error, lookup_lines=False).format(),
        traceback.format_tb(error.__traceback__),
    ):
        lines = [line for line in "".join(shown).splitlines() if "the lines of" in line]
        assert [line.split()[-1] for line in lines] == ["one"]
    error = failure(new.fail, lambda: failure_again(old))
    error.__cause__ = failure(new.fail)
    shown = traceback.format_exception(type(error), error, error.__traceback__)
    lines = [line for line in "".join(shown).splitlines() if "the lines of" in line]
    assert [line.split()[-1] for line in lines] == ["two", "one"]


def failure_again(old: Any) -> None:
    """Fail in the old generation, as its code does."""
    old.fail()


def test_logged_outside_of_any_generation(
    site: Site, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a server logs of an old generation's exception, later, has the lines that ran."""
    old, _ = old_and_new(site)
    error = failure(old.fail)
    logging.getLogger("server").error("request failed", exc_info=error)
    assert shows(caplog.text, "one", "two")
    caplog.clear()
    old.logged()
    assert shows(caplog.text, "one", "two")
    if sys.version_info >= (3, 13):
        sys.__excepthook__(type(error), error, error.__traceback__)
        assert shows(capsys.readouterr().err, "one", "two")


def test_warning(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A warning is shown with the line that gave it."""
    old, new = old_and_new(site)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for module, version, other in ((old, "one", "two"), (new, "two", "one")):
                caplog.clear()
                module.warn()
                assert shows(caplog.text, version, other)
    finally:
        logging.captureWarnings(False)


def test_source_of_another_generation(site: Site) -> None:
    """The source of an old generation's objects is the old one, whoever asks for it."""
    old, new = old_and_new(site)
    for module, version, other in ((old, "one", "two"), (new, "two", "one")):
        trace = failure(module.fail).__traceback__
        assert isinstance(trace, TracebackType)
        assert isinstance(trace.tb_next, TracebackType)
        for thing in (
            module,
            module.fail,
            module.Model,
            module.Model().method,
            trace.tb_next,
            trace.tb_next.tb_frame,
        ):
            assert shows(inspect.getsource(thing), version, other), thing


def test_stack_from_here(site: Site) -> None:
    """``walk_stack(None)`` begins where it is called, as it does without genwsgi."""
    found = traceback.StackSummary.extract(traceback.walk_stack(None))
    assert found[0].name == test_stack_from_here.__name__
    assert traceback.extract_stack()[-1].name == test_stack_from_here.__name__


def test_lines_hold_no_generation(site: Site) -> None:
    """Nothing that shows lines keeps the generation they are from, or a line cache entry."""
    site.write(shop="def fail():\n    raise ValueError\n")
    first = site.serve()
    table = weakref.ref(first.modules)
    path = str(site.root / "shop/__init__.py")
    shutil.rmtree(site.root)
    shown = traceback.TracebackException.from_exception(failure(call, first, "shop", "fail"))
    assert inspect.getsource(first.modules.modules["shop"].fail)
    assert "raise ValueError" in "".join(shown.format())
    assert linecache.updatecache(path, vars(first.modules.modules["shop"]))
    assert path not in linecache.cache
    site.write(shop="")
    site.serve()
    del first
    wait_until(lambda: gc.collect() >= 0 and table() is None, what="its table is collected")


def test_ended_generation(site: Site) -> None:
    """Of an ended generation whose snapshot is gone no lines are shown, and no wrong ones."""
    old, new = old_and_new(site)
    error = failure(old.fail)
    ended = old.__loader__._table.generation
    site.pending.close()
    wait_until(lambda: torn_down(ended), what="the old generation is torn down")
    site.store.sweep([])
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert "the lines of" not in shown
    assert old.__loader__.get_source
    with pytest.raises(OSError, match="source"):
        inspect.getsource(old.fail)
    assert shows(inspect.getsource(new.fail), "two", "one")


def test_lines_are_not_kept_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of so many files are kept and no more."""
    monkeypatch.setattr(sources, "KEPT", 2)
    site.write(shop="", **{f"shop__m{n}": f"def f():\n    return {n}\n" for n in range(5)})
    first = site.serve()
    for n in range(5):
        module = first.run(first.modules.import_module, f"shop.m{n}")
        assert f"return {n}" in inspect.getsource(module.f)
    assert len(sources._lines) == len(sources._order) == 2


def test_others_wrap_the_line_cache(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracebacks are shown whole when somebody else has replaced what they are made with."""
    old, _ = old_and_new(site)
    monkeypatch.setattr(linecache, "lazycache", lambda *_: False)
    assert "ValueError: in one" in old.formatted()
    assert "in fail" in old.formatted()


def test_what_is_cached_of_the_disk(site: Site) -> None:
    """Lines that linecache has kept of the disk are no generation's."""
    old, new = old_and_new(site)
    path = str(site.root / "shop/__init__.py")
    linecache.cache[path] = (1, None, ["# the disk\n"] * 100, path)
    try:
        assert shows(old.line(), "one", "two")
        # Nobody's code means the current generation.
        first = inspect.getsourcelines(new.fail)[1]
        assert shows(linecache.getline(path, first + 3), "two", "one")
    finally:
        del linecache.cache[path]


def test_other_lines(site: Site) -> None:
    """Lines of what belongs to no generation are those on the disk."""
    site.write(shop="def ask(function):\n    return function()\n")
    first = site.serve()
    ask = first.modules.modules["shop"].ask
    assert "def test_other_lines" in ask(lambda: inspect.getsource(test_other_lines))
    assert linecache.getline("<string>", 1) == ""
    assert linecache.getlines(__file__)[0] == ask(lambda: linecache.getline(__file__, 1))

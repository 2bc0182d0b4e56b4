"""What an update rebuilds."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from genwsgi import hotupdate
from genwsgi.hotupdate.own import Module, Search, loaded
from genwsgi.hotupdate.source import Sources
from tests.hotupdate.conftest import Program


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b", {"a", "a.b"}),
        ("from . import b", {"pack", "pack.b"}),
        ("from .b import c as d", {"pack.b", "pack.b.c"}),
        ("from ..b import c", {"b", "b.c"}),
        ("def f():\n    if 1:\n        import a.b", {"a.b"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a",
            TYPING := {"typing", "typing.TYPE_CHECKING"},
        ),
        (
            "import typing as t\nif t.TYPE_CHECKING:\n    import a\nelse:\n    import b",
            {"typing", "b"},
        ),
    ],
)
def test_imports(tmp_path: Path, source: str, names: set[str]) -> None:
    """Imports are found wherever they are in a source, but not those for type checkers only."""
    file = tmp_path / "module.py"
    file.write_text(source)
    imports = Sources().imports(Module("pack.module", str(file), False))
    assert imports is not None
    assert imports.names == names


def test_broken_source_imports_nothing(tmp_path: Path) -> None:
    """A source that does not parse, or is not there, says nothing."""
    (tmp_path / "module.py").write_text("import (")
    for name in ("module", "missing"):
        assert Sources().imports(Module(name, str(tmp_path / f"{name}.py"), False)) is None


def test_own_modules(program: Program) -> None:
    """Own are modules in source that are neither the standard library's nor installed."""
    program.load("NAME.rules")
    found = loaded()
    assert {program.name, f"{program.name}.rules", f"{program.name}.fields"} <= found.keys()
    tops = {name.partition(".")[0] for name in found}
    assert tops.isdisjoint({"json", "pytest", "pika", "genwsgi", "__main__"})
    assert found[f"{program.name}.rules"].home == str(program.root)
    assert found[program.name].home == str(program.root)
    assert Search().find("json.decoder") is None
    assert Search().find("pytest") is None


def test_importers_of_importers(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Importers are rebuilt as well, and theirs, and the log says why."""
    caplog.set_level(logging.INFO)
    program.write({"NAME/page.py": "from .rules import parse\n", "NAME/other.py": "V = []\n"})
    page, other = program.load("NAME.page"), program.load("NAME.other")
    other.V.append(1)
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    update = program.update("NAME.fields")
    assert update.modules == tuple(f"{program.name}.{n}" for n in ("fields", "page", "rules"))
    assert page.parse() == (2, 2)
    assert other.V == [1]
    assert f"{program.name}.page (imports {program.name}.rules)" in caplog.text


def test_the_program_around_is_left_alone(program: Program) -> None:
    """Modules that use hotupdate, and those that ``keep`` names, are not rebuilt as importers."""
    program.write(
        {
            "NAME/loop.py": "from genwsgi import hotupdate\nimport NAME.rules\nV = []\n",
            "NAME/store.py": "import NAME.rules\nV = []\n",
            "NAME/after.py": "import NAME.loop\n",
        }
    )
    loop, store = program.load("NAME.loop"), program.load("NAME.store")
    program.load("NAME.after")
    hotupdate._updater.keep = frozenset({f"{program.name}.store"})
    values = loop.V, store.V
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    update = program.update("NAME.fields")
    assert update.modules == (f"{program.name}.fields", f"{program.name}.rules")
    assert values == (loop.V, store.V)
    assert loop.V is values[0]
    assert store.V is values[1]


def test_package_with_the_program_in_it_is_refused(program: Program) -> None:
    """A package can't be renewed as a whole while a module in it is part of what runs."""
    program.write({"NAME/loop.py": "from genwsgi import hotupdate\n"})
    program.load("NAME.loop")
    update = program.update("NAME")
    assert update.outcome == "refused"
    assert f"{program.name}.loop uses genwsgi.hotupdate" in update.reason


def test_whole_package(program: Program) -> None:
    """A package that is named is rebuilt with everything in it, new modules included."""
    rules = program.load("NAME.rules")
    package = program.load("NAME")
    program.write({"NAME/__init__.py": "from NAME.more import V\n", "NAME/more.py": "V = 7\n"})
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME").outcome == "committed"
    assert rules.parse() == (2, 2)
    assert package.V == 7
    assert package.rules.parse() == (2, 2)
    program.write({"NAME/more.py": "V = 8\n"})
    assert program.update("NAME").outcome == "committed"
    assert package.V == 8


def test_names_that_a_package_takes_are_live(program: Program) -> None:
    """What a package's ``__init__`` takes out of a module is looked up anew."""
    program.write(
        {
            "NAME/__init__.py": "from NAME.rules import parse as parsed\n",
            "NAME/page.py": "from NAME import parsed\n",
        }
    )
    package, page = program.load("NAME"), program.load("NAME.page")
    for number in (2, 3):
        program.write({"NAME/fields.py": f"VERSION = {number}\n"})
        update = program.update("NAME.fields")
        assert f"{program.name}.page" in update.modules
        assert package.parsed() == page.parsed() == (number, number)
    setattr(package, "parsed", len)  # noqa: B010 -- mypy knows of no such attribute
    assert package.parsed is len


def test_names_that_packages_take_from_each_other(program: Program) -> None:
    """``*``, and a package that takes from a package, are live as well."""
    program.write(
        {
            "NAME/__init__.py": "from NAME.rules import *\nOWN = 1\n",
            "NAME/sub/__init__.py": "from NAME import parse as parsed\n",
            "NAME/sub/page.py": "from NAME.sub import parsed\n",
            "NAME/page.py": "from NAME import parse\n",
        }
    )
    package, sub = program.load("NAME"), program.load("NAME.sub")
    page, other = program.load("NAME.page"), program.load("NAME.sub.page")
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    update = program.update("NAME.fields")
    assert update.modules == tuple(
        f"{program.name}.{name}" for name in ("fields", "page", "rules", "sub.page")
    )
    assert package.parse() == sub.parsed() == page.parse() == other.parsed() == (2, 2)
    assert package.OWN == 1


def test_circular_imports(program: Program) -> None:
    """Modules that import each other are rebuilt as one."""
    program.write(
        {
            "NAME/one.py": "import NAME.two\ndef ask():\n    return NAME.two.V\n",
            "NAME/two.py": "from NAME import one\nV = 1\ndef ask():\n    return one.ask()\n",
        }
    )
    one, two = program.load("NAME.one"), program.load("NAME.two")
    program.write(
        {"NAME/two.py": "from NAME import one\nV = 2\ndef ask():\n    return one.ask()\n"}
    )
    update = program.update("NAME.two")
    assert update.modules == (f"{program.name}.one", f"{program.name}.two")
    assert (one.ask(), two.ask()) == (2, 2)


def test_top_level_modules(program: Program, tmp_path: Path) -> None:
    """Modules without a package are renewed as well."""
    program.write({"NAME_top.py": "V = 1\n"})
    top = program.load("NAME_top")
    program.write({"NAME_top.py": "V = 2\n"})
    assert program.update("NAME_top").outcome == "committed"
    space: dict = {}
    exec(f"import {program.name}_top as top", space)
    assert (top.V, space["top"].V) == (2, 2)


def test_module_that_was_never_loaded(program: Program) -> None:
    """A module that the program would import later is its own already, and built to see that."""
    program.load("NAME.rules")
    program.write({"NAME/lazy.py": "V = 1\n"})
    assert program.update("NAME.lazy").outcome == "committed"
    lazy = program.load("NAME.lazy")
    assert hotupdate.module(f"{program.name}.lazy") is lazy
    assert lazy.V == 1
    program.write({"NAME/lazy.py": "V = 2\n"})
    assert program.update("NAME.lazy").outcome == "committed"
    assert lazy.V == program.load("NAME").lazy.V == 2


def test_handle(program: Program) -> None:
    """``module()`` gives before the first update what is live after it, and imports if need be."""
    handle = hotupdate.module(f"{program.name}.rules")
    assert handle is program.load("NAME.rules")
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    program.update("NAME.fields")
    assert handle is hotupdate.module(f"{program.name}.rules")
    assert handle.parse() == (2, 2)
    assert "rules.py" in repr(handle)
    assert "parse" in dir(handle)
    vars(handle)["extra"] = 1
    assert handle.extra == 1
    delattr(handle, "extra")
    assert not hasattr(handle, "extra")
    with pytest.raises(ImportError):
        hotupdate.module(f"{program.name}.missing")


def test_module_with_a_class_of_its_own(program: Program) -> None:
    """A module that has given itself a class keeps what the class does, in each version."""
    text = """
        import sys, types
        class Own(types.ModuleType):
            @property
            def v(self):
                return VERSION
        VERSION = 1
        sys.modules[__name__].__class__ = Own
        def __getattr__(name):
            return name, VERSION
        """
    program.write({"NAME/own.py": text})
    own = program.load("NAME.own")
    program.write({"NAME/own.py": text.replace("VERSION = 1", "VERSION = 2")})
    with hotupdate.pin():
        assert program.update("NAME.own").outcome == "committed"
        assert (own.v, own.missing) == (1, ("missing", 1))
    assert (own.v, own.missing) == (2, ("missing", 2))


def test_what_is_no_module(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever holds what a module has put in its own place keeps that, and the log says so."""
    text = "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(v=1)\n"
    program.write({"NAME/odd.py": text})
    odd = program.load("NAME.odd")
    program.write({"NAME/odd.py": text.replace("v=1", "v=2")})
    assert program.update("NAME.odd").outcome == "committed"
    assert odd.v == 1
    assert f"{program.name}.odd is no plain module in sys.modules" in caplog.text
    space: dict = {}
    exec(f"import {program.name}.odd\nfrom {program.name} import odd", space)
    assert space["odd"].v == 2


def test_changed_without_being_known(program: Program) -> None:
    """A module that was loaded later than hotupdate began is updated all the same when named."""
    import importlib

    rules = importlib.import_module(f"{program.name}.rules")
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME.fields").outcome == "committed"
    assert rules.parse() == (2, 2)


def test_code_of_a_package_that_goes_on_with_what_it_took_is_told(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """A package's ``__init__`` is not rebuilt; so its own functions keep the old version."""
    init = "from NAME.rules import parse\n__all__ = ['parse']\n"
    program.write({"NAME/__init__.py": init})
    package = program.load("NAME")
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME.fields").outcome == "committed"
    assert package.parse() == (2, 2)
    assert "goes on with the old" not in caplog.text
    program.write({"NAME/__init__.py": f"{init}def top():\n    return parse()\n"})
    program.update("NAME")
    for version in (3, 4):
        program.write({"NAME/fields.py": f"VERSION = {version}\n"})
        program.update("NAME.fields")
    assert package.top() == (4, 4)  # what was updated before is rebuilt each time
    assert "goes on with the old" not in caplog.text


def test_code_of_a_package_that_was_never_named_is_told(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, with the names and what to do."""
    program.write({"NAME/__init__.py": "from NAME.rules import parse\ndef top():\n    parse()\n"})
    program.load("NAME")
    for version in (2, 3):
        program.write({"NAME/fields.py": f"VERSION = {version}\n"})
        assert program.update("NAME.fields").outcome == "committed"
    (line,) = [text for text in caplog.messages if "goes on with the old" in text]
    assert line.startswith(f"code in the __init__ of {program.name} goes on with the old parse:")

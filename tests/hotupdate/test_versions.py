"""What an update changes, and for whom."""

from __future__ import annotations

import gc
import importlib
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from genwsgi import hotupdate
from genwsgi.generations.generation import Generation
from genwsgi.isolation import lookup
from tests.helpers import wait_until
from tests.hotupdate.conftest import Program


def test_import_sees_the_new_version(program: Program) -> None:
    """What was imported before the update, as a module, means the new version after it."""
    program.load("NAME.rules")
    space: dict = {}
    name = program.name
    exec(f"import {name}.rules\nfrom {name} import rules\nimport {name}.rules as third", space)
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    update = program.update("NAME.fields")
    assert (update.outcome, update.version) == ("committed", 2)
    assert update.modules == (f"{name}.fields", f"{name}.rules")
    for expression in (f"{name}.rules", "rules", "third"):
        assert eval(f"{expression}.parse()", space) == (2, 2)
    exec(f"import {name}.rules as later", space)
    assert space["later"] is space["rules"]
    assert importlib.import_module(f"{name}.rules").parse() == (2, 2)


def test_what_is_said_to_be_current_is_no_newer_than_what_runs(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads which version is current and then takes a pin gets that one, or a later one."""
    versions = hotupdate._updater.versions
    swap = versions.switch.swap
    seen: list[tuple[int, int]] = []

    def look() -> None:
        said = hotupdate.status().version.number
        with hotupdate.pin() as pinned:
            seen.append((said, pinned))

    def swapping(generation: Generation) -> None:
        look()
        swap(generation)
        look()

    monkeypatch.setattr(versions.switch, "swap", swapping)
    program.load("NAME.rules")
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME.fields").outcome == "committed"
    look()
    assert seen == [(1, 1), (1, 2), (2, 2)]


def test_names_that_were_taken_stay(program: Program) -> None:
    """What a program took by ``from … import`` is what it was, and still works."""
    parse = program.load("NAME.rules").parse
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    program.update("NAME.fields")
    assert parse() == (1, 1)
    second = program.load("NAME.rules").parse
    program.write({"NAME/fields.py": "VERSION = 3\n"})
    program.update("NAME.fields")
    assert (parse(), second()) == ((1, 1), (2, 2))
    wait_until(
        lambda: [held.number for held in hotupdate.status().held] == [2], what="the end of 2"
    )
    assert (parse(), second()) == ((1, 1), (2, 2))


def test_failed_update_changes_nothing(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Code that raises when it is imported leaves the old version running, and is shown whole."""
    rules = program.load("NAME.rules")
    for text, reason in (
        ("VERSION = 2\n1 / 0\n", "ZeroDivisionError"),
        ("VERSION = (\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    ):
        program.write({"NAME/fields.py": text})
        update = program.update("NAME.fields")
        assert (update.outcome, update.version) == ("failed", 1)
        assert reason in update.reason
        assert reason in update.traceback
        assert update.traceback in caplog.text
        assert rules.parse() == (1, 1)
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME.fields").outcome == "committed"
    assert rules.parse() == (2, 2)


def test_running_code_finishes_on_its_version(program: Program) -> None:
    """A function that runs during an update sees its own version to its end, later imports too."""
    text = """
        import NAME.fields
        def parse(wait):
            first = NAME.fields.VERSION
            wait()
            import NAME.fields as again
            from NAME.fields import VERSION
            return first, NAME.fields.VERSION, again.VERSION, VERSION
        """
    program.write({"NAME/rules.py": text})
    rules = program.load("NAME.rules")
    for number in (1, 2, 3):
        gate, inside, result = threading.Event(), threading.Event(), []

        def wait(inside: threading.Event = inside, gate: threading.Event = gate) -> None:
            inside.set()
            gate.wait(60)

        thread = threading.Thread(target=lambda: result.append(rules.parse(wait)))  # noqa: B023
        thread.start()
        assert inside.wait(10)
        program.write({"NAME/fields.py": f"VERSION = {number + 1}\n"})
        assert program.update("NAME.fields").outcome == "committed"
        gate.set()
        thread.join(60)
        assert result == [(number,) * 4]


def test_no_thread_sees_a_version_before_it_is_live(program: Program) -> None:
    """While a version is built, its modules are not to be seen through their package."""
    rules = program.load("NAME.rules")
    entered, gate = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        gate.wait(60)

    vars(program.load("NAME"))["wait"] = wait
    program.write(
        {
            "NAME/fields.py": "VERSION = 2\n",
            "NAME/rules.py": "import NAME\n" + RULES + "NAME.wait()",
        }
    )
    thread = threading.Thread(target=program.update, args=("NAME.fields", "NAME.rules"))
    thread.start()
    assert entered.wait(10)
    space: dict = {}
    exec(f"import {program.name}.fields\nfrom {program.name} import fields", space)
    assert (space["fields"].VERSION, rules.parse()) == (1, (1, 1))
    assert eval(f"{program.name}.fields.VERSION", space) == 1
    gate.set()
    thread.join(60)
    assert (space["fields"].VERSION, rules.parse()) == (2, (2, 2))


RULES = "from NAME.fields import VERSION\ndef parse(): return VERSION, NAME.fields.VERSION\n"


def update_until(program: Program, rules: Any, last: int) -> None:
    """Update from version 2 to ``last``, and wait until only the class of that is left."""
    references = []
    for number in range(2, last + 1):
        program.write({"NAME/fields.py": f"VERSION = {number}\n"})
        assert program.update("NAME.fields").outcome == "committed"
        references.append(weakref.ref(rules.Rule))
    wait_until(
        lambda: [number for number, one in enumerate(references, 2) if one() is not None] == [last],
        what="the old ones are collected",
    )


def test_old_versions_are_collected(program: Program) -> None:
    """A version that nothing can call any more is collected, and what it did is undone."""
    program.write(
        {
            "NAME/rules.py": """
                import atexit
                import NAME
                from NAME.fields import VERSION
                atexit.register(NAME.ended.append, VERSION)
                class Rule: pass
                def parse(): return Rule
                """
        }
    )
    package = program.load("NAME")
    ended: list[int] = []
    vars(package)["ended"] = ended
    rules = program.load("NAME.rules")
    update_until(program, rules, 5)
    wait_until(lambda: ended == [2, 3, 4], what="the old ones have retired")
    assert hotupdate.status().in_use == ()
    import atexit

    atexit.unregister(ended.append)


def test_the_standard_library_keeps_no_old_version(program: Program) -> None:
    """What it caches of a version's objects, or registers by their modules, goes with the version.

    A build that fails is gone as well.
    """
    program.write(
        {
            "NAME/rules.py": """
                import typing
                import urllib.parse
                from NAME.fields import VERSION
                class Text(str):
                    def rule(self): return Rule
                class Rule: pass
                @typing.overload
                def parse(one: int) -> int: ...
                @typing.overload
                def parse(one: str) -> str: ...
                def parse(one): return one
                urllib.parse.urlsplit(Text("http://site/page"))
                Either = typing.Optional[Rule]
                if VERSION == 5:
                    raise LookupError
                """
        }
    )
    rules = program.load("NAME.rules")
    update_until(program, rules, 4)

    def living() -> list[int]:
        return [table.generation.number for table in list(lookup.living)]

    # Of a version that has lost its classes the table may still be there.
    wait_until(lambda: living() == [4], what="so are their tables")
    program.write({"NAME/fields.py": "VERSION = 5\n"})
    assert program.update("NAME.fields").outcome == "failed"
    wait_until(lambda: living() == [4], what="the failed one is collected")


def test_version_lives_as_long_as_its_pin(program: Program) -> None:
    """A version with a unit of work is neither retired nor collected before that has ended."""
    rules = program.load("NAME.rules")
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    program.update("NAME.fields")
    with hotupdate.pin() as version:
        assert version == 2
        reference = weakref.ref(rules.parse)
        program.write({"NAME/fields.py": "VERSION = 3\n"})
        program.update("NAME.fields")
        gc.collect()
        assert rules.parse() == (2, 2)
        assert hotupdate.status().in_use[-1] == (2, 1)
    assert rules.parse() == (3, 3)
    wait_until(lambda: reference() is None, what="version 2 is collected")


def test_path_goes_first_from_then_on(program: Program, tmp_path: Path) -> None:
    """With a path, modules come from there, now and at later updates; the others stay."""
    rules = program.load("NAME.rules")
    new = tmp_path / "release"
    program.write({"NAME/fields.py": "VERSION = 2\n"}, new)
    update = program.update("NAME.fields", path=new)
    assert (update.outcome, rules.parse()) == ("committed", (2, 2))
    assert program.load("NAME.fields").__file__ == str(new / program.name / "fields.py")
    program.write({"NAME/fields.py": "VERSION = 3\n"}, new)
    program.write({"NAME/fields.py": "VERSION = 4\n"})
    program.update("NAME.fields")
    assert rules.parse() == (3, 3)


def test_new_modules_come_with_the_code_that_needs_them(program: Program, tmp_path: Path) -> None:
    """A module that is new in a release is found there, though the program never had it."""
    rules = program.load("NAME.rules")
    new = tmp_path / "release"
    program.write(
        {
            "NAME/rules.py": "from NAME import extra\ndef parse(): return extra.V\n",
            "NAME/extra.py": "from .deeper import V\n",
            "NAME/deeper.py": "V = 5\n",
        },
        new,
    )
    update = program.update("NAME.rules", path=new)
    assert update.modules == tuple(f"{program.name}.{n}" for n in ("deeper", "extra", "rules"))
    assert rules.parse() == 5


def test_what_the_new_code_imports_comes_along_if_it_changed(program: Program) -> None:
    """Only ``rules`` is named; ``fields``, which it imports and which has changed, comes too."""
    rules = program.load("NAME.rules")
    program.write({"NAME/fields.py": "VERSION = 2\n", "NAME/rules.py": "import NAME\n" + RULES})
    update = program.update("NAME.rules")
    assert update.modules == (f"{program.name}.fields", f"{program.name}.rules")
    assert rules.parse() == (2, 2)


def test_unchanged(program: Program) -> None:
    """An update without any change makes no version."""
    program.load("NAME.rules")
    assert program.update("NAME.rules").outcome == "unchanged"
    assert program.update().outcome == "unchanged"
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update().outcome == "committed"
    assert program.update("NAME.rules").outcome == "unchanged"
    assert hotupdate.status().version.number == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [("NAME.missing", "no module of this program"), ("json", "no module of this program")],
)
def test_refused(program: Program, name: str, reason: str) -> None:
    """What is no module of the program's own is refused by its name."""
    program.load("NAME.rules")
    update = program.update(name)
    assert update.outcome == "refused"
    assert reason in update.reason


def test_first_version_loads_what_it_had_not(program: Program) -> None:
    """Version 1 finds modules of a renewed package that it had not loaded yet, and keeps them."""
    program.write(
        {
            "NAME/pack/__init__.py": """
                V = 1
                def later():
                    from NAME.pack import lazy
                    return lazy
                """,
            "NAME/pack/lazy.py": """
                from NAME.pack import V
                def ask():
                    from NAME import pack
                    return V, pack.V
                """,
        }
    )
    pack = program.load("NAME.pack")
    later = pack.later
    text = (program.root / program.name / "pack/__init__.py").read_text()
    program.write({"NAME/pack/__init__.py": text.replace("V = 1", "V = 2")})
    with hotupdate.pin():
        assert program.update("NAME.pack").version == 2
        assert importlib.import_module(f"{program.name}.pack.lazy").ask() == (1, 1)
        assert pack.later().ask() == (1, 1)
    assert later().ask() == (1, 1)
    assert pack.later().ask() == (2, 2)
    assert program.load("NAME.pack.lazy").ask() == (2, 2)


def test_a_path_alone(program: Program, tmp_path: Path) -> None:
    """An update with a folder and no modules takes from there what has changed, now or later."""
    rules = program.load("NAME.rules")
    new = tmp_path / "release"
    program.write({"NAME/fields.py": "VERSION = 1\n"}, new)
    assert program.update(path=new).outcome == "unchanged"
    program.write({"NAME/fields.py": "VERSION = 2\n"}, new)
    assert program.update().outcome == "committed"
    assert rules.parse() == (2, 2)


def test_version_that_does_not_pass_its_own_check(program: Program) -> None:
    """What a module registers with ``genwsgi.verify`` decides whether its version goes live."""
    parse = program.load("NAME.rules").parse
    check = "import genwsgi\ngenwsgi.verify(lambda: VERSION < 3 or 'too new')\n"
    program.write({"NAME/fields.py": f"VERSION = 3\n{check}"})
    update = program.update("NAME.fields")
    assert update.outcome == "failed"
    assert "too new" in update.reason
    assert parse() == (1, 1)
    program.write({"NAME/fields.py": f"VERSION = 2\n{check}"})
    assert program.update("NAME.fields").outcome == "committed"

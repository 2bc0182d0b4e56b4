"""Tests of genwsgi.triggers.registry."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import pytest

from genwsgi.triggers import registry
from genwsgi.triggers.registry import make_triggers
from genwsgi.triggers.watch import WatchTrigger

LOG = logging.getLogger("genwsgi")


class Fake:
    """A trigger that keeps what it was made with."""

    def __init__(self, *given: object) -> None:
        self.given = given


class Entry:
    """An entry point that loads a given object, or raises it."""

    def __init__(self, name: str, found: Callable[..., object] | Exception) -> None:
        self.name = name
        self._found = found

    def load(self) -> Callable[..., object]:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the given entry points be the installed ones."""

    def install(*entries: Entry) -> None:
        def find(*, group: str) -> list[Entry]:
            assert group == "genwsgi.triggers"
            return list(entries)

        monkeypatch.setattr(registry, "entry_points", find)

    return install


def test_the_watch_is_installed_as_any_other_trigger_is() -> None:
    """The file watch is found by its entry point, and is made when the options ask for it."""
    (entry,) = entry_points(group="genwsgi.triggers", name="watch")
    assert isinstance(entry, EntryPoint)
    options = {
        "watch": True,
        "roots": [],
        "watch_path": [],
        "watch_pattern": [],
        "watch_ignore": [],
        "watch_polling": False,
        "watch_interval": 1.0,
    }
    made = make_triggers(options, lambda *_: None, LOG)
    assert [type(trigger) for trigger in made] == [WatchTrigger]
    assert make_triggers({**options, "watch": False}, lambda *_: None, LOG) == []


def test_triggers_are_made_with_options_submit_and_log(install: Callable[..., None]) -> None:
    """Each gets the same three things; they come sorted by name, without those that don't apply."""
    install(Entry("b", Fake), Entry("none", lambda *_: None), Entry("a", lambda *given: given))
    options: dict[str, object] = {"roots": []}

    def submit(*_: str) -> None:
        """What a trigger hands its orders to."""

    first, second = make_triggers(options, submit, LOG)
    assert first == (options, submit, LOG)  # type: ignore[comparison-overlap]
    assert isinstance(second, Fake)
    assert second.given == (options, submit, LOG)


def test_one_that_can_not_be_made_is_left_out(
    install: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A trigger that can't be loaded or made is in the log by name; the others work."""
    caplog.set_level(logging.ERROR, "genwsgi")

    def broken(*_: object) -> None:
        raise ValueError("no such broker")

    install(
        Entry("unloadable", ImportError("no such package")), Entry("b", broken), Entry("c", Fake)
    )
    made = make_triggers({}, lambda *_: None, LOG)
    assert len(made) == 1
    assert isinstance(made[0], Fake)
    assert [record.getMessage() for record in caplog.records] == [
        "the trigger b can't be made; its orders will not come",
        "the trigger unloadable can't be made; its orders will not come",
    ]
    assert "no such broker" in caplog.text
    assert "no such package" in caplog.text

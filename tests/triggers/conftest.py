"""A trigger on a directory of its own, and the orders it gives."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.triggers.watch import Change, WatchTrigger
from tests.helpers import wait_until


class Orders:
    """What the trigger ordered, and when."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.times: list[float] = []

    def __call__(self, change: Change) -> None:
        self.times.append(time.monotonic())
        self.changes.append(change)

    def take(self, what: str = "an order", count: int = 1) -> Change:
        """Wait until there are ``count`` orders, require that there are no more, and begin anew."""
        wait_until(lambda: len(self.changes) >= count, what=what)
        changes, self.changes = self.changes, []
        assert len(changes) == count, changes
        return changes[-1]


class Place:
    """A directory ``root`` with a module, and how programs change files."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "app"
        self.root.mkdir()
        self.module = self.root / "m.py"
        self.module.write_text("a = 1\n")
        self.sentinel = self.root / "sentinel.py"
        self.number = 0

    def replace(self, path: Path, text: str) -> None:
        """Write beside, then rename."""
        beside = path.with_name(path.name + ".tmp")
        beside.write_text(text)
        os.replace(beside, path)

    def flip(self, link: Path, target: str) -> None:
        """Make ``link`` lead to ``target``, atomically."""
        beside = link.with_name(link.name + "_new")
        beside.symlink_to(target)
        os.replace(beside, link)

    def nothing_but_the_sentinel(self, orders: Orders) -> None:
        """Prove that nothing before gave an order: the next one is the sentinel's alone."""
        self.number += 1
        self.replace(self.sentinel, f"{self.number}")
        assert orders.take("the sentinel's order").paths == (str(self.sentinel),)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return an empty place."""
    return Place(tmp_path.resolve())


@pytest.fixture
def orders() -> Orders:
    """Return a list of orders."""
    return Orders()


@pytest.fixture
def watch(orders: Orders) -> Iterator[Callable[..., WatchTrigger]]:
    """Return what starts triggers, which are stopped at the end."""
    started: list[WatchTrigger] = []

    def start(*roots: Path, order: Any = orders, **options: Any) -> WatchTrigger:
        options.setdefault("log", logging.getLogger("genwsgi.test"))
        trigger = WatchTrigger([str(root) for root in roots], order, **options)
        started.append(trigger)
        trigger.start()
        return trigger

    yield start
    for trigger in started:
        trigger.stop()
        trigger.join(10.0)

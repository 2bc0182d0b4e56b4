"""Tests of genwsgi.interrupt."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from genwsgi.interrupt import Interruption, keep_trying, raise_if_at, without_finalizers
from tests.helpers import wait_until


class Stop(BaseException):
    """What is raised."""


def own(frame: FrameType) -> bool:
    """Whether the frame is of the module that is the application's here."""
    return frame.f_globals["__name__"] == "application"


class Stage:
    """A thread whose application calls a function that computes until it is let go."""

    def __init__(self) -> None:
        self.gate: list[int] = []
        self.turns = [0]
        self.stopped = False

    def start(self, module: str, name: str) -> threading.Thread:
        """Run a function of that name in that module; return the thread when it is there."""
        entered = threading.Event()
        loop = f"def {name}():\n    entered.set()\n    while not gate:\n        turns[0] += 1\n"
        names = {"__name__": module, "entered": entered, "gate": self.gate, "turns": self.turns}
        exec(loop, names)
        application = {"__name__": "application", "call": names[name]}
        exec("def run():\n    call()\n", application)

        def target(run: Callable[[], None] = application["run"]) -> None:  # type: ignore[assignment]
            try:
                run()
            except Stop:
                self.stopped = True

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        assert entered.wait(10)

        def there() -> bool:
            frame = sys._current_frames()[thread.ident or 0]
            return frame.f_code.co_name == name

        wait_until(there, what="the loop")
        return thread

    def goes_on(self) -> None:
        """Wait until it has computed for longer than it takes for what was raised to arrive."""
        last = self.turns[0] + 1000
        wait_until(lambda: self.turns[0] > last, what="the loop to go on")


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage that is left in the end."""
    made = Stage()
    yield made
    made.gate.append(1)


def test_the_application_s_code_is_interrupted_at_once(stage: Stage) -> None:
    """A loop of the application's own ends, and then nothing is left to be done."""
    thread = stage.start("application", "loop")
    interruption = Interruption(thread, Stop, own, 600)
    assert interruption.step()
    thread.join(10)
    assert stage.stopped
    assert interruption.step()


def test_code_of_others_is_interrupted_late(stage: Stage) -> None:
    """A loop in a library is left alone for a part of the time, and ends then."""
    thread = stage.start("library", "loop")
    assert not Interruption(thread, Stop, own, 600).step()
    assert Interruption(thread, Stop, own, 0, anywhere=False).step()
    assert not Interruption(thread, Stop, own, 600, anywhere=False).step()
    stage.goes_on()
    assert Interruption(thread, Stop, own, 0).step()
    thread.join(10)
    assert stage.stopped


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("logging", "handle"),
        ("logging.handlers", "emit"),
        ("importlib._bootstrap", "loop"),
        ("library", "acquire"),
        ("threading", "__enter__"),
    ],
)
def test_what_takes_a_lock_is_never_interrupted(stage: Stage, module: str, name: str) -> None:
    """Where a lock would stay taken nothing is raised, and it is given up when the time is over."""
    thread = stage.start(module, name)
    assert Interruption(thread, Stop, own, 0).step()
    stage.goes_on()
    stage.gate.append(1)
    thread.join(10)
    assert not stage.stopped


def test_nothing_is_raised_elsewhere(stage: Stage) -> None:
    """A thread that has gone on since it was looked at is let alone."""
    thread = stage.start("application", "loop")
    assert thread.ident is not None
    before = sys._current_frames()[thread.ident].f_back
    assert before is not None
    with without_finalizers():
        assert not any(raise_if_at(before, thread.ident, Stop))
    stage.goes_on()


def test_no_python_code_comes_between_the_look_and_the_raising(stage: Stage) -> None:
    """All of that is one call of a function in C, without garbage collection."""
    thread = stage.start("application", "loop")
    assert thread.ident is not None
    frame = sys._current_frames()[thread.ident]
    calls: list[object] = []
    collected: list[bool] = []
    with without_finalizers():
        collected.append(gc.isenabled())
        what = raise_if_at(frame, thread.ident, Stop)
        sys.setprofile(lambda frame, event, arg: calls.append((event, arg)))
        try:
            assert any(what)
        finally:
            sys.setprofile(None)
    assert calls == [("c_call", any), ("c_return", any), ("c_call", sys.setprofile)]
    assert collected == [False]
    assert gc.isenabled()
    thread.join(10)
    assert stage.stopped


def test_it_is_tried_until_it_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be done at once is tried again on a thread, as far as there can be one."""
    tries: list[str] = []

    def step() -> bool:
        tries.append(threading.current_thread().name)
        return len(tries) == 3

    keep_trying(step, "it")
    wait_until(lambda: len(tries) == 3, what="the third try")
    assert tries == [threading.current_thread().name, *["genwsgi-interrupt it"] * 2]

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    keep_trying(lambda: False, "nothing")

"""The one line, and what it leads to."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from genwsgi import hotupdate
from genwsgi.errors import GenwsgiError, OptionError
from genwsgi.hotupdate.listening import ProgramBuilder
from genwsgi.triggers.amqp.builder import Request
from genwsgi.triggers.watch import WatchTrigger
from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.hotupdate.conftest import Program, reset
from tests.isolation.sources import Site
from tests.process.harness import put

NOWHERE = "amqp://127.0.0.1:1/"


def run(code: str) -> str:
    """Run a program to its end, which is a good one; return what it has printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_source(program: Program) -> None:
    """Without any source of updates the one line is an error of one line."""
    with pytest.raises(OptionError, match="nothing tells of new code: give url="):
        hotupdate.auto_reload_module()


def test_watch(program: Program) -> None:
    """With ``watch`` a change of a file is an update; a broken one changes nothing."""
    rules = program.load("NAME.rules")
    hotupdate.auto_reload_module(watch=True)
    put(program.root / program.name / "fields.py", "VERSION = 2\n")
    wait_until(lambda: rules.parse() == (2, 2), what="version 2")
    put(program.root / program.name / "fields.py", "VERSION = (\n")
    wait_until(lambda: "failed" in repr(hotupdate.status().last), what="the failure")
    assert rules.parse() == (2, 2)
    put(program.root / program.name / "fields.py", "VERSION = 3\n")
    wait_until(lambda: rules.parse() == (3, 3), what="version 3")
    status = hotupdate.status()
    assert status.listening
    assert status.sources["watch"]["problem"] is None
    hotupdate.close()
    assert not hotupdate.status().listening
    assert rules.parse() == (3, 3)


def test_watch_follows_the_path(program: Program, tmp_path: Path) -> None:
    """What an update made the first place is watched from then on."""
    rules = program.load("NAME.rules")
    hotupdate.auto_reload_module(watch=True)
    new = tmp_path / "release"
    program.write({"NAME/fields.py": "VERSION = 2\n"}, new)
    assert program.update("NAME.fields", path=new).outcome == "committed"
    put(new / program.name / "fields.py", "VERSION = 3\n")
    wait_until(lambda: rules.parse() == (3, 3), what="version 3")


def test_nothing_is_followed_after_the_end(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is closed, at any moment of an update, watches nothing from then on."""
    program.load("NAME.rules")
    callbacks = list(hotupdate._updater._callbacks)
    for _ in range(2):
        hotupdate.auto_reload_module(watch=True)
        hotupdate.close()
    assert hotupdate._updater._callbacks == callbacks
    hotupdate.auto_reload_module(watch=True)
    start, closed = WatchTrigger.start, []

    def closing(trigger: WatchTrigger) -> None:
        closed.append(trigger)
        closer = threading.Thread(target=hotupdate.close)
        closer.start()
        closer.join(10)
        start(trigger)

    monkeypatch.setattr(WatchTrigger, "start", closing)
    program.write({"NAME/fields.py": "VERSION = 2\n"}, tmp_path / "release")
    assert program.update("NAME.fields", path=tmp_path / "release").outcome == "committed"
    wait_until(lambda: closed and not watching(), what="the end of the watch")


def watching() -> list[str]:
    """Return the names of the threads that watch files."""
    return [one.name for one in threading.enumerate() if one.name == "genwsgi-watch"]


def test_change_of_the_program_itself(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """A change of a module that is part of what runs is told, and left alone."""
    text = "from genwsgi import hotupdate\nV = 1\n"
    program.write({"NAME/loop.py": text})
    loop = program.load("NAME.loop")
    program.write({"NAME/loop.py": text + "V = 2\n"})
    assert program.update().outcome == "unchanged"
    assert loop.V == 1
    assert f"{program.name}.loop has changed, but" in caplog.text
    assert "restart the program for it" in caplog.text


def test_called_again(program: Program) -> None:
    """The one line may be called again, with the same settings and with no others."""
    hotupdate.auto_reload_module(watch=True, keep=["x"])
    threads = set(threading.enumerate())
    hotupdate.auto_reload_module(watch=True, keep=["x"])
    # Those of the test before may still end.
    assert set(threading.enumerate()) <= threads
    with pytest.raises(OptionError, match="before with other settings: close"):
        hotupdate.auto_reload_module(watch=True)
    hotupdate.close()
    hotupdate.close()
    hotupdate.auto_reload_module(watch=True)


FIRST_LINE = """
from genwsgi import hotupdate
hotupdate.auto_reload_module({url!r})
import {name}.rules
hotupdate.auto_reload_module({url!r})
print(*hotupdate._updater.homes)
"""


@pytest.mark.parametrize("way", ["script", "module"])
def test_first_line(program: Program, tmp_path: Path, way: str) -> None:
    """Called before anything is imported, it knows the program's folder by ``__main__``."""
    script = program.root / ("script.py" if way == "script" else f"{program.name}/__main__.py")
    script.write_text(FIRST_LINE.format(url=NOWHERE, name=program.name))
    what = [str(script)] if way == "script" else ["-m", program.name]
    done = subprocess.run(
        [sys.executable, *what],
        cwd=program.root,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(hotupdate.__file__).parents[2])},
    )
    assert (done.returncode, done.stdout) == (0, f"{program.root}\n"), done.stderr


def test_broker_that_is_away(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """The broker may be away: the program runs on, and the status says so; no password is shown."""
    caplog.set_level(logging.INFO)
    program.load("NAME.rules")
    hotupdate.auto_reload_module("amqp://user:secret@127.0.0.1:1/")
    wait_until(lambda: hotupdate.status().sources["amqp"]["problem"], what="the problem")
    shown = json.dumps(hotupdate.status().as_dict()) + repr(hotupdate.status()) + caplog.text
    assert "secret" not in shown
    assert "unsigned orders" in caplog.text


def test_inside_of_a_served_application(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """In code that genwsgi serves the one line does nothing but say so."""
    site.write(shop="from genwsgi import hotupdate\nhotupdate.auto_reload_module(watch=True)\n")
    site.serve()
    assert not hotupdate.status().listening
    assert "hotupdate does nothing here" in caplog.text


def test_module_of_a_served_application(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an application in this process serves is not to be updated besides."""
    site.write(shop="")
    site.serve()
    monkeypatch.syspath_prepend(str(site.root))
    update = hotupdate.update("shop", timeout=30)
    assert update.outcome == "refused"
    assert "deploy that instead" in update.reason
    reset()


def test_callbacks(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Callbacks get old and new; one that raises is logged, and the others are called."""
    program.load("NAME.rules")
    seen: list = []

    @hotupdate.on_update
    def bad(old: hotupdate.Version, new: hotupdate.Version) -> None:
        raise ValueError("no")

    hotupdate.on_update(lambda old, new: seen.append((old, new)))
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    program.update("NAME.fields")
    wait_until(lambda: seen, what="the callback")
    ((old, new),) = seen
    assert (old.number, new.number) == (1, 2)
    assert new.modules == (f"{program.name}.fields", f"{program.name}.rules")
    assert new == hotupdate.status().version
    assert new.digest
    assert new.when >= old.when
    assert "ValueError: no" in caplog.text


def test_callback_of_a_version_goes_with_it(program: Program) -> None:
    """A callback that a renewed module registers is called while its version is current only."""
    seen: list = []
    vars(program.load("NAME"))["seen"] = seen
    program.load("NAME.rules")
    text = """
        import NAME
        from genwsgi import hotupdate
        @hotupdate.on_update
        def seen(old, new):
            NAME.seen.append((VERSION, new.number))
        """
    for number in (2, 3, 4):
        program.write({"NAME/rules.py": f"{textwrap.dedent(text)}VERSION = {number}\n"})
        assert program.update("NAME.rules").version == number
    wait_until(lambda: len(seen) == 3, what="the callbacks")
    assert seen == [(2, 2), (3, 3), (4, 4)]


def test_update_in_a_callback(program: Program) -> None:
    """A callback can't wait for another update, and is told so at once."""
    program.load("NAME.rules")
    raised: list = []

    def again(old: hotupdate.Version, new: hotupdate.Version) -> None:
        try:
            hotupdate.update()
        except GenwsgiError as error:
            raised.append(str(error))

    hotupdate.on_update(again)
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    program.update("NAME.fields")
    wait_until(lambda: raised, what="the callback")
    assert "on another thread" in raised[0]


def test_build_that_takes_too_long(program: Program, tmp_path: Path, shut: Shut) -> None:
    """A build that hangs is given up, and the next update is made."""
    rules = program.load("NAME.rules")
    hotupdate._updater.build_timeout = 2.0
    shut("gate")
    waiting = f"{AT_GATE}wait_at_gate({str(tmp_path / 'gate')!r})\n"
    program.write({"NAME/fields.py": waiting})
    update = program.update("NAME.fields")
    assert update.outcome == "failed"
    assert "took more than 2.0 s" in update.reason
    assert "fields.py" in update.traceback
    hotupdate._updater.build_timeout = 30
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    assert program.update("NAME.fields").outcome == "committed"
    assert rules.parse() == (2, 2)


def test_build_that_outlives_the_end(program: Program, tmp_path: Path, shut: Shut) -> None:
    """A build that was given up and goes on after all is closed leaves the process as it was."""
    program.load("NAME.rules")
    hotupdate._updater.build_timeout = 0.5
    gate = shut("gate")
    # Not in turns: nothing interrupts it.
    place = str(tmp_path / "gate")
    waiting = f"gate = AtGate({place!r})\ntry: gate.opens(100)\nfinally: gate.close()\n"
    program.write({"NAME/fields.py": AT_GATE + waiting})
    assert program.update("NAME.fields").outcome == "failed"
    hotupdate._updater.close(0.05)
    gate.open()
    wait_until(
        lambda: not any(one.name.startswith("genwsgi-build") for one in threading.enumerate()),
        what="the build has ended",
    )


def test_thread_that_stays(
    program: Program, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that a thread has been in for long after it was replaced is named, with where."""
    monkeypatch.setattr("genwsgi.hotupdate.updater.LONG", 0.1)
    text = "import NAME.fields\ndef loop(inside, gate):\n    inside.set()\n    gate.wait(60)\n"
    program.write({"NAME/rules.py": text})
    rules, inside, gate = program.load("NAME.rules"), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: rules.loop(inside, gate), name="a-crawler")
    thread.start()
    assert inside.wait(10)
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    program.update("NAME.fields")
    assert hotupdate.status().in_use == ((1, 0),)
    wait_until(lambda: "a loop without an end" in caplog.text, what="the warning")
    assert "a-crawler in loop of" in caplog.text
    gate.set()
    thread.join(60)
    wait_until(lambda: hotupdate.status().in_use == (), what="version 1 has retired")


def test_status_is_plain_data(program: Program) -> None:
    """The status can be written as JSON."""
    program.load("NAME.rules")
    program.write({"NAME/fields.py": "VERSION = 2\n"})
    program.update("NAME.fields")
    data = json.loads(json.dumps(hotupdate.status().as_dict()))
    assert data["version"]["number"] == 2
    assert data["last"]["outcome"] == "committed"


FORKING = """
import os, sys, logging
sys.path.insert(0, {root!r})
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import {name}.rules as rules
from genwsgi import hotupdate

def renew(number):
    with open({fields!r}, "w") as file:
        file.write(f"VERSION = {{number}}  # {{'x' * number}}")
    outcome = hotupdate.update("{name}.fields", timeout=20)
    assert outcome.outcome == "committed", outcome
    assert rules.parse() == (number, number), rules.parse()

hotupdate.auto_reload_module({url!r})
renew(2)
pid = os.fork()
if pid == 0:
    try:
        assert rules.parse() == (2, 2)
        assert not hotupdate.status().listening
        assert "forked" in hotupdate.status().problem
        with hotupdate.pin() as version:
            assert version == 2
        renew(3)
        hotupdate.auto_reload_module({url!r})
        assert hotupdate.status().listening
        assert hotupdate.status().problem == ""
        print("child done", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(0 if sys.exc_info()[0] is None else 1)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert hotupdate.status().listening
renew(4)
print("parent done", flush=True)
"""


def test_fork(program: Program) -> None:
    """A forked child goes on with its version, knows that it hears of nothing, and can listen."""
    code = FORKING.format(
        root=str(program.root),
        name=program.name,
        fields=str(program.root / program.name / "fields.py"),
        url=NOWHERE,
    )
    told = run(code)
    assert "child done" in told
    assert "parent done" in told
    assert told.count("hotupdate: forked: call auto_reload_module()") == 1


FORKING_A_WATCH = """
import os, sys, threading
sys.path.insert(0, {root!r})
import {name}.rules as rules
from genwsgi import hotupdate

hotupdate.auto_reload_module(watch=True)
pid = os.fork()
if pid == 0:
    try:
        outcome = hotupdate.update("{name}.fields", path={release!r}, timeout=20)
        assert outcome.outcome == "committed", outcome
        assert rules.parse() == (2, 2)
        assert not hotupdate.status().listening
        print(sorted(thread.name for thread in threading.enumerate()), flush=True)
    finally:
        os._exit(0 if sys.exc_info()[0] is None else 1)
_, status = os.waitpid(pid, 0)
assert status == 0, status
hotupdate.on_update(lambda old, new: os._exit(0 if rules.parse() == (3, 3) else 1))
with open({fields!r} + ".tmp", "w") as file:
    file.write("VERSION = 3")
os.replace(file.name, {fields!r})
threading.Event().wait(60)
os._exit(2)
"""


def test_fork_while_files_are_watched(program: Program, tmp_path: Path) -> None:
    """A forked child watches nothing, whatever folder it takes up; its parent goes on watching."""
    release = tmp_path / "release"
    program.write({"NAME/fields.py": "VERSION = 2\n"}, release)
    code = FORKING_A_WATCH.format(
        root=str(program.root),
        name=program.name,
        fields=str(program.root / program.name / "fields.py"),
        release=str(release),
    )
    told = run(code)
    assert "genwsgi-hotupdate" in told
    assert "genwsgi-watch" not in told


SPAWNING = """
import multiprocessing, sys
sys.path.insert(0, {root!r})
import {name}.rules
from genwsgi import hotupdate

def work(_number):
    return {name}.rules.parse()

def renew(number):
    with open({fields!r}, "w") as file:
        file.write(f"VERSION = {{number}}  # {{'x' * number}}")

if __name__ == "__main__":
    renew(2)
    assert hotupdate.update("{name}.fields").outcome == "committed"
    renew(3)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(work, range(2)) == [(2, 2)] * 2
    print("done")
"""


def test_spawn(program: Program, tmp_path: Path) -> None:
    """A process that is started afresh has the version that was current, whatever is on disk."""
    script = tmp_path / "script.py"
    fields = str(program.root / program.name / "fields.py")
    script.write_text(SPAWNING.format(root=str(program.root), name=program.name, fields=fields))
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_order_to_hold(program: Program) -> None:
    """A program holds no update ready: whoever asks for that is told."""
    told: list = []
    request = Request("an-id", "fields", modules=(f"{program.name}.fields",), hold=5.0)
    builder = ProgramBuilder(hotupdate._updater)
    builder.request(request, told.append)
    builder.withdraw("an-id", "called off")
    assert [result.outcome for result in told] == ["refused"]
    assert "makes its updates at once" in told[0].error
    assert builder.committed() == 1

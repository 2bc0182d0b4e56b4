"""Tests of genwsgi.server.arbiter, and of what it leans on in gunicorn."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from genwsgi.deploy.server import WORKERS_LACK, WORKERS_START
from genwsgi.server import arbiter
from genwsgi.server.arbiter import GenwsgiArbiter
from genwsgi.server.probe import Report


class Directory:
    """A run directory that keeps who serves and what happened."""

    def __init__(self, *events: str) -> None:
        self.events = set(events)
        self.path = "/run/shop"
        self.ended: list[int] = []
        self.restart = False

    def take_restart(self) -> bool:
        asked, self.restart = self.restart, False
        return asked

    def happened(self, event: str) -> bool:
        return event in self.events

    def end_serving(self, pid: int) -> None:
        self.ended.append(pid)


class Coordinator:
    """A coordinator's process that keeps what is asked of it."""

    def __init__(self, *_: object, label: str = "", handed: object = ()) -> None:
        self.asked: list[object] = []

    def ensure(self) -> None:
        self.asked.append("ensure")

    def hang_up(self) -> None:
        self.asked.append("hang up")

    def tell(self, what: bytes) -> None:
        self.asked.append(what)

    def signal(self, number: int) -> None:
        self.asked.append(number)

    def stop(self) -> None:
        self.asked.append("stop")


class App:
    """The application, as the arbiter sees it."""

    def __init__(self, *events: str) -> None:
        self.directory: Directory | None = Directory(*events)
        self.cfg: object = None
        self.coordinator: object = None
        self.told = b"{}"
        self.handed: dict[str, object] = {}
        self.happened: list[str] = []
        self.report = Report()

    def open(self) -> Report:
        self.happened.append("open")
        return self.report

    def keep_directory(self) -> None:
        self.happened.append("keep directory")

    def close(self) -> None:
        self.happened.append("close")

    def leave(self) -> None:
        self.happened.append("leave")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> GenwsgiArbiter:
    """An arbiter without a configuration: it has two workers, 11 and 12, and a coordinator."""
    made = GenwsgiArbiter.__new__(GenwsgiArbiter)
    made.app = App()  # type: ignore[assignment]
    made.log = logging.getLogger("tests.arbiter")
    made.cfg = SimpleNamespace(child_exit=lambda server, worker: None, chdir="/", metrics=None)
    made.log.cfg = made.cfg
    made.pid = os.getpid()
    made.pidfile = None
    made.reexec_pid = made.dirty_arbiter_pid = made.worker_age = 0
    made.WORKERS = {
        pid: SimpleNamespace(tmp=SimpleNamespace(close=lambda: None)) for pid in (11, 12)
    }
    made._served = made._starved = made._replacing = False
    made._futile, made._num_workers = 0, 2
    made._unsaid = ""
    made._announcer = made._ear = made._metrics = None
    made._coordinator = Coordinator()  # type: ignore[assignment]
    return made


def asked(made: GenwsgiArbiter) -> list[object]:
    """What was asked of the coordinator."""
    coordinator: Any = made._coordinator
    return list(coordinator.asked)


def ends(monkeypatch: pytest.MonkeyPatch, *statuses: tuple[int, int]) -> None:
    """Have processes end: pid and exit status of each."""
    waiting = [(pid, status << 8) for pid, status in statuses]
    monkeypatch.setattr(os, "waitpid", lambda *_: waiting.pop(0) if waiting else (0, 0))


# -- what we lean on in gunicorn -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("__init__", ["self", "app"]),
        ("run", ["self"]),
        ("start", ["self"]),
        ("stop", ["self", "graceful"]),
        ("reload", ["self"]),
        ("manage_workers", ["self"]),
        ("reap_workers", ["self"]),
        ("handle_hup", ["self"]),
        ("handle_usr1", ["self"]),
    ],
)
def test_gunicorn_has_what_is_overridden(name: str, parameters: list[str]) -> None:
    """Each method that is overridden, or called, exists and takes what it took."""
    assert list(inspect.signature(getattr(Arbiter, name)).parameters) == parameters
    own = vars(GenwsgiArbiter).get(name)
    assert own is None or list(inspect.signature(own).parameters) == parameters


def test_gunicorn_halts_for_two_exit_statuses() -> None:
    """A worker that can't boot exits with 3, one that can't load the application with 4."""
    assert (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR) == (3, 4)


def test_gunicorn_looks_the_statuses_up_on_the_instance(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statuses can be changed for one arbiter: what is compared is its own attribute."""
    made.APP_LOAD_ERROR = 77
    ends(monkeypatch, (11, 4), (12, 77))
    with pytest.raises(HaltServer) as caught:
        Arbiter.reap_workers(made)
    assert caught.value.exit_status == 77


def test_gunicorn_calls_a_handler_for_each_signal() -> None:
    """SIGHUP and SIGUSR1 are queued, and the handler is found by the signal's name."""
    assert {signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM} <= set(Arbiter.SIGNALS)
    assert (Arbiter.SIG_NAMES[signal.SIGHUP], Arbiter.SIG_NAMES[signal.SIGUSR1]) == ("hup", "usr1")
    assert '"handle_%s" % signame' in inspect.getsource(Arbiter.run)


def test_gunicorn_starts_before_it_forks_and_manages_every_second() -> None:
    """``start`` comes before the first worker, and ``manage_workers`` is called in the loop."""
    lines = [line.strip() for line in inspect.getsource(Arbiter.run).splitlines()]
    assert lines.index("self.start()") < lines.index("self.manage_workers()")
    assert lines.count("self.manage_workers()") == 2
    assert "for sig in self.wait_for_signals(timeout=1.0):" in lines


def test_gunicorn_reaps_children_it_does_not_know(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator's end is nothing to it, whatever the exit status."""
    ends(monkeypatch, (99, 3), (98, 4))
    Arbiter.reap_workers(made)
    assert sorted(made.WORKERS) == [11, 12]


def test_gunicorn_passes_the_end_of_a_forked_worker_through_run() -> None:
    """A worker leaves its fork by SystemExit, which ``run`` lets through: so ours sees it too."""
    assert "except SystemExit:\n            raise\n" in inspect.getsource(Arbiter.run)
    assert "sys.exit(0)" in inspect.getsource(Arbiter.spawn_worker)


# -- ours ------------------------------------------------------------------------------------------


def test_it_starts_from_a_snapshot_before_it_binds(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application is opened first, the coordinator started last."""
    made._coordinator = None
    monkeypatch.setattr(Arbiter, "start", lambda self: self.app.happened.append("start"))
    monkeypatch.setattr(arbiter, "CoordinatorProcess", Coordinator)
    made.start()
    assert made.app.happened == ["open", "start"]
    assert asked(made) == ["ensure"]
    assert made.app.coordinator is made._coordinator


def test_a_probe_that_failed_is_a_warning(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server starts all the same, with the scope as far as it is known."""
    app: Any = made.app
    app.report = Report(reason="the probe was killed by signal 9 (Killed)")
    monkeypatch.setattr(Arbiter, "start", lambda self: None)
    monkeypatch.setattr(arbiter, "CoordinatorProcess", Coordinator)
    made.start()
    assert caplog.messages == [
        "what the scope may lack is not known: the probe was killed by signal 9 (Killed)"
    ]


def test_what_the_workers_meet_as_well_is_said_by_them(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the application is a warning only if the workers did not meet it: they serve."""
    app: Any = made.app
    app.report = Report(reason="target 'myapp' could not be built: KeyError", met=True)
    monkeypatch.setattr(Arbiter, "start", lambda self: None)
    monkeypatch.setattr(Arbiter, "manage_workers", lambda self: None)
    monkeypatch.setattr(arbiter, "CoordinatorProcess", Coordinator)
    made.start()
    made.manage_workers()
    assert caplog.messages == []
    app.directory.events.add("served")
    for _ in range(2):
        made.manage_workers()
    assert caplog.messages == [
        "what the scope may lack is not known: target 'myapp' could not be built: KeyError"
    ]


def test_a_hang_up_before_there_is_a_coordinator_is_passed_on(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP while the scope is looked for ends nothing, and is an order as at any other time."""

    def hang_up() -> Report:
        signal.raise_signal(signal.SIGHUP)
        return Report()

    app: Any = made.app
    app.open = hang_up
    monkeypatch.setattr(Arbiter, "start", lambda self: None)
    monkeypatch.setattr(arbiter, "CoordinatorProcess", Coordinator)
    made.start()
    assert asked(made) == ["ensure", "hang up"]


def test_a_stop_before_there_is_a_worker_ends_well(made: GenwsgiArbiter) -> None:
    """SIGTERM while the scope is looked for ends the master as one that serves: with 0."""
    app: Any = made.app
    app.open = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        made.start()
    assert caught.value.code == 0


@pytest.mark.parametrize("error", [SystemExit(0), RuntimeError("no such user")])
def test_it_leaves_nothing_behind(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """However the master ends, the coordinator is stopped and the run directory removed."""

    def run(self: object) -> None:
        raise error

    monkeypatch.setattr(Arbiter, "run", run)
    with pytest.raises(type(error)):
        made.run()
    assert asked(made) == ["stop"]
    assert made.app.happened == ["close"]


@pytest.mark.parametrize(("status", "happened"), [(0, ["leave"]), (1, [])])
def test_a_worker_clears_nothing_away(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, status: int, happened: list[str]
) -> None:
    """A forked worker takes its own leave if it ends in order, and ends nothing of the master's."""

    def run(self: object) -> None:
        monkeypatch.setattr(os, "getpid", lambda: 4711)
        raise SystemExit(status)

    monkeypatch.setattr(Arbiter, "run", run)
    with pytest.raises(SystemExit):
        made.run()
    assert asked(made) == []
    assert made.app.happened == happened


def test_it_keeps_the_coordinator_running(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever gunicorn looks after its workers, so are the coordinator and the run directory."""
    managed: list[object] = []
    monkeypatch.setattr(Arbiter, "manage_workers", lambda self: managed.append(self))
    made.manage_workers()
    assert (asked(made), managed) == (["ensure"], [made])
    assert made.app.happened == ["keep directory"]


def test_no_room_for_a_worker_ends_no_server(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the system refuses to a worker that is replaced is told once, and tried until it goes.

    gunicorn's master would end, and with it the workers that serve.
    """

    def refuse(_self: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    caplog.set_level(logging.INFO)
    made._served = True
    with monkeypatch.context() as patch:
        patch.setattr(Arbiter, "spawn_worker", refuse)
        assert [made.spawn_worker(), made.spawn_worker()] == [None, None]
    monkeypatch.setattr(Arbiter, "spawn_worker", lambda _self: 12)
    assert [made.spawn_worker(), made.spawn_worker()] == [12, 12]
    assert asked(made) == [WORKERS_LACK, WORKERS_LACK, WORKERS_START]
    refused, again = (record.getMessage() for record in caplog.records)
    assert refused.startswith("no worker can be started: Too many open files; raise `ulimit -n`")
    assert again == "workers can be started again"


def test_no_room_for_the_first_worker_is_told_and_ends_the_start(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that can't have its first worker ends with one line."""

    def refuse(_self: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Arbiter, "spawn_worker", refuse)
    with pytest.raises(HaltServer, match="no worker can be started: No space left on device"):
        made.spawn_worker()


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O on a closed file")])
def test_a_worker_that_can_not_say_why_it_ends_is_no_master(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What a forked worker raises ends that process, whatever it is."""

    def fork(_self: object) -> int:
        pid = os.fork()
        if not pid:
            raise error
        return pid

    monkeypatch.setattr(Arbiter, "spawn_worker", fork)
    try:
        pid = made.spawn_worker()
    finally:
        if os.getpid() != made.pid:
            os._exit(77)
    assert pid is not None
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == Arbiter.WORKER_BOOT_ERROR


def test_a_hook_that_raises_before_the_fork_is_not_taken_for_the_system(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the system refuses is tried again every second."""

    def refuse(_self: object) -> int:
        raise KeyError("pre_fork")

    monkeypatch.setattr(Arbiter, "spawn_worker", refuse)
    with pytest.raises(KeyError):
        made.spawn_worker()


def test_workers_are_replaced_when_that_is_asked_for(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mark in the run directory is gunicorn's own reload, once."""
    caplog.set_level(logging.INFO)
    reloads: list[object] = []
    monkeypatch.setattr(GenwsgiArbiter, "reload", lambda self: reloads.append(self))
    monkeypatch.setattr(Arbiter, "manage_workers", lambda self: None)
    directory: Any = made.app.directory
    made.manage_workers()
    assert not reloads
    directory.restart = True
    made.manage_workers()
    made.manage_workers()
    assert reloads == [made]
    assert "connections that are kept open end with them" in caplog.text


def test_old_workers_are_not_waited_for(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where gunicorn's reload waits for them, the master goes round again, and reaps them then."""

    def waits(self: GenwsgiArbiter) -> None:
        self.reap_workers()
        pytest.fail("it waits")

    reaped: list[object] = []
    monkeypatch.setattr(GenwsgiArbiter, "reload", waits)
    monkeypatch.setattr(Arbiter, "manage_workers", lambda self: None)
    monkeypatch.setattr(Arbiter, "reap_workers", lambda self: reaped.append(self))
    directory: Any = made.app.directory
    directory.restart = True
    made.manage_workers()
    assert not reaped
    made.reap_workers()
    assert reaped == [made]


def test_a_configuration_that_is_broken_replaces_nothing(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where gunicorn would end, all stays as it is; the end of a forked worker goes through."""

    def broken(self: GenwsgiArbiter) -> None:
        app: Any = self.app
        app.cfg = "half of it"
        os.environ["GENWSGI_TEST"] = "left over"
        sys.exit(1)

    monkeypatch.setattr(GenwsgiArbiter, "reload", broken)
    monkeypatch.setattr(Arbiter, "manage_workers", lambda self: None)
    app: Any = made.app
    app.cfg = "the one before"
    app.directory.restart = True
    made.manage_workers()
    assert app.cfg == "the one before"
    assert "GENWSGI_TEST" not in os.environ
    assert "the workers stay as they are" in caplog.text
    made.pid = 1
    app.directory.restart = True
    with pytest.raises(SystemExit):
        made.manage_workers()
    del os.environ["GENWSGI_TEST"]


def test_a_configuration_that_is_read_anew_may_name_another_log(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What genwsgi itself says goes where gunicorn's lines then go."""
    ours, theirs = logging.getLogger("genwsgi"), logging.getLogger("gunicorn.error")
    for logger in (ours, theirs):
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", logger.propagate)
        monkeypatch.setattr(logger, "level", logger.level)
    another = logging.NullHandler()
    monkeypatch.setattr(Arbiter, "setup", lambda self, app: theirs.handlers.append(another))
    made.cfg.worker_class = object
    made.setup(made.app)
    assert ours.handlers == [another]


def test_a_dead_worker_serves_no_more(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was reaped is taken off the list of those that serve, also when the server halts."""
    directory: Any = made.app.directory
    ends(monkeypatch, (11, 0))
    made.reap_workers()
    assert directory.ended == [11]
    ends(monkeypatch, (12, 4))
    with pytest.raises(HaltServer):
        made.reap_workers()
    assert directory.ended == [11, 12]


@pytest.mark.parametrize("status", [3, 4])
def test_once_it_has_served_no_exit_status_halts_it(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A release that was served can't end the server, however its workers end."""
    made.app.directory = Directory("served")  # type: ignore[assignment]
    ends(monkeypatch, (11, status), (12, 0))
    made.reap_workers()
    assert made.WORKERS == {}


def some_end(made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Have ``count`` workers end one after the other, each with a status that says nothing."""
    for pid in range(20, 20 + count):
        made.WORKERS[pid] = SimpleNamespace(tmp=SimpleNamespace(close=lambda: None))
        ends(monkeypatch, (pid, 1))
        made.reap_workers()


@pytest.mark.parametrize(("workers", "most"), [(2, 6), (8, 16)])
def test_a_start_that_gets_nowhere_ends(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch, workers: int, most: int
) -> None:
    """Where worker after worker ends before any has served, the server does not go on for ever."""
    made._num_workers = workers
    some_end(made, monkeypatch, most - 1)
    with pytest.raises(HaltServer, match=f"{most} workers have ended before any") as halt:
        some_end(made, monkeypatch, 1)
    assert halt.value.exit_status == 3


def test_workers_that_end_later_end_nothing(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once one has served, or the server stops, any number of workers may end."""
    monkeypatch.setattr(Arbiter, "stop", lambda self, graceful: some_end(made, monkeypatch, 100))
    made.stop()
    del made.WORKER_BOOT_ERROR
    made.app.directory = Directory("served")  # type: ignore[assignment]
    some_end(made, monkeypatch, 100)
    assert made._futile == 0


def test_a_halt_is_not_interrupted_by_the_next_worker(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server stops, another worker that could not load the application is only reaped."""
    monkeypatch.setattr(Arbiter, "stop", lambda self, graceful: self.reap_workers())
    ends(monkeypatch, (11, 4), (12, 3))
    made.stop()
    assert made.WORKERS == {}


def test_sighup_is_a_deploy(made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP orders a deploy and replaces no worker; without a coordinator it does nothing."""
    monkeypatch.setattr(Arbiter, "reload", lambda self: pytest.fail("gunicorn's reload"))
    made.handle_hup()
    assert asked(made) == ["hang up"]
    made._coordinator = None
    made.handle_hup()


def test_sigusr1_reopens_the_coordinators_log_too(
    made: GenwsgiArbiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gunicorn reopens its own and its workers' logs; the coordinator is told as well."""
    done: list[object] = []
    monkeypatch.setattr(Arbiter, "handle_usr1", lambda self: done.append(self))
    made.handle_usr1()
    assert (done, asked(made)) == ([made], [signal.SIGUSR1])


@pytest.mark.parametrize("as_module", [True, False])
def test_upgrade_starts_the_command_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch, as_module: bool
) -> None:
    """SIGUSR2 runs ``python -m genwsgi`` again as a module, and the script as the script."""
    monkeypatch.setattr(GenwsgiArbiter, "setup", lambda self, app: None)
    command = arbiter._MAIN if as_module else "/somewhere/bin/genwsgi"
    monkeypatch.setattr(sys, "argv", [command, "-w", "2", "shop"])
    made = GenwsgiArbiter(App())  # type: ignore[arg-type]
    begun = ["-m", "genwsgi"] if as_module else [command]
    assert made.START_CTX["args"] == [sys.executable, *begun, "-w", "2", "shop"]

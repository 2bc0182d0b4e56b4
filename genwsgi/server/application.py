"""The command's application: gunicorn's, with a target that is built anew for every deploy."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import gunicorn
from gunicorn.app.base import BaseApplication
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError, ConfigError

import genwsgi
from genwsgi.deploy.agent import Agent
from genwsgi.deploy.history import give_state, state_folder
from genwsgi.deploy.notices import Notice
from genwsgi.deploy.problems import explained
from genwsgi.deploy.protocol import Release
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import GenwsgiError, RunDirectoryError
from genwsgi.isolation.store import Store
from genwsgi.live import LiveApplication
from genwsgi.server import memory, restart
from genwsgi.server.arbiter import GenwsgiArbiter
from genwsgi.server.cancelling import means
from genwsgi.server.child import ending
from genwsgi.server.coordinator import LOG_SETTINGS, make_source
from genwsgi.server.explain import table
from genwsgi.server.logs import NAME as LOGGER
from genwsgi.server.logs import join_error_log
from genwsgi.server.probe import Report, settle_scope
from genwsgi.server.settings import OPTIONS, GenwsgiConfig, check
from genwsgi.server.supervisor import CoordinatorProcess, Handed
from genwsgi.target import Target, parse
from genwsgi.triggers.amqp.settings import to_plain
from genwsgi.triggers.sieve import DEFAULT_IGNORE
from genwsgi.verification import Verification, expected

#: Before a worker that can't build the committed release lets the master try another, in seconds.
BOOT_PAUSE = 1.0

#: Where genwsgi and gunicorn are imported from.
_OURS = {os.path.dirname(os.path.abspath(path)) for path in genwsgi.__path__ + gunicorn.__path__}

#: Exit status for a command line that can't be served, as argparse has it.
USAGE_ERROR = 2


class _Run(BaseApplication):
    """The end of gunicorn's chain of ``run`` methods: our arbiter instead of gunicorn's."""

    def run(self) -> None:
        GenwsgiArbiter(self).run()


class GenwsgiApplication(WSGIApplication, _Run):
    """What the ``genwsgi`` command serves.

    :ivar directory: the run directory, once the master has opened it.
    :ivar coordinator: the coordinator's process, in the master.
    :ivar told: what the coordinator is told when it starts, as JSON.
    :ivar handed: what it inherits besides, by what that is for.
    :ivar agent: the agent, in a worker.
    :ivar early: the signals that a worker got before it could do what they are for.
    """

    def __init__(self, prog: str | None = None) -> None:
        self.directory: RunDirectory | None = None
        self.coordinator: CoordinatorProcess | None = None
        self.told = b""
        self.handed: dict[str, Handed] = {}
        self.agent: Agent | None = None
        self.early: list[int] = []
        self._notice: Notice | None = None
        self._directory_is_lost = False
        self.target: Target
        super().__init__(None, prog=prog)

    # -- the configuration

    def load_default_config(self) -> None:
        """Begin with our defaults and our options."""
        self.cfg = GenwsgiConfig(self.usage, prog=self.prog)

    def init(self, _parser: Any, _opts: Any, args: list[str]) -> None:
        """Take the target; there is no PasteDeploy here (see :func:`check`)."""
        self.app_uri: str | None = None
        if len(args) > 1:  # gunicorn would pass over it
            raise ConfigError(f"one MODULE[:NAME] is served, and this is more: {args[1]}")
        if args:
            self.cfg.set("default_proc_name", args[0])
            self.app_uri = args[0]

    def load_config(self) -> None:
        """Load everything, and refuse what can't be served."""
        # Past WSGIApplication's, which misses a module before we can say what is wrong.
        super(WSGIApplication, self).load_config()
        check(self.cfg)
        text = self.app_uri or self.cfg.wsgi_app
        if text is None:
            raise ConfigError("nothing to serve: write MODULE[:NAME], such as myapp:create_app")
        try:
            self.target = parse(text)
        except GenwsgiError as error:
            raise ConfigError(str(error)) from None

    def reload(self) -> None:
        """Read the configuration again, and take none that the workers couldn't be started with.

        :raises OptionError: it is such a one.
        """
        before = self.cfg
        super().reload()
        restart.check(before, self.cfg)

    def options(self) -> dict[str, Any]:
        """Our options and what else the coordinator has to know, as plain data."""
        cfg = self.cfg
        assert self.directory is not None
        pythonpath = [os.path.abspath(path) for path in (cfg.pythonpath or "").split(",") if path]
        own = [cfg.chdir, *pythonpath]
        sys_path = [os.path.abspath(entry) for entry in sys.path]
        log = {name: cfg.settings[name].get() for name in LOG_SETTINGS}
        return {
            **to_plain({option.name: getattr(cfg, option.name) for option in OPTIONS}),
            "target": self.target.text,
            "module": self.target.module,
            "sys_path": sys_path,
            "boot_path": [entry for entry in sys_path if entry not in own or entry in _OURS],
            "own": own,
            "scope": cfg.scope,
            "share": cfg.share,
            "run_dir": self.directory.path,
            "watch": cfg.watch,
            "watch_path": [os.path.abspath(path) for path in cfg.watch_path],
            "watch_pattern": cfg.watch_pattern,
            "watch_ignore": [*DEFAULT_IGNORE, *cfg.watch_ignore],
            "watch_polling": cfg.watch_polling,
            "watch_interval": cfg.watch_interval,
            "build_timeout": cfg.build_timeout,
            "keep_releases": cfg.keep_releases,
            "probation": cfg.probation,
            "max_error_rate": cfg.max_error_rate,
            "release_root": [os.path.abspath(path) for path in cfg.release_root],
            "state": state_folder(
                cfg.state_dir, self.target.text, cfg.chdir, shared=cfg.uid != os.geteuid()
            ),
            "handed": {name: one.fileno() for name, one in self.handed.items()},
            "log_json": cfg.log_json,
            "uid": cfg.uid,
            "gid": cfg.gid,
            "initgroups": cfg.initgroups,
            # A class or an object of the config file's own can't be told to another process.
            "log": {name: value for name, value in log.items() if _is_plain(value)},
        }

    # -- the master

    def run(self) -> None:
        """Serve.  A mistake of the command line ends with one line, not a traceback."""
        try:
            if self.cfg.explain_scope:
                self._explain()
            super().run()
        # gunicorn's own for a pid file in use, or a worker class whose package is missing.
        except (GenwsgiError, RuntimeError) as error:
            print(f"{self.prog}: {error}", file=sys.stderr)  # noqa: T201 -- a command talks
            sys.exit(USAGE_ERROR)

    def open(self) -> Report:
        """Make the run directory and take the snapshot that the workers start from.

        Its scope is looked for by building it in other processes first: see
        :mod:`genwsgi.server.probe`.

        :returns: what the last of these builds came to.
        :raises GenwsgiError: the target isn't there, or the directory can't be used.
        """
        self.directory = self._make_directory()
        if self.directory.left_by is not None:
            logging.getLogger(LOGGER).info(
                "run directory %s: taken over from the server of pid %d, which is gone",
                self.directory.path,
                self.directory.left_by,
            )
        options = self.options()
        source = make_source(options, Store(self.directory.store))
        digest, report = settle_scope(self, source, logging.getLogger(LOGGER))
        options["roots"] = source.scope().watched
        self.told = json.dumps(options).encode()
        release = Release(1, digest, "start", "what the server started with", time.time())
        try:
            self.directory.record(release)
        except OSError as error:
            reason = f"can't be written: {explained(error)}"
            raise RunDirectoryError(self.directory.path, reason) from error
        self.directory.give_to(self.cfg.uid, self.cfg.gid)
        if self.cfg.uid != os.geteuid():
            give_state(options["state"], self.cfg.uid, self.cfg.gid)
        if self._named_directory() is not None:
            self._put_up_notice(self.directory.path)
        return report

    def _put_up_notice(self, path: str) -> None:
        """Have ``genwsgictl`` find this server by itself, if that can be."""
        try:
            self._notice = Notice(path, self.cfg.uid, self.cfg.gid)
        except RunDirectoryError as error:
            logging.getLogger(LOGGER).warning(
                "genwsgictl finds this server with --run-dir %s only: %s", path, error
            )
        else:
            self._notice.put_up()

    def _named_directory(self) -> str | None:
        # A check needs none that a server may be using.
        cfg = self.cfg
        checks = cfg.check_config or cfg.print_config or cfg.explain_scope
        return None if checks else cfg.run_dir

    def _make_directory(self) -> RunDirectory:
        path, uid, serves = self._named_directory(), self.cfg.uid, self.target.text
        try:
            return RunDirectory.create(path, uid, serves)
        except RunDirectoryError:
            if path is None or "GUNICORN_PID" not in os.environ:
                raise
            # The server that this one is to replace (SIGUSR2) has it; or, if that one was begun in
            # the same way, the other.
            return RunDirectory.create(f"{path}.2", uid, serves)

    def keep_directory(self) -> None:
        """Make the run directory again if somebody has deleted it.  The master calls this often."""
        directory, cfg = self.directory, self.cfg
        if directory is None or directory.is_held():
            return
        try:
            directory.restore(cfg.uid, cfg.gid, self.target.text)
        except (RunDirectoryError, OSError) as error:
            if not self._directory_is_lost:
                logging.getLogger(LOGGER).error(
                    "%s; it was deleted under this server, which serves on, but for deploys and "
                    "genwsgictl it has to be restarted",
                    error,
                )
            self._directory_is_lost = True
        else:
            self._directory_is_lost = False

    def close(self) -> None:
        """Remove the run directory, and the notice of where it was."""
        if self.directory is not None:
            self.directory.remove()
        if self._notice is not None:
            self._notice.take_down()

    # -- a worker

    def load(self) -> Callable[..., Any]:
        """Build the committed release in this process and return the stable callable."""
        log = join_error_log()
        for number in self.early:
            os.kill(os.getpid(), number)
        if self.coordinator is not None:
            self.coordinator.forget()
        if self.directory is None:
            return self._check_only()
        # First: what is frozen after that, the application has frozen.
        memory.settle()
        live = LiveApplication(
            self.target,
            Store(self.directory.store),
            factory=self.cfg.factory,
            header=self.cfg.generation_header,
            folder=self.cfg.chdir,
            verification=self.verification(),
            counting=not (self.cfg.probation is None and self.cfg.metrics is None),
        )
        agent = Agent(
            live,
            self.directory,
            log,
            probation=self.cfg.probation or 0.0,
            park=self.cfg.park,
            means=means(),
        )
        try:
            agent.boot()
        except GenwsgiError as error:
            self._refuse(error)
        agent.start()
        self.agent = agent
        self.directory.first("served")
        return live.application

    def verification(self) -> Verification:
        """What a candidate has to show."""
        cfg = self.cfg
        asked = [*map(expected, cfg.verify)]
        return Verification(asked, cfg.verify_timeout, cfg.verify_host)

    def leave(self) -> None:
        """This worker ends in good order."""
        if self.agent is not None:
            self.agent.leave()

    def _check_only(self) -> NoReturn:
        """``--check-config`` and ``--print-config``: build once, in a process like a worker's."""
        try:
            report = self._look()
        except GenwsgiError as error:
            report = Report(reason=str(error), traceback=error.traceback)
        sys.exit(_whole(report) or 0)

    def _explain(self) -> NoReturn:
        """``--explain-scope``: the table, or what a start would show."""
        report = self._look()
        if report.reason:
            print(_whole(report), file=sys.stderr)  # noqa: T201 -- a command talks
            sys.exit(Arbiter.APP_LOAD_ERROR)
        sys.stdout.write(table(report.verdicts))
        sys.exit(0)

    def _look(self) -> Report:
        """Build as for a start, with the path that a start has, and leave nothing behind.

        :raises GenwsgiError: as :meth:`open`.
        """
        for path in (self.cfg.pythonpath or "").split(","):
            if path and os.path.abspath(path) not in sys.path:
                sys.path.insert(0, os.path.abspath(path))
        try:
            with ending(lambda number: 128 + number):
                return self.open()
        finally:
            self.close()

    def _refuse(self, error: GenwsgiError) -> NoReturn:
        """This worker can't boot: the server must not start, or must not stop, because of it."""
        assert self.directory is not None
        whole = _whole(Report(reason=str(error), traceback=error.traceback))
        if self.directory.happened("served"):
            # The release was served before, so what is wrong is around it (a database that is
            # away).  gunicorn would halt the whole server for the exit codes it uses for this.
            join_error_log().error("this worker can't boot; another one will try\n%s", whole)
            time.sleep(BOOT_PAUSE)
            sys.exit(1)
        shown = whole if self.directory.first("refused") else "(as the other worker said)"
        raise AppImportError(shown)


def _whole(report: Report) -> str:
    """What is wrong, for people: what the application raised, then what that means."""
    return f"{report.traceback}\n{report.reason}".lstrip()


def _is_plain(value: object) -> bool:
    """Whether ``value`` is given, and can be written down for another process."""
    try:
        return json.dumps(value) != "null"
    except (TypeError, ValueError):
        return False

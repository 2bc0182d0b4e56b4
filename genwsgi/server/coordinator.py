"""The coordinator's process: settings in, a running :class:`CoordinatorServer` out."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from gunicorn import util
from gunicorn.config import Config

from genwsgi.deploy.probation import Probation
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.deploy.server import CoordinatorServer
from genwsgi.deploy.source import Source
from genwsgi.errors import GenwsgiError, RunDirectoryError
from genwsgi.isolation.scope import ScopeRules
from genwsgi.isolation.store import Store
from genwsgi.server.jsonlines import with_json
from genwsgi.server.logs import join_error_log
from genwsgi.server.systemd import mouth
from genwsgi.triggers.others import find_others
from genwsgi.triggers.registry import Trigger, make_triggers
from genwsgi.triggers.trust import check_folder

#: gunicorn's settings that decide where the log goes, and whose its file is.
LOG_SETTINGS = (
    "user",
    "group",
    "errorlog",
    "loglevel",
    "logger_class",
    "logconfig",
    "logconfig_dict",
    "logconfig_json",
    "syslog",
    "syslog_addr",
    "syslog_prefix",
    "syslog_facility",
    "proc_name",
    "default_proc_name",
)


def make_source(options: dict[str, Any], store: Store) -> Source:
    """Return what reads the application's tree, as the options say."""
    rules = ScopeRules(
        module=options["module"],
        path=tuple(options["sys_path"]),
        own=tuple(options["own"]),
        scope=tuple(options["scope"]),
        share=tuple(options["share"]),
    )
    others = find_others(options["watch_path"], options["watch_pattern"], options["watch_ignore"])
    return Source(rules, store, others)


def _answer_scrapes(descriptor: int, server: CoordinatorServer, log: logging.Logger) -> None:
    try:
        from genwsgi.server.scrape import MetricsServer  # prometheus_client, which may be missing

        MetricsServer(socket.socket(fileno=descriptor), server.figures).start()
    except Exception:  # deploys are worth more
        log.exception("the metrics can't be given")


def _probation(options: dict[str, Any]) -> Probation | None:
    seconds = options["probation"]
    return None if seconds is None else Probation(seconds, options["max_error_rate"])


def main(options: dict[str, Any]) -> None:
    """Run the coordinator until the master is gone.

    :param options: as :meth:`genwsgi.server.application.GenwsgiApplication.options` wrote them.
    """
    directory = RunDirectory(options["run_dir"])
    handed = options["handed"]
    cfg = Config(prog="genwsgi")
    for name, value in options["log"].items():
        cfg.set(name, value)
    made = with_json(cfg.logger_class) if options["log_json"] else cfg.logger_class
    logger = made(cfg)
    log = join_error_log()
    util._setproctitle(f"coordinator [{cfg.proc_name}]")
    util.set_owner_process(options["uid"], options["gid"], initgroups=options["initgroups"])
    try:
        directory.join()
        committed = directory.committed()
        source = make_source(options, Store(directory.store))
    except (RunDirectoryError, OSError) as error:
        log.error("the coordinator can't begin: %s; restart the server to deploy again", error)
        sys.stderr.flush()
        os._exit(1)
    triggers: list[Trigger] = []
    with contextlib.suppress(GenwsgiError):  # the deploys will say what is wrong
        # A deploy may have brought folders that the server was not started with.
        options["roots"] = source.resume(committed).watched

    def moved(roots: Sequence[str]) -> None:
        for trigger in triggers:
            follow = getattr(trigger, "follow", None)
            if follow is not None:
                follow(roots)

    def look_again() -> None:
        if options["watch"]:
            server.submit("watch", "a look at the files, for deploys are possible again")

    server = CoordinatorServer(
        directory,
        source,
        build_timeout=options["build_timeout"],
        log=log,
        master=int(sys.argv[1]),
        triggers=lambda: {trigger.name: trigger.status() for trigger in triggers},
        watched=options["roots"],
        moved=moved,
        recovered=look_again,
        announce=mouth(handed["ear"]) if "ear" in handed else None,
        keep=options["keep_releases"],
        state=options["state"],
        # The order comes from this very user: without roots any folder that is safe will do.
        trusted=lambda path: check_folder(path, options["release_root"] or None),
        probation=_probation(options),
    )
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    signal.signal(signal.SIGUSR1, lambda *_: logger.reopen_files())
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        for trigger in make_triggers(options, server.submit, log):
            try:
                trigger.start()
            except Exception:  # somebody else's code; the others must work all the same
                log.exception("the trigger %s can't start; its orders will not come", trigger.name)
            else:
                triggers.append(trigger)
        if "metrics" in handed:
            _answer_scrapes(handed["metrics"], server, log)
        if options["watch"]:
            # What changed while nobody was watching.
            server.submit("watch", "a look at the files as the watch begins")
        server.run()
        for trigger in triggers:
            trigger.stop()
        for trigger in triggers:
            trigger.join(2.0)
    except Exception:
        log.exception("the coordinator stumbled and ends; the master starts another")
    finally:
        # A thread that hangs must not keep a coordinator alive whose master is gone.
        sys.stderr.flush()
        os._exit(0)

"""The probe: it goes the way of a worker as far as the built application, says what it saw, ends.

So the scope of the first generation is found before there are workers, which all begin with it.
The master forks a probe as it forks a worker, but with no socket; in it the server's own worker
class does what it does in every worker: it takes the workers' user, the environment, and gevent's
patches.  The hooks of the config file are not called, for no worker starts.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from genwsgi.deploy.framing import clip
from genwsgi.deploy.rundir import private_folder
from genwsgi.deploy.running import in_words
from genwsgi.deploy.source import Source
from genwsgi.errors import GenwsgiError, ScopeError
from genwsgi.isolation.growth import Verdict
from genwsgi.isolation.scope import Addition
from genwsgi.isolation.store import Store
from genwsgi.live import LiveApplication
from genwsgi.server.child import ChildError, die_with, run_in_child
from genwsgi.server.logs import NAME as LOGGER

if TYPE_CHECKING:
    from genwsgi.server.application import GenwsgiApplication

#: How many probes look for the scope, one after the other, before it is taken as it is.
ROUNDS = 4

#: How long the probe's generation may take to go, in seconds.
CLOSE = 2.0


@dataclass(frozen=True)
class Report:
    """What one probe saw.

    :ivar additions: what has to join the scope; then nothing else is known yet.
    :ivar reason: why the application can't be built, in one line; empty if it can.
    :ivar traceback: what the application raised, whole; empty if it did not.
    :ivar met: whether workers meet the same, most likely, and say so.
    :ivar verdicts: of a good build, if they are asked for: what is in the scope, and why.
    """

    additions: tuple[Addition, ...] = ()
    reason: str = ""
    traceback: str = ""
    met: bool = False
    verdicts: tuple[Verdict, ...] = ()


class _Done(BaseException):
    """Takes the report out of a worker that has begun to load its application."""

    def __init__(self, report: Report) -> None:
        self.report = report


def settle_scope(
    app: GenwsgiApplication, source: Source, log: logging.Logger
) -> tuple[str, Report]:
    """Find the scope of the first generation; ``source`` has it afterwards.

    :returns: the snapshot to start from, and what the last probe has seen.
    :raises GenwsgiError: no snapshot can be taken.
    """
    started = time.monotonic()
    builds = 0
    with _readable_store(app) as store:
        while True:
            digest = source.take()
            if builds == ROUNDS:
                break
            builds += 1
            report = _probe(app, source, store, digest)
            before = source.rules.additions
            source.grow(report.additions)
            if source.rules.additions == before:
                break
            for addition in report.additions:
                log.info("%s", in_words(addition))
    left_out = source.warn_of_left_out(log)
    shown = [one for one in report.verdicts if one.name not in left_out]
    shown += [Verdict(name, False, why) for name, why in left_out.items() if report.verdicts]
    report = replace(report, verdicts=tuple(shown))
    if report.additions:
        lacked = "; ".join(map(in_words, report.additions))
        report = Report(reason=f"build {builds} of the application still found that {lacked}")
    if not report.reason:
        seconds = time.monotonic() - started
        log.info("the scope is settled after %.2f s; builds that it took: %d", seconds, builds)
    return digest, report


@contextmanager
def _readable_store(app: GenwsgiApplication) -> Iterator[str | None]:
    """Give the folder of a store for the probes if they can't read the master's, else ``None``.

    As long as the master writes to its own as root, the workers' user can't get at that.
    """
    cfg = app.cfg
    if cfg.uid == os.geteuid():
        yield None
        return
    folder = private_folder(cfg.uid)
    try:
        os.chown(folder, cfg.uid, cfg.gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _probe(app: GenwsgiApplication, source: Source, folder: str | None, digest: str) -> Report:
    """Build the snapshot ``digest`` in a probe, or one that it takes itself into ``folder``."""
    master = os.getpid()

    def load() -> Any:
        die_with(master)  # the worker has become another user
        store, taken = source.store, digest
        if folder is not None:
            store = Store(folder)
            taken = Source(source.rules, store).take()
        raise _Done(_build(app, store, taken))

    def work() -> str:
        if app.cfg.explain_scope:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the table has that to itself
        return json.dumps(asdict(_as_worker(app, load)))

    try:
        found = json.loads(run_in_child(work, app.cfg.build_timeout))
        return Report(
            tuple(Addition(**item) for item in found["additions"]),
            found["reason"],
            found["traceback"],
            found["met"],
            tuple(Verdict(**item) for item in found["verdicts"]),
        )
    except ChildError as error:
        return Report(reason=f"the probe {error}")
    except OSError as error:
        return Report(reason=f"no probe can be started: {error}")
    except (ValueError, KeyError, TypeError) as error:
        return Report(reason=f"the report of the probe can't be understood: {error}")


def _as_worker(app: GenwsgiApplication, load: Callable[[], Any]) -> Report:
    """Be a worker until it loads the application."""
    cfg = app.cfg
    app.load = load  # type: ignore[method-assign]
    try:
        log = cfg.logger_class(cfg)
        worker = cfg.worker_class(0, os.getppid(), [], app, cfg.timeout / 2.0, cfg, log)
        worker.pid = os.getpid()
        worker.init_process()
    except _Done as done:
        return done.report
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- it is reported
        return Report(reason=f"the worker of the probe could not start: {error!r}")
    return Report(reason="the worker of the probe did not load the application")


def _build(app: GenwsgiApplication, store: Store, digest: str) -> Report:
    live = LiveApplication(
        app.target, store, factory=app.cfg.factory, verification=app.verification()
    )
    verdicts: list[Verdict] | None = [] if app.cfg.explain_scope else None
    try:
        live.swap(live.build(digest, "probe", verdicts=verdicts))
        return Report(verdicts=tuple(verdicts or ()))
    except ScopeError as error:
        return Report(error.additions)
    except GenwsgiError as error:
        return Report(reason=clip(str(error)), traceback=clip(error.traceback), met=True)
    finally:
        # How this generation ends is no news.
        logging.getLogger(LOGGER).setLevel(logging.WARNING)
        live.close(CLOSE)

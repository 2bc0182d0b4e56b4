"""The replacement of the workers by a configuration that is read anew, or not at all.

gunicorn's own reload ends the master over a mistake in it, or leaves half of it.  All of this runs
in the master's main thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gunicorn.config import Config
from gunicorn.glogging import loggers
from gunicorn.sock import ssl_context
from gunicorn.util import check_is_writable

from genwsgi.errors import GenwsgiError, OptionError
from genwsgi.server.logs import join_error_log

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

#: What a configuration decides about the arbiter, and about the application.
_OF_ARBITER = ("cfg", "address", "timeout", "worker_class", "_num_workers", "proc_name", "pidfile")
_OF_APPLICATION = ("cfg", "app_uri", "target")


def check(before: Config, after: Config) -> None:
    """Refuse a configuration that no worker could be started with, while all is as it was.

    To be called before gunicorn takes anything of it.

    :raises OptionError: one line that says what can't work.
    """
    if after.address != before.address:
        # The old listeners would have to be closed before it is known that the new can be had.
        raise OptionError(
            "the address (bind) can't be changed while the server runs: leave it, or stop the "
            "server and start it with the new one"
        )
    # Handlers of gunicorn's own go with the configuration, the others are only opened again.
    logs = {after.errorlog, after.accesslog} - {None, "-"} | {
        handler.baseFilename
        for logger in loggers()
        for handler in logger.handlers
        if isinstance(handler, logging.FileHandler)
        and handler.stream
        and not getattr(handler, "_gunicorn", False)
    }
    try:
        for name in ("worker_class", "env"):  # which are made when they are asked for
            getattr(after, name)
        for path in sorted(logs):
            check_is_writable(path)
    except Exception as error:
        raise OptionError(reason(error)) from error
    if after.is_ssl:
        try:
            ssl_context(after)
        except Exception as error:
            files = f"certfile {after.certfile}, keyfile {after.keyfile}, ca_certs {after.ca_certs}"
            raise OptionError(f"no TLS with {files}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return what is wrong in one line: gunicorn puts whole tracebacks into its messages."""
    if not isinstance(error, (GenwsgiError, RuntimeError)):
        return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    lines = [line for line in map(str.strip, str(error).splitlines()) if line.strip("]")]
    first, *rest = lines or [type(error).__name__]
    return f"{first.rstrip(': ')}: {rest[-1]}" if rest else first


@contextlib.contextmanager
def or_as_before(arbiter: Arbiter) -> Iterator[None]:
    """Have the arbiter as it was if what is done in the block raises, which goes through.

    A worker that is forked in the block, and ends through it, is left alone.
    """
    app = arbiter.app
    own, apps = _kept(arbiter, _OF_ARBITER), _kept(app, _OF_APPLICATION)
    environ, path, folder, age = dict(os.environ), sys.path[:], _folder(), arbiter.worker_age
    try:
        yield
    except BaseException:
        if os.getpid() != arbiter.pid:
            raise
        if arbiter.pidfile not in (None, own["pidfile"]):
            arbiter.pidfile.unlink()
        vars(arbiter).update(own)
        vars(app).update(apps)
        os.environ.clear()
        os.environ.update(environ)
        sys.path[:] = path
        # Whoever has deleted the folder, or that of the pid file, has meant it.
        with contextlib.suppress(OSError):
            os.chdir(folder)
        with contextlib.suppress(OSError, RuntimeError):
            if arbiter.pidfile is not None:
                arbiter.pidfile.create(arbiter.pid)
        for pid, worker in list(arbiter.WORKERS.items()):
            if worker.age > age:
                arbiter.kill_worker(pid, signal.SIGTERM)
        if arbiter.log.cfg is not arbiter.cfg:
            arbiter.log.setup(arbiter.cfg)
            join_error_log()
        raise


def _kept(thing: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in vars(thing).items() if name in names}


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # deleted, as deploy tools do with old releases
        return os.curdir

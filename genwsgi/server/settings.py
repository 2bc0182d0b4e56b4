"""The configuration of one server: gunicorn's options and ours, with defaults that fit the job.

:class:`GenwsgiConfig` holds the values; :func:`check` refuses what can't be served.  All of it runs
in the main thread, before the first worker is forked.
"""

from __future__ import annotations

import argparse
import difflib
import platform
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import gunicorn
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import SUPPORTED_WORKERS

from genwsgi import completion
from genwsgi._version import __version__
from genwsgi.errors import OptionError
from genwsgi.isolation.scope import ALWAYS_SHARED
from genwsgi.server import metrics
from genwsgi.server.jsonlines import with_json
from genwsgi.server.options import OPTIONS
from genwsgi.triggers.amqp.settings import from_options

__all__ = ["OPTIONS", "GenwsgiConfig", "apply_defaults", "check"]

#: Threads per worker: enough that slow requests do not keep the quick ones waiting, few enough that
#: Python code, of which one thread runs at a time, does not spend its time on changing threads.
THREADS = 4

#: gunicorn's defaults that do not fit the job, and ours.
DEFAULTS = {
    # Keeps idle connections beside busy ones, streams included, and needs no further package.
    "worker_class": "gthread",
    "threads": THREADS,
    # Longer than the 60 s for which proxies commonly keep an idle connection, so that it is the
    # proxy that closes: a server that closes first can meet the next request on its way.
    "keepalive": 75,
    # It is a thread in the master, which forks; and every server of a user would take one path.
    "control_socket_disable": True,
}

USAGE = "%(prog)s [options] MODULE[:NAME]"

DESCRIPTION = """\
Serve a WSGI application and take new code without closing a connection.

MODULE is imported from --chdir and --pythonpath. NAME is a WSGI callable, a
factory, or a call with literal arguments; without NAME it is application, app,
create_app or make_app, whichever is found first.

When a file of the application changes, when genwsgictl or a message of a broker
orders it, or on SIGHUP, the new code is built beside the code that serves, in
every worker; new requests go to it as soon as all have it ready. Code that can't
be built replaces nothing. All that gunicorn can do is there too; options of our
own are the last group.
"""

EPILOG = """\
examples:
  genwsgi myapp                                serve myapp, deploy what you save
  genwsgi -w 4 -b 0.0.0.0:8000 myapp:create_app
  genwsgi "myapp:create_app('prod')"           a factory with arguments
  genwsgi --watch-pattern '*.html' myapp:app   templates are deployed too
  genwsgi --no-watch --run-dir /run/myapp myapp:app
                                               deploy by genwsgictl or SIGHUP only

configuration:
  Every option of gunicorn works as it does there: on the command line, in
  GUNICORN_CMD_ARGS, and in the config file (-c, or gunicorn.conf.py), where an
  option is written with underscores: watch_pattern = ["*.html"].

signals to the master:
  HUP        deploy what is on disk now
  TERM       stop: requests are served out, for --graceful-timeout at most
  INT, QUIT  stop at once
  USR1       reopen the log files
  USR2       start another server beside this one, to replace it
  TTIN, TTOU one worker more, one less

exit status:
  0  stopped in good order, or what was to be shown is shown
  1  the configuration can't be used, or the address can't be bound
  2  the command line can't be obeyed, or the target isn't there
  3  no worker could start
  4  the application could not be built; its traceback is shown

genwsgictl looks at servers that run, and gives them orders: genwsgictl --help.
"""

#: References in gunicorn's documents, which its texts for ``--help`` keep: what they say is enough.
_REFERENCE = re.compile(r":\w+:`([^`<]+)(<[^`]*>)?`")


def apply_defaults(cfg: Config) -> None:
    """Give one configuration our defaults, before anything else is set in it.

    gunicorn's own classes are left alone: another server in this process keeps gunicorn's defaults.
    """
    for name, value in DEFAULTS.items():
        setting = cfg.settings[name]
        setting.default = value
        setting.set(value)


class GenwsgiConfig(Config):
    """gunicorn's configuration with our defaults, our options and our ``--help``.

    :param usage: the usage line; ours unless given.
    :param prog: the name of the command.
    """

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        super().__init__(usage or USAGE, prog or "genwsgi")
        self._threads_given = False
        apply_defaults(self)

    def set(self, name: str, value: object) -> None:
        """Set one option; raises what its validator raises.

        gunicorn takes sync workers with several threads for gthread.  Somebody who asks for sync
        and says nothing of threads is to have sync, so our default of threads is not for them.
        """
        super().set(name, value)
        self._threads_given = self._threads_given or name == "threads"
        if name == "worker_class" and not self._threads_given:
            kind = self.settings["worker_class"].get()
            sync = isinstance(kind, str) and (kind == "sync" or kind.endswith("SyncWorker"))
            self.settings["threads"].set(1 if sync else THREADS)

    @property
    def worker_class(self) -> Any:
        """The worker class, imported.

        :raises OptionError: it isn't there, or lacks a package.
        """
        try:
            return super().worker_class
        except (RuntimeError, AttributeError) as error:
            # gunicorn puts the whole traceback of what went wrong into the text of its own error.
            cause = error.__context__ or error
            kind = self.settings["worker_class"].get()
            if not isinstance(kind, str) or not isinstance(cause, _NOT_THERE):
                raise
            raise _not_there(kind, cause) from None

    @property
    def logger_class(self) -> Any:
        """The logger class that is given, or gunicorn's; with ``log_json`` it writes JSON lines."""
        given = super().logger_class
        return with_json(given) if self.log_json else given

    def parser(self) -> argparse.ArgumentParser:
        """Return a parser that knows every option of gunicorn and of ours."""
        parser = _Parser(
            prog=self.prog,
            usage=self.usage,
            description=DESCRIPTION,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        version = f"genwsgi {__version__} (gunicorn {gunicorn.__version__}, "
        parser.add_argument(
            "-v",
            "--version",
            action="version",
            version=f"{version}Python {platform.python_version()})",
            help="show the versions of genwsgi, gunicorn and Python, and exit",
        )
        completion.add_to(parser)
        parser.add_argument("args", nargs="*", metavar="MODULE[:NAME]", help="what to serve")
        for name in sorted(self.settings, key=self.settings.__getitem__):
            self.settings[name].add_option(parser)
        for action in parser._actions:
            action.help = _REFERENCE.sub(r"\1", action.help or "")
        return parser


class _Parser(argparse.ArgumentParser):
    """A parser that says which option an unknown one may have been meant for."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return known

    def _refuse(self, unknown: list[str]) -> NoReturn:
        option = next((arg for arg in unknown if arg.startswith("-")), None)
        if option is None:
            self.error(f"one MODULE[:NAME] is served, and this is more: {' '.join(unknown)}")
        option = option.partition("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(option, flags, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"{self.prog} --help lists them"
        self.error(f"unknown option {option}: {hint}")


# -- what can't be served ------------------------------------------------------------------------

_ASGI = "it serves ASGI applications, and genwsgi serves WSGI ones"
#: The worker classes that fit.
_WORKERS = ("gthread", "gevent", "sync")
#: What is raised for a class that isn't there, or needs a package that isn't.
_NOT_THERE = (ImportError, RuntimeError, AttributeError)
#: Modules whose worker classes can't work, and why.
_UNFIT_WORKERS = {
    "gunicorn.workers.gasgi": _ASGI,
    "uvicorn": _ASGI,
    "uvicorn_worker": _ASGI,
    "gunicorn.workers.gtornado": "it runs the application inside Tornado's event loop, where one "
    "slow request holds up all others and a stream is sent only when it has ended",
}


def check(cfg: Config) -> None:
    """Refuse a combination of options that can't be served.

    To be called once everything is set, and before ``cfg.worker_class`` is asked for: that imports
    the worker, for which the paths have to be set as well.

    :raises OptionError: one line that says what can't work, why, and what to do instead.
    """
    _check_worker(cfg.settings["worker_class"].get())
    if cfg.preload_app:
        raise OptionError(
            "--preload (preload_app) can't be combined with generations, which each worker must be "
            "able to drop: leave it out"
        )
    if cfg.reload:
        raise OptionError(
            "--reload is gunicorn's, and restarts workers: leave it out, genwsgi watches by itself"
        )
    if cfg.paste is not None:
        raise OptionError(
            "--paste loads an application that has no module to build anew: write a module with "
            "application = paste.deploy.loadapp(...) and serve that"
        )
    _check_log(cfg)
    if cfg.metrics is not None:
        metrics.check(cfg.metrics, cfg.address)
    from_options({option.name: getattr(cfg, option.name) for option in OPTIONS})
    if cfg.park and cfg.probation is None:
        raise OptionError(
            "--park keeps the replaced code ready for the time of the --probation: give that as "
            "well, such as --probation 30"
        )
    if cfg.probation is None and cfg.max_error_rate != cfg.settings["max_error_rate"].default:
        raise OptionError(
            "--max-error-rate is the limit of a --probation: give that as well, such as "
            "--probation 30"
        )
    if cfg.probation is not None and cfg.keep_releases == 0:
        raise OptionError(
            "--probation goes back to the release before, which --keep-releases 0 does not keep: "
            "keep 1 at least"
        )
    both = sorted(set(cfg.scope) & set(cfg.share))
    if both:
        raise OptionError(
            f"{', '.join(both)} can't be both imported afresh (--scope) and shared (--share): "
            "leave it out of one of them"
        )

    always = sorted(set(cfg.scope) & (sys.stdlib_module_names | ALWAYS_SHARED))
    if always:
        raise OptionError(
            f"--scope can't have {', '.join(always)} imported afresh: the standard library, "
            "genwsgi and what it needs are always shared"
        )


def _check_log(cfg: Config) -> None:
    if not cfg.log_json:
        return
    for name in ("logconfig", "logconfig_dict", "logconfig_json"):
        if getattr(cfg, name):
            raise OptionError(
                f"--log-json says how the error log is written, and so does {name}: leave one out, "
                "or give the formatter genwsgi.server.jsonlines.JSONFormatter there"
            )
    given = Config.logger_class.fget(cfg)
    if not issubclass(given, Logger):
        raise OptionError(
            f"--log-json needs a logger class that is made from gunicorn's, and {given.__name__} "
            "is not: leave one of them out"
        )


def _not_there(kind: str, cause: BaseException) -> OptionError:
    """Return what says that the worker class ``kind`` can't be had."""
    near = difflib.get_close_matches(kind, [name for name in _WORKERS if name != kind], n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_WORKERS)}"
    unknown = isinstance(cause, ImportError) and "." not in kind
    reason = "there is none of this name" if unknown else cause
    return OptionError(f"worker class {kind} can't be used: {reason}; {hint}")


def _check_worker(kind: str | type) -> None:
    classes = (
        [kind] if isinstance(kind, str) else [f"{c.__module__}.{c.__name__}" for c in kind.__mro__]
    )
    for name in classes:
        short = name.rpartition("#")[2]  # "egg:gunicorn#tornado" and "#tornado" are "tornado"
        module = SUPPORTED_WORKERS.get(short, short).rpartition(".")[0]
        parents = module.split(".")
        for depth in range(1, len(parents) + 1):
            reason = _UNFIT_WORKERS.get(".".join(parents[:depth]))
            if reason:
                shown = kind if isinstance(kind, str) else kind.__name__
                raise OptionError(
                    f"worker class {shown} can't be used: {reason}. Use gthread (the default), "
                    "gevent or sync"
                )

"""The options of the command ``genwsgi``: gunicorn's, and our own in one table.

:data:`OPTIONS` is that table.  It drives the command line, ``GUNICORN_CMD_ARGS``, the config file
(where an option bears its :attr:`Option.name`) and ``--help``.  Importing this module registers
the options with gunicorn, once.  :class:`GenwsgiConfig` holds the values of one server, with our
defaults; :func:`check` refuses what can't be served.  All of it runs in the main thread, before
the first worker is forked.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from wsgiref.util import is_hop_by_hop

import gunicorn
from gunicorn.config import KNOWN_SETTINGS, Config, Setting
from gunicorn.workers import SUPPORTED_WORKERS

from genwsgi._version import __version__
from genwsgi.errors import OptionError

GROUP = "genwsgi"

# -- validators: what any of the sources gave, made a value --------------------------------------


def _boolean(option: Option, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise option.refuse(value, "True or False")


def _seconds(option: Option, value: object) -> float:
    wanted = "a number of seconds above 0"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise option.refuse(value, wanted)
    try:
        seconds = float(value)
    except ValueError as error:
        raise option.refuse(value, wanted) from error
    if not 0 < seconds < math.inf:  # NaN is refused too: it compares with nothing
        raise option.refuse(value, wanted)
    return seconds


def _texts(option: Option, value: object) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        value = [value]
    wanted = "a text or a list of texts, none of them empty"
    if not isinstance(value, Iterable):
        raise option.refuse(value, wanted)
    texts = tuple(os.fspath(v) if isinstance(v, os.PathLike) else v for v in value)
    if not all(isinstance(text, str) and text for text in texts):
        raise option.refuse(value, wanted)
    return texts


def _packages(option: Option, value: object) -> tuple[str, ...]:
    names = [name.strip() for text in _texts(option, value) for name in text.split(",")]
    for name in names:
        if not name.isidentifier():
            top = name.partition(".")[0]
            hint = f" (did you mean {top}?)" if top.isidentifier() else ""
            raise option.refuse(name, f"the name of a top-level package{hint}")
    return tuple(dict.fromkeys(names))


def _directory(option: Option, value: object) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise option.refuse(value, "a directory")
    return path


def _header(option: Option, value: object) -> str | None:
    if value is True:
        return str(option.const)
    if value is False:
        return None
    # Narrower than a token of RFC 9110, section 5.6.2: what wsgiref.validate lets pass as well.
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?", value
    ):
        hint = f" (before MODULE:NAME, write {option.flag}=NAME)"
        raise option.refuse(value, f"the name of an HTTP header{hint}")
    if is_hop_by_hop(value) or value.lower() in ("content-length", "content-type", "status"):
        raise option.refuse(value, f"a header of its own, such as {option.const}")
    return value


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One option of ours.

    :ivar name: what it is called in a config file and on the configuration object.
    :ivar help: one sentence for ``--help``, without the default.
    :ivar validator: makes the value from what was given, or raises :meth:`refuse`.
    :ivar default: the value where nothing, or ``None``, is given.
    """

    name: str
    help: str
    validator: Callable[[Option, Any], object]
    default: object = None
    meta: str | None = None
    action: str | type[argparse.Action] = "store"
    nargs: str | None = None
    const: object = None

    @property
    def flag(self) -> str:
        """What the option is called on the command line."""
        return "--" + self.name.replace("_", "-")

    def refuse(self, value: object, wanted: str) -> OptionError:
        """The error for a value that this option does not take."""
        return OptionError(
            f"{self.flag} (in a config file: {self.name}) is {value!r}: give {wanted}"
        )

    def validate(self, value: object) -> object:
        """Return the value that ``value`` means; raises :class:`OptionError`."""
        return self.default if value is None else self.validator(self, value)

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Add the option to a parser's group, absent where the command line does not give it."""
        shown = f" [{self.default}]" if isinstance(self.default, float) else ""
        extras = {"metavar": self.meta, "nargs": self.nargs, "const": self.const}
        group.add_argument(
            self.flag,
            dest=self.name,
            action=self.action,
            default=None,
            help=(self.help + shown).replace("%", "%%"),
            **{key: value for key, value in extras.items() if value is not None},  # type: ignore[arg-type]
        )


_SEVERAL = "May be given several times."
_LIST = "May be given several times, or as a list with commas."
_EITHER = argparse.BooleanOptionalAction

OPTIONS = (
    Option("watch", "Deploy when a file of the application changes. On unless switched off.",
        _boolean, default=True, action=_EITHER),
    Option("watch_polling", "Look for changes at intervals instead of being told by the system: "
        "for network file systems and others that announce nothing.",
        _boolean, default=False, action="store_true"),
    Option("watch_interval", "The time between two looks with --watch-polling.",
        _seconds, default=1.0, meta="SECONDS"),
    Option("watch_path", f"A further file or directory to watch. {_SEVERAL}",
        _texts, default=(), meta="PATH", action="append"),
    Option("watch_pattern", "Further files to watch besides Python's, such as '*.html' or "
        f"'.env'. {_SEVERAL}", _texts, default=(), meta="GLOB", action="append"),
    Option("watch_ignore", "Files or directories not to watch, besides those never watched "
        f"(__pycache__, .git, editors' droppings). {_SEVERAL}",
        _texts, default=(), meta="GLOB", action="append"),
    Option("scope", f"A further top-level package that every generation imports afresh. {_LIST}",
        _packages, default=(), meta="NAME", action="append"),
    Option("share", f"A top-level package that all generations share. {_LIST}",
        _packages, default=(), meta="NAME", action="append"),
    Option("factory", "NAME is a function that makes the application, or is not. Told from its "
        "signature unless given.", _boolean, action=_EITHER),
    Option("build_timeout", "How long a deploy may take to build the new generation before it is "
        "given up.", _seconds, default=60.0, meta="SECONDS"),
    Option("run_dir", "The directory for the control socket and the snapshots; a private temporary "
        "one unless given.", _directory, meta="DIR"),
    Option("generation_header", "Tell in this response header which generation served the request; "
        "X-Generation unless named.", _header, meta="NAME", nargs="?", const="X-Generation"),
)  # fmt: skip


class _OwnSetting:
    """What our settings share: they stand in a group of their own in ``--help``."""

    option: Option

    def add_option(self, parser: argparse.ArgumentParser) -> None:
        groups = vars(parser)
        if "genwsgi_group" not in groups:
            groups["genwsgi_group"] = parser.add_argument_group(GROUP)
        self.option.add_to(groups["genwsgi_group"])


def _register() -> None:
    """Make a ``Setting`` of each option; gunicorn lists a setting as its class is created."""
    known = {setting.name for setting in KNOWN_SETTINGS}
    for option in OPTIONS:
        if option.name not in known:
            attributes = {
                "option": option,
                "name": option.name,
                "section": GROUP,
                "cli": [option.flag],
                "validator": option.validate,
                "default": option.default,
                "desc": option.help,
            }
            type(Setting)(f"Genwsgi_{option.name}", (_OwnSetting, Setting), attributes)


_register()


# -- the configuration of one server -------------------------------------------------------------

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
"""

EPILOG = """\
examples:
  genwsgi myapp                                serve myapp, deploy what you save
  genwsgi -w 4 -b 0.0.0.0:8000 myapp:create_app
  genwsgi "myapp:create_app('prod')"           a factory with arguments
  genwsgi --watch-pattern '*.html' myapp:app   templates are deployed too
  genwsgi --no-watch --run-dir /run/myapp myapp:app
                                               deploy by genwsgictl or SIGHUP only

Every option of gunicorn works as it does there: on the command line, in
GUNICORN_CMD_ARGS, and in the config file (-c, or gunicorn.conf.py), where an
option is written with underscores: watch_pattern = ["*.html"].
"""


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
        parser.add_argument("args", nargs="*", metavar="MODULE[:NAME]", help="what to serve")
        for name in sorted(self.settings, key=self.settings.__getitem__):
            self.settings[name].add_option(parser)
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
    the worker, whose packages may be missing.

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
    both = sorted(set(cfg.scope) & set(cfg.share))
    if both:
        raise OptionError(
            f"{', '.join(both)} can't be both imported afresh (--scope) and shared (--share): "
            "leave it out of one of them"
        )


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

"""Our own options, in one table.

:data:`OPTIONS` drives the command line, ``GUNICORN_CMD_ARGS``, the config file (where an option
bears its :attr:`Option.name`) and ``--help``.  Importing this module registers the options with
gunicorn, once.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from wsgiref.util import is_hop_by_hop

from gunicorn.config import KNOWN_SETTINGS, Setting

from genwsgi.errors import OptionError
from genwsgi.server import metrics
from genwsgi.triggers.amqp.hiding import HiddenURL
from genwsgi.triggers.amqp.settings import EXCHANGE, WINDOW, check_url
from genwsgi.verification import HOST, TIMEOUT, expected

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


def _share(option: Option, value: object) -> float:
    """A part of all: ``"5%"``, or 0.05."""
    wanted = "a part of all requests, such as 5% or 0.05"
    text = f"{value:.17g}" if isinstance(value, float) else str(value).strip()
    number, percent = (text[:-1], 100) if text.endswith("%") else (text, 1)
    try:
        part = float(number) / percent
    except ValueError as error:
        raise option.refuse(value, wanted) from error
    if not 0 <= part < 1:
        raise option.refuse(value, wanted)
    return part


def _count(option: Option, value: object) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not text.isdecimal():
        raise option.refuse(value, "a whole number, 0 or more")
    return int(text)


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


def _requests(option: Option, value: object) -> tuple[str, ...]:
    texts = _texts(option, value)
    for text in texts:
        try:
            expected(text)
        except OptionError as error:
            wanted = "PATH or PATH=STATUS, such as /health or /old=301"
            raise option.refuse(text, wanted) from error
    return texts


def _host(option: Option, value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]+(:\d{1,5})?", value):
        raise option.refuse(value, "the name of a host, and perhaps a port: example.com:8000")
    return value


def _address(option: Option, value: object) -> str:
    text = value if isinstance(value, str) else ""
    try:
        metrics.parse(text)
    except ValueError as error:
        raise option.refuse(value, "unix:PATH or HOST:PORT") from error
    return text


def _packages(option: Option, value: object) -> tuple[str, ...]:
    names = [name.strip() for text in _texts(option, value) for name in text.split(",")]
    for name in names:
        if not name.isidentifier():
            top = name.partition(".")[0]
            hint = f" (did you mean {top}?)" if top.isidentifier() else ""
            raise option.refuse(name, f"the name of a top-level package{hint}")
    return tuple(dict.fromkeys(names))


def _text(option: Option, value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise option.refuse(value, "a name")
    return value


def _broker(option: Option, value: object) -> HiddenURL:
    text = value if isinstance(value, str) else ""
    try:
        check_url(text)
    except OptionError as error:
        # Not the value: it may hold a password that can't be told from the rest.
        wanted = "the URL of a broker, amqp://USER:PASSWORD@HOST:PORT/VHOST"
        raise option.refuse("***", wanted) from error
    return HiddenURL(text)


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
        shown = f" [{self.default}]" if type(self.default) in (int, float, str) else ""
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
    Option("scope", "A further top-level package that every generation imports afresh, besides "
        "the application's own and those that are found to belong with them (see "
        f"--explain-scope). {_LIST}", _packages, default=(), meta="NAME", action="append"),
    Option("share", f"A top-level package that all generations share, whatever is found. {_LIST}",
        _packages, default=(), meta="NAME", action="append"),
    Option("explain_scope", "Build the application, tell for each package that it uses whether "
        "every generation imports it afresh, and why, and exit.",
        _boolean, default=False, action="store_true"),
    Option("factory", "NAME is a function that makes the application, or is not. Told from its "
        "signature unless given.", _boolean, action=_EITHER),
    Option("build_timeout", "How long a deploy may take to build the new generation before it is "
        "given up.", _seconds, default=60.0, meta="SECONDS"),
    Option("verify", "Deploy only what answers a GET of this path with a status below 400, or with "
        f"the one given: /old=301. Asked in each worker before it is ready, and held to PEP "
        f"3333 by wsgiref.validate. {_SEVERAL}",
        _requests, default=(), meta="PATH[=STATUS]", action="append"),
    Option("verify_timeout", "How long each --verify, and each check of the application's own, may "
        "take.", _seconds, default=TIMEOUT, meta="SECONDS"),
    Option("verify_host", "The host that --verify asks for: one that the application serves.",
        _host, default=HOST, meta="NAME[:PORT]"),
    Option("probation", "For so long after a deploy watch what becomes of the new code's requests, "
        "and go back to the code before if more than --max-error-rate of them fail: are answered "
        "with a status of 5xx, or raise. Off unless given.", _seconds, meta="SECONDS"),
    Option("max_error_rate", "How many of the requests in a --probation may fail, such as 5%.",
        _share, default=0.05, meta="PART"),
    Option("park", "Keep the code that a deploy replaces ready for the time of the --probation, so "
        "that to go back takes a few milliseconds.", _boolean, default=False, action="store_true"),
    Option("run_dir", "The directory for the control socket and the snapshots; a private temporary "
        "one unless given.", _directory, meta="DIR"),
    Option("keep_releases", "How many releases before the committed one can be gone back to.",
        _count, default=5, meta="N"),
    Option("state_dir", "The directory for what outlives the server: the history of deploys. "
        "$STATE_DIRECTORY, $XDG_STATE_HOME/genwsgi or ~/.local/state/genwsgi unless given.",
        _directory, meta="DIR"),
    Option("amqp", "Take deploy orders from this RabbitMQ. amqps:// is within TLS.",
        _broker, meta="URL"),
    Option("amqp_exchange", "The fanout exchange that orders come by.",
        _text, default=EXCHANGE, meta="NAME"),
    Option("amqp_key_file", "Obey orders that are signed with a key of this file, which nobody "
        "else may read: one key in each line.", _directory, meta="FILE"),
    Option("amqp_allow_unsigned", "Obey orders that nobody has signed, too.",
        _boolean, default=False, action="store_true"),
    Option("amqp_window", "For how long a signed order is good: a host that was away for so long "
        "still catches up.", _seconds, default=WINDOW, meta="SECONDS"),
    Option("amqp_ca", "Who vouches for the broker's certificate (TLS); the system's unless given.",
        _directory, meta="FILE"),
    Option("amqp_cert", "The certificate to show the broker (TLS).", _directory, meta="FILE"),
    Option("amqp_key", "The key of that certificate (TLS), if it is in another file.",
        _directory, meta="FILE"),
    Option("release_root", "A folder below which the folders must lie that orders name. "
        f"{_SEVERAL}", _texts, default=(), meta="DIR", action="append"),
    Option("metrics", "Give Prometheus metrics at this address of their own: unix:PATH or "
        "HOST:PORT.", _address, meta="ADDRESS"),
    Option("log_json", "Write the error log, gunicorn's and genwsgi's, as JSON lines: one object "
        "for each record.", _boolean, default=False, action="store_true"),
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

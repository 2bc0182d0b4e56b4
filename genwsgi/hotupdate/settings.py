"""Where the settings come from: arguments, else the environment, else ``settings.MQ``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from genwsgi.errors import OptionError

if TYPE_CHECKING:
    from genwsgi.triggers.amqp.settings import Settings

#: What the environment's names begin with: ``GENWSGI_AMQP_URL`` and so on.
PREFIX: Final = "GENWSGI_AMQP_"

_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class Configuration:
    """What :func:`genwsgi.hotupdate.auto_reload_module` was asked for.

    :ivar amqp: the broker to listen to; ``None``: to none.
    :ivar watch: whether to watch the files, and ``polling``: by looking at them.
    """

    amqp: Settings | None
    watch: bool
    polling: bool
    keep: frozenset[str]
    build_timeout: float


def find_broker(
    arguments: Mapping[str, Any], environ: Mapping[str, str], homes: Sequence[str]
) -> Settings | None:
    """Return the broker to listen to and whom to believe; ``None``: none is named anywhere.

    :param arguments: ``url``, ``exchange``, ``key_file``, ``allow_unsigned``, ``release_root``,
        ``ca``, ``cert``, ``key``, ``window``; what is ``None`` is looked for elsewhere.
    :param homes: the folders that the program's own modules are imported from.
    :raises OptionError: what is given can't be used.
    """
    found = {name: value for name, value in arguments.items() if value is not None}
    for name in arguments:
        if name not in found and f"{PREFIX}{name.upper()}" in environ:
            found[name] = _read(name, environ[f"{PREFIX}{name.upper()}"])
    if "url" not in found:
        url = _url_of_settings()
        if url is None:
            if found:
                raise OptionError(
                    f"{sorted(found)[0]} is given without a broker: give url= or "
                    f"{PREFIX}URL as well"
                )
            return None
        found["url"] = url
    return _settings(found, homes)


def _settings(found: Mapping[str, Any], homes: Sequence[str]) -> Settings:
    from genwsgi.triggers.amqp.settings import EXCHANGE, WINDOW, Settings, check_url
    from genwsgi.triggers.amqp.signing import read_keys

    check_url(found["url"])
    keys = read_keys(found["key_file"]) if found.get("key_file") else ()
    roots = found.get("release_root")
    if roots is None:
        roots = default_roots(homes)
    elif isinstance(roots, (str, os.PathLike)):
        roots = [roots]
    return Settings(
        url=found["url"],
        exchange=found.get("exchange") or EXCHANGE,
        keys=keys,
        # Without keys an unsigned order can but choose among releases that are this user's own.
        allow_unsigned=bool(found.get("allow_unsigned", not keys)),
        roots=tuple(os.path.abspath(root) for root in roots),
        # Nobody has said that what lies deeper, or in the other folders there, may be run.
        deep=found.get("release_root") is not None,
        ca=found.get("ca"),
        cert=found.get("cert"),
        key=found.get("key"),
        window=float(found.get("window") or WINDOW),
    )


def default_roots(homes: Sequence[str]) -> list[str]:
    """Return the folders that hold the program's own: releases usually lie side by side."""
    roots = []
    for home in homes:
        above = os.path.dirname(os.path.realpath(home))
        roots.append(home if above == os.sep else above)
    return sorted(set(roots))


def _read(name: str, text: str) -> Any:
    """Return what an environment variable says."""
    if name == "release_root":
        return [root for root in text.split(os.pathsep) if root]
    if name == "allow_unsigned":
        if text.lower() not in _YES | _NO:
            raise OptionError(f"{PREFIX}ALLOW_UNSIGNED={text}: say 1 or 0")
        return text.lower() in _YES
    if name == "window":
        try:
            return float(text)
        except ValueError:
            raise OptionError(f"{PREFIX}WINDOW={text} is no number of seconds") from None
    return text


def _url_of_settings() -> str | None:
    """Return the URL that the dictionary ``settings.MQ`` makes, if there is one."""
    try:
        if importlib.util.find_spec("settings") is None:
            return None
    except (ImportError, ValueError):  # something else has that name
        return None
    mq = getattr(importlib.import_module("settings"), "MQ", None)
    if mq is None:
        return None
    if not isinstance(mq, Mapping) or not mq.get("host"):
        raise OptionError("settings.MQ is no dictionary with a host: give it host, port, …")
    user, password = (
        urllib.parse.quote(str(mq.get(name, "guest")), safe="") for name in ("userName", "password")
    )
    host = str(mq["host"])
    host = f"[{host}]" if ":" in host else host
    vhost = urllib.parse.quote(str(mq.get("vhost", "/")), safe="")
    return f"amqp://{user}:{password}@{host}:{mq.get('port') or 5672}/{vhost}"

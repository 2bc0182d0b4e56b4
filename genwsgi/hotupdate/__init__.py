"""New code for programs that are no web servers, while they run.

::

    from genwsgi import hotupdate

    hotupdate.auto_reload_module()

From then on, modules of the program are renewed when a message or a change of their files says so:
built beside the running ones, and live in one step.  docs/hotupdate.md says what that means.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any, TypeVar, overload

from genwsgi.errors import GenwsgiError, OptionError
from genwsgi.generations.generation import active
from genwsgi.hotupdate.listening import Listening
from genwsgi.hotupdate.pins import PinnedWork, Stamped, stamp
from genwsgi.hotupdate.settings import Configuration, find_broker
from genwsgi.hotupdate.updater import BUILD_TIMEOUT, Request, Update, Updater
from genwsgi.hotupdate.versions import Version, Versions
from genwsgi.isolation.view import real
from genwsgi.janitor import Held

__all__ = [
    "Stamped",
    "Status",
    "Update",
    "Version",
    "auto_reload_module",
    "close",
    "module",
    "on_update",
    "pin",
    "status",
    "update",
    "versioned",
]

log = logging.getLogger("genwsgi")

C = TypeVar("C", bound=Callable[[Version, Version], object])
F = TypeVar("F", bound=Callable[..., Any])

# Guards _listening; held while triggers start and stop, never by the updater's thread.
_lock = threading.RLock()
_updater = Updater(Versions())
_listening: Listening | None = None
_forked = False


@dataclass(frozen=True)
class Status:
    """How the program's versions and its sources of updates stand.

    :ivar version: the current version.
    :ivar in_use: replaced versions that are still in use, each with its number of pins; 0: a thread
        is in its code.
    :ivar held: versions that are not in use, and that something can still call.
    :ivar last: how the last update ended; ``None``: there was none.
    :ivar listening: whether updates come by themselves.
    :ivar sources: how each source of updates stands, by its name.
    :ivar problem: why no updates come although they were asked for; else empty.
    """

    version: Version
    in_use: tuple[tuple[int, int], ...] = ()
    held: tuple[Held, ...] = ()
    last: Update | None = None
    listening: bool = False
    sources: dict[str, dict[str, object]] = field(default_factory=dict)
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data that ``json`` writes."""
        return asdict(self)


def auto_reload_module(
    url: str | None = None,
    *,
    exchange: str | None = None,
    key_file: str | None = None,
    allow_unsigned: bool | None = None,
    release_root: str | Sequence[str] | None = None,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    window: float | None = None,
    watch: bool = False,
    watch_polling: bool = False,
    keep: Iterable[str] = (),
    build_timeout: float = BUILD_TIMEOUT,
) -> None:
    """Take updates of this program's modules from now on, on threads of its own.

    What is not given here is taken from the environment (``GENWSGI_AMQP_URL``, ...), and the broker
    at last from the dictionary ``settings.MQ`` (``host``, ``port``, ``userName``, ``password``).
    The broker may be away.  May be called again with the same settings.

    :param url: the broker, ``amqp://USER:PASSWORD@HOST:PORT/VHOST`` or ``amqps://``.
    :param exchange: the fanout exchange that orders come by; ``genwsgi.hotupdate``.
    :param key_file: the keys whose signed orders are believed; then no others are.
    :param allow_unsigned: obey unsigned orders; by default only where there is no key file.
    :param release_root: where folders named in orders must lie; by default beside the folders that
        the program's modules are imported from.
    :param ca, cert, key: PEM files for ``amqps``.
    :param window: for how long a signed order is good, in seconds.
    :param watch: take changes of the files as well.
    :param watch_polling: look at the files instead of being told.
    :param keep: modules, with what lies below them, that are never rebuilt unless they are named.
    :param build_timeout: how long a build may take, in seconds.
    :raises OptionError: no source of updates is named anywhere, the settings can't be used, or they
        are not those of the first call.
    """
    global _listening, _forked
    if active.get() is not None:
        log.warning("hotupdate does nothing here: genwsgi serves this code, and deploys renew it")
        return
    arguments = {
        "url": url,
        "exchange": exchange,
        "key_file": key_file,
        "allow_unsigned": allow_unsigned,
        "release_root": release_root,
        "ca": ca,
        "cert": cert,
        "key": key,
        "window": window,
    }
    _updater.begin()
    # Not under the lock: a module ``settings`` is the program's own code.
    broker = find_broker(arguments, os.environ, _updater.homes)
    if broker is None and not watch:
        raise OptionError(
            "nothing tells of new code: give url= (or GENWSGI_AMQP_URL, or settings.MQ) for "
            "messages, or watch=True for changes of the files"
        )
    wanted = Configuration(broker, watch, watch_polling, frozenset(keep), build_timeout)
    with _lock:
        if _listening is None:
            _updater.keep, _updater.build_timeout = wanted.keep, build_timeout
            listening = Listening(_updater, wanted)
            listening.start()
            _listening, _forked = listening, False
        elif _listening.configuration != wanted:
            raise OptionError(
                "auto_reload_module() was called before with other settings: close() it first"
            )


def update(
    modules: str | Iterable[str] = (), *, path: str | None = None, timeout: float | None = None
) -> Update:
    """Make an update now, and wait for its outcome.  Any thread but a callback's.

    :param modules: what has changed; nothing: whatever of the program's modules has.
    :param path: a folder to look for the program's modules in first, from now on.
    :param timeout: how long to wait, in seconds; after that the update goes on by itself.
    :raises GenwsgiError: it took longer than that, or the updater's own thread asks.
    """
    if _updater.is_updater:
        raise GenwsgiError("an update can't wait for another: call update() on another thread")
    named = (modules,) if isinstance(modules, str) else tuple(modules)
    outcome: queue.SimpleQueue[Update] = queue.SimpleQueue()
    place = "" if path is None else os.path.realpath(path)
    _updater.ask(Request(named, place, tell=outcome.put))
    try:
        return outcome.get(timeout=timeout)
    except queue.Empty:
        raise GenwsgiError(f"the update is still under way after {timeout} s") from None


def pin() -> PinnedWork:
    """Keep to one version for a unit of work: ``with hotupdate.pin(): ...``.

    The version that is current at the beginning stays what everything in it means, in this thread,
    greenlet or task; inside of another pin it is that pin's version.  Threads that are started in
    it, and work handed to a pool, are not in it: let them take a pin of their own.

    ``with hotupdate.pin() as number`` gives the version's number.
    """
    return PinnedWork(_updater.versions.switch)


def module(name: str) -> ModuleType:
    """Return a live handle of a module: it means the version that is pinned, or the current one.

    The module is imported if need be.  What ``import`` gives a program is such a handle already;
    this is for names that are computed.

    :raises ImportError: there is no such module.
    """
    found = importlib.import_module(name)
    return real.get(name, found)


def on_update(callback: C) -> C:
    """Call ``callback(old, new)`` after each update, with two :class:`Version`; any thread.

    It is called on the updater's thread, when the new version is live.  What it raises is logged.
    May be used as a decorator.  A callback that a module registers which is itself updated goes
    with its version.
    """
    _updater.on_update(callback)
    return callback


@overload
def versioned(function: F, /) -> F: ...


@overload
def versioned(*, key: str | None = None) -> Callable[[F], F]: ...


def versioned(function: F | None = None, /, *, key: str | None = None) -> F | Callable[[F], F]:
    """Stamp a function's results with the version that made them; each call is pinned.

    ``@versioned`` has it return a :class:`Stamped`: the pair of the value and the version's number.
    ``@versioned(key="rules")`` has it return what it did, a mapping, with the number under the key.

    :raises TypeError: the function is a generator.
    """

    def decorate(plain: F) -> F:
        return stamp(lambda: _updater.versions.switch, plain, key)

    return decorate if function is None else decorate(function)


def status() -> Status:
    """Return how everything stands.  Any thread."""
    versions, listening = _updater.versions, _listening
    problem = "forked: call auto_reload_module() in this process as well" if _forked else ""
    return Status(
        version=versions.current,
        in_use=tuple(versions.in_use()),
        held=versions.held(),
        last=_updater.last,
        listening=listening is not None,
        sources={} if listening is None else listening.status(),
        problem=problem,
    )


def close() -> None:
    """Take no more updates by messages or changes of files; what is current stays so.

    Any thread but the updater's, any number of times.
    """
    global _listening
    with _lock:
        listening, _listening = _listening, None
        if listening is not None:
            listening.stop()


def _after_fork() -> None:
    """In a child: its parent's threads are not there, and nobody is to wait for them."""
    global _lock, _listening, _forked
    _lock = threading.RLock()
    _updater.after_fork()
    if _listening is not None:
        # Not stopped: its connection is the parent's as well.
        _listening.forsake()
        _listening, _forked = None, True
        log.warning("hotupdate: %s", status().problem)


os.register_at_fork(after_in_child=_after_fork)

"""A life cycle for the application: a check before it serves, a hand-over, an end of its own.

Each function belongs to the generation whose code calls it, or whose code called the shared code
that does; outside of any, and in a shared module that is being imported, to the process.  Any
thread may call them.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from genwsgi.errors import HandoverError, LifeError
from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import author
from genwsgi.isolation.effects import Effects, effects_of, importing_shared
from genwsgi.isolation.effects.checks import Checks
from genwsgi.isolation.effects.exits import AtEveryEnd, Exits
from genwsgi.isolation.effects.offers import Offers
from genwsgi.isolation.holders import belongs, find
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.naming import describe

Ending = TypeVar("Ending", bound=Callable[[], object])
Check = TypeVar("Check", bound=Callable[[], object])
Taking = TypeVar("Taking", bound=Callable[[Mapping[str, object]], object])


def on_retire(callback: Ending) -> Ending:
    """Have ``callback()`` called when this generation retires.  Also a decorator.

    It runs after the generation's last response, in its context, on a thread of genwsgi's; together
    with the generation's ``atexit`` callbacks, the last registered first.  What it raises is
    logged.  Unlike those it also runs when the build fails after it was registered, or is discarded
    because another worker's failed: so what a build has opened can be closed.  After a build that
    failed it runs on the thread of the build, and the outcome of the deploy waits for it.

    Without genwsgi it runs when the process ends.

    :returns: ``callback``.
    :raises LifeError: the generation has ended already.
    """
    effects = _mine(f"on_retire({getattr(callback, '__qualname__', callback)})")
    if effects is None:
        atexit.register(callback)
    else:
        effects.of(Exits).callbacks.append((AtEveryEnd(callback), (), {}))
    return callback


def verify(check: Check) -> Check:
    """Have ``check()`` called before this generation may serve.  Also a decorator.

    It is called when the application has been built and has answered what ``--verify`` asks, in the
    generation's context, on a thread of genwsgi's, and has as long as one of those.  When it raises
    or returns ``False`` or a text that says what is wrong, the deploy fails on the whole host.  So
    it may ask a database, or warm up a cache.

    Without genwsgi nothing happens.

    :returns: ``check``.
    :raises LifeError: the generation has ended already.
    """
    effects = _mine(f"verify({getattr(check, '__qualname__', check)})")
    if effects is not None:
        effects.of(Checks).own.append(check)
    return check


def put_forward(name: str, give: Callable[[], object]) -> None:
    """Offer the next generation what ``give()`` will return, under ``name``.

    ``give`` is called on each deploy while this generation is the current one, in its context, on
    the thread of the build, and must only read: the deploy may still fail.  Requests go on
    meanwhile, and change what they change until the swap, which may be seconds later (in other
    workers it is another moment) and, on the responses that this generation then still owes, after
    it: hand over what may be a little old (caches, counters), or what is shared (sockets, memory).

    What it returns must be made of what all generations share: numbers, texts, dicts, connections
    of shared packages; not of instances of the application's own classes.

    Without genwsgi nothing happens.

    :param name: of an earlier ``give`` of this generation replaces that one.
    :raises LifeError: the generation has ended already.
    """
    effects = _mine(f"put_forward({name!r})")
    if effects is not None:
        effects.of(Offers).given[name] = give


def on_handover(take: Taking) -> Taking:
    """Have ``take(offered)`` called before this generation is ready.  Also a decorator.

    ``offered`` maps names to what the current generation has :func:`put_forward`; it is empty if
    that is nothing.  ``take`` is called after the whole application has been built, in the
    generation's context, on the thread of the build.  When it raises, or one of the functions put
    forward does, the deploy fails with the traceback and the current generation serves on.

    The first generation of a process has nothing to take over and is not asked; without genwsgi
    there is none that is.

    :returns: ``take``.
    :raises LifeError: the generation has ended already.
    """
    effects = _mine(f"on_handover({getattr(take, '__qualname__', take)})")
    if effects is not None:
        effects.of(Offers).takers.append(take)
    return take


def hand_over(old: Generation, new: Generation) -> None:
    """Offer ``new``, which is built but not ready, what ``old`` puts forward.

    The caller holds a lease on ``old``.  What the application raises comes through.

    :raises HandoverError: what is offered would keep ``old`` alive; it names the path.
    """
    giving, taking = effects_of(old), effects_of(new)
    if giving is None or taking is None or not taking.of(Offers).takers:
        return
    offered: dict[str, object] = {}
    for name, give in giving.of(Offers).given.copy().items():
        offered[name] = old.run(give)
        _check(name, offered[name], old)
    for take in tuple(taking.of(Offers).takers):
        new.run(take, MappingProxyType(offered))


def _check(name: str, value: object, old: Generation) -> None:
    table = old.modules
    if not isinstance(table, ModuleTable):
        return
    builtins, modules = table.builtins, table.modules
    found = find(
        [("what it gives", value)],
        lambda obj: belongs(obj, builtins, modules),
        through_modules=False,
        objects=500_000,
        seconds=10.0,
    )
    if found.path is not None:
        raise HandoverError(name, old.name, describe(found.path))


def _mine(what: str) -> Effects | None:
    """Return the book of the generation in whose name this is asked; ``None``: the process's."""
    if importing_shared.get():
        return None
    generation = author()
    effects = None if generation is None else effects_of(generation)
    if generation is not None and (effects is None or effects.closed):
        raise LifeError(what, generation.name, generation.state.value)
    return effects

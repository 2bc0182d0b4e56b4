"""Units of work: which version one keeps to, and results that say which it was."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, MutableMapping
from contextvars import Token
from typing import Any, NamedTuple, TypeVar

from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Lease
from genwsgi.generations.switch import Switch
from genwsgi.isolation.asking import Pin, owner_of, pinned

F = TypeVar("F", bound=Callable[..., Any])


class Stamped(NamedTuple):
    """A result, and the version of the rules that made it.

    :ivar value: what the function returned.
    :ivar version: the version's number.
    """

    value: Any
    version: int


class PinnedWork:
    """``with`` this, a unit of work keeps to one version: see :func:`genwsgi.hotupdate.pin`."""

    __slots__ = ("_held", "_switch")

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._held: list[tuple[Lease, Pin, Token[Pin | None]]] = []

    def __enter__(self) -> int:
        """Begin, and return the number of the version."""
        lease = self._lease()
        pin = Pin(lease.generation, sys._getframe(1))
        self._held.append((lease, pin, pinned.set(pin)))
        return lease.generation.number

    def __exit__(self, *exc_info: object) -> None:
        """End: the version may go."""
        lease, pin, token = self._held.pop()
        pin.end()
        # Not where another pin goes on, nor in another context than it began in: it has ended.
        if pinned.get() is pin:
            with contextlib.suppress(ValueError):
                pinned.reset(token)
        self._switch.end(lease)

    def _lease(self) -> Lease:
        outer = pinned.get()
        generation: Generation | None = None if outer is None else outer.generation
        if outer is not None and generation is not None:
            lease = generation.leases.take(generation)
            # While the outer pin is open, it holds the version itself.
            if outer.generation is generation:
                return lease
            self._switch.end(lease)
        return self._switch.lease()


def stamp(switch: Callable[[], Switch], function: F, key: str | None) -> F:
    """Return ``function`` so that each call is pinned and its result stamped.

    :param switch: gives the switch, when it is called.
    :raises TypeError: it is a generator, whose results come after it has returned.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: stamp the function that uses its results"
        )
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def stamped_later(*args: Any, **kwargs: Any) -> Any:
            with PinnedWork(switch()) as version:
                return _stamped(await function(*args, **kwargs), function, version, key)

        return stamped_later  # type: ignore[return-value]

    @functools.wraps(function)
    def stamped(*args: Any, **kwargs: Any) -> Any:
        with PinnedWork(switch()) as version:
            return _stamped(function(*args, **kwargs), function, version, key)

    return stamped  # type: ignore[return-value]


def _stamped(value: Any, function: Callable[..., Any], pinned_to: int, key: str | None) -> Any:
    plain: Any = inspect.unwrap(function)
    owner = owner_of(getattr(plain, "__builtins__", {}), getattr(plain, "__globals__", {}))
    # Code that is a version's own is of that version, whatever it is called under.
    version = pinned_to if owner is None else owner.number
    if key is None:
        return Stamped(value, version)
    if not isinstance(value, MutableMapping):
        raise TypeError(
            f"a result of {type(value).__name__} has no place for {key!r}: leave key out"
        )
    value[key] = version
    return value

"""One generation: a build of the application, and the context its code runs in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, TypeVar

from genwsgi.generations.leases import Leases
from genwsgi.generations.lifecycle import Event, State, advance

T = TypeVar("T")

#: The generation in whose name this code runs; ``None`` outside of any.
active: ContextVar[Generation | None] = ContextVar("genwsgi.generation", default=None)


class Generation:
    """One build of the application, numbered 1, 2, 3 ... in a process.

    ``state``, ``replaced`` and ``leases`` are guarded by the lock of the switch that the generation
    belongs to.  The others are set while it is being built, by the building thread, and then only
    read.

    :ivar number: its number in this process.
    :ivar release: what it was built from, in words for people, logs and the environ.
    :ivar replaced: when another one became current in its place or, if it was parked then, when it
        began to drain, on the monotonic clock, in seconds; ``None`` before that.
    :ivar contexts: those of each thread, for :meth:`run`: frameworks keep per-thread objects in
        context variables and expect to find them again, and one context can't be entered by two
        threads at a time.  ``free`` is a list that has the thread's context as long as that is not
        entered; ``more`` is one of those for calls from further up the stack.
    :ivar application: the WSGI callable; ``None`` until it is built.
    :ivar modules: its module table; what that is, is the business of the isolation layer.
    :ivar effects: what it does to the process outside of them; the isolation layer's as well.
    """

    __slots__ = (
        "__weakref__",
        "application",
        "contexts",
        "effects",
        "leases",
        "modules",
        "name",
        "number",
        "release",
        "replaced",
        "state",
    )

    def __init__(self, number: int, release: str = "") -> None:
        self.number = number
        self.name = f"generation {number}"
        self.release = release
        self.application: Callable[..., Any] | None = None
        self.modules: Any = None
        self.effects: Any = None
        self.state = State.BUILDING
        self.replaced: float | None = None
        self.leases = Leases()
        self.contexts = threading.local()

    def __repr__(self) -> str:
        return f"<Generation {self.number} {self.state.value}, {len(self.leases)} open leases>"

    def advance(self, event: Event) -> None:
        """Move to the next state, or raise :class:`~genwsgi.errors.IllegalTransition`."""
        self.state = advance(self.state, event, self.name)

    def new_context(self) -> Context:
        """Return an empty context in which this generation is the active one."""
        context = Context()
        context.run(active.set, self)
        return context

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(*args)`` in this generation's context of the calling thread.

        May be called by any thread, and by code that already runs in this or another generation's
        context.  What ``function`` raises comes through.
        """
        try:
            free: list[Context] = self.contexts.free
        except AttributeError:
            free = self.begin_contexts()
        if not free:
            if active.get() is self:
                return function(*args)
            # A context can't be entered twice, and the thread's is, further up the stack: this
            # generation called another one that calls back.  So there is a stack of more; calls
            # return in the reverse order, and each depth finds its own context again.
            free = self.contexts.more
        context = free.pop() if free else self.new_context()
        try:
            return context.run(function, *args)
        finally:
            free.append(context)

    def begin_contexts(self) -> list[Context]:
        """Make the calling thread's context; return the list that it is in, see ``contexts``."""
        free = self.contexts.free = [] if active.get() is self else [self.new_context()]
        self.contexts.more = []
        return free

    def forget_contexts(self) -> None:
        """Drop the contexts of all threads, and what frameworks left in them."""
        self.contexts = threading.local()

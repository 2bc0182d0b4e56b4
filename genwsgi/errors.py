"""Every exception that genwsgi raises, each carrying its data.

The text of each is one line that names the object, its state and the next step, so that a command
can print it as it is.  What an *application* raised is never shortened: it travels whole in
:attr:`BuildError.traceback`.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any


class GenwsgiError(Exception):
    """Base of every error that genwsgi raises on purpose.

    :ivar traceback: what the application raised, as Python prints it; empty if it was not the
        application.
    """

    traceback: str = ""


class TargetError(GenwsgiError):
    """The target (``MODULE[:NAME]``) is misspelt, or names something that can't be served."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"target {target!r}: {reason}")
        self.target = target
        self.reason = reason


class BuildError(GenwsgiError):
    """The application's own code raised while a generation was being built.

    :ivar target: the target being built.
    :ivar reason: the last line of the traceback.
    :ivar traceback: the whole traceback, as Python prints it.
    """

    def __init__(self, target: str, reason: str, traceback: str) -> None:
        super().__init__(f"target {target!r} could not be built: {reason}")
        self.target = target
        self.reason = reason
        self.traceback = traceback


class NoThreadError(GenwsgiError):
    """The system allows no more threads, and a build needs one of its own."""

    def __init__(self, release: str, reason: str) -> None:
        super().__init__(
            f"no build of release {release} could begin: {reason}; raise the limit of processes and"
            " threads (ulimit -u, TasksMax=, pids.max), or end what uses them up"
        )


class BuildAbandoned(BaseException):
    """Raised inside a build that nobody waits for any more.

    A ``BaseException``, so that no ``except Exception`` of an application keeps the build going.
    """


class ScopeError(GenwsgiError):
    """A build has found that packages belong in the scope which are not in it; it left no trace.

    Take a snapshot that has them (:meth:`genwsgi.deploy.source.Source.grow`) and build once more.

    :ivar target: the target being built.
    :ivar additions: what belongs in the scope, as :class:`genwsgi.isolation.scope.Addition`.
    :ivar traceback: how the build failed for want of them; empty if it did not.
    """

    def __init__(self, target: str, additions: Sequence[Any], traceback: str = "") -> None:
        found = "; ".join(f"{item.name or item.folder} ({item.reason})" for item in additions)
        super().__init__(f"target {target!r} needs a larger scope: {found}; build it once more")
        self.target = target
        self.additions = tuple(additions)
        self.traceback = traceback


class VerificationError(GenwsgiError):
    """A candidate did not show what it has to show before it may serve.

    :ivar check: which request, or which check of the application's own.
    :ivar reason: what came of it.
    :ivar traceback: the response, what was raised, or where it hangs.
    """

    def __init__(self, check: str, reason: str, traceback: str) -> None:
        super().__init__(f"verification failed: {check} {reason}")
        self.check = check
        self.reason = reason
        self.traceback = traceback


class SnapshotError(GenwsgiError):
    """The source could not be copied into a snapshot, or a snapshot could not be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class SourceError(SnapshotError):
    """A source file that is new or changed does not compile.

    :ivar traceback: the error as Python shows it, with the line and the caret.
    """

    def __init__(self, path: str, reason: str, traceback: str) -> None:
        super().__init__(path, reason)
        self.traceback = traceback


class OrderError(GenwsgiError):
    """An order asks for what this application can't be given: it is refused."""


class IllegalTransition(GenwsgiError):
    """An event that a generation's state does not allow; the state is unchanged."""

    def __init__(self, subject: str, state: str, event: str) -> None:
        super().__init__(f"{subject} is {state}: {event} is not possible now")
        self.subject = subject
        self.state = state
        self.event = event


class LeaseError(GenwsgiError):
    """A lease was ended that is not open: it was ended before, or belongs to another generation."""


class RequestCancelled(GenwsgiError, ConnectionResetError):
    """Raised in a request that an operator has ended, as if the client had hung up."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the request was cancelled: its generation has to go")


class LifeError(GenwsgiError):
    """A generation that has ended asked for something that comes to pass before its end."""

    def __init__(self, what: str, generation: str, state: str) -> None:
        super().__init__(f"{what} comes too late: {generation} is {state}; call it while it serves")
        self.what = what
        self.generation = generation
        self.state = state


class KeepError(GenwsgiError):
    """An object can't be kept for the whole process, or can't be made."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"genwsgi.keep({name!r}): {reason}")
        self.name = name
        self.reason = reason


class HandoverError(GenwsgiError):
    """What a generation puts forward would keep it alive in the hands of the next one.

    :ivar path: how it leads back, in words.
    """

    def __init__(self, name: str, generation: str, path: str) -> None:
        super().__init__(
            f"genwsgi.put_forward({name!r}) of {generation} would keep that generation alive "
            f"({path}): give what all generations share, such as dicts and texts"
        )
        self.name = name
        self.generation = generation
        self.path = path


class ProtocolError(GenwsgiError):
    """A peer sent bytes that are not a message of the deploy protocol."""


class RunDirectoryError(GenwsgiError):
    """The run directory can't be used: wrong owner, wrong mode, in use, or too long a path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"run directory {path}: {reason}")
        self.path = path
        self.reason = reason


class ServerNotFound(GenwsgiError):
    """No running server is the one that is meant, or more than one may be.

    :ivar servers: those that may be, as :class:`genwsgi.ctl.find.Server`.
    """

    def __init__(self, reason: str, servers: Sequence[Any] = ()) -> None:
        super().__init__(reason)
        self.servers = tuple(servers)


class ServerUnreachable(GenwsgiError):
    """A server's coordinator gives no answer in time.

    :ivar connected: whether it is there, and only says nothing.
    """

    def __init__(self, text: str, *, connected: bool = False) -> None:
        super().__init__(text)
        self.connected = connected


class OptionError(GenwsgiError):
    """An option, or a combination of options, that genwsgi can't serve with."""


class UpdateRefused(GenwsgiError):
    """An update of a program's modules that can't be made; nothing of it was imported.

    :ivar reason: why, in one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

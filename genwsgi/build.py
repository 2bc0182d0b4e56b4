"""Target + snapshot -> a ready generation, or an error that says why and no trace."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from genwsgi import hooks, isolation, keeping
from genwsgi.errors import (
    BuildAbandoned,
    BuildError,
    GenwsgiError,
    ScopeError,
    SnapshotError,
    TargetError,
    VerificationError,
)
from genwsgi.generations.generation import Generation
from genwsgi.generations.lifecycle import Event
from genwsgi.isolation import imports
from genwsgi.isolation.effects import Effects, effects_of, forget
from genwsgi.isolation.growth import Findings, Growth, Verdict, blame, examine
from genwsgi.isolation.modules import EndedTable, ModuleTable
from genwsgi.isolation.scope import Addition
from genwsgi.isolation.snapshot import Snapshot
from genwsgi.target import Target, resolve

T = TypeVar("T")

_OWN_FRAMES = os.path.dirname(isolation.__file__)


def at_once(function: Callable[..., T], *args: Any) -> T:
    """Call ``function(*args)``: how the application's code is run by default."""
    return function(*args)


def build(
    generation: Generation,
    target: Target,
    snapshot: Snapshot,
    factory: bool | None = None,
    on_module: Callable[[int], None] | None = None,
    *,
    grow: bool = True,
    look: bool = True,
    verdicts: list[Verdict] | None = None,
    hand_over: Callable[[Generation], None] | None = None,
    verify: Callable[[Generation], None] | None = None,
    on_look: Callable[[], object] = lambda: None,
    run: Callable[..., Any] = at_once,
) -> None:
    """Import ``target`` from ``snapshot`` into ``generation`` and make it ready.

    Any thread may build; several generations may be built at once.

    :param snapshot: released when the build fails, else when the generation is torn down.
    :param factory: whether the target's name is a factory; ``None``: told from its signature.
    :param on_module: called after each module with how many there are.  It may sleep, to leave the
        processor to requests, and may raise :class:`~genwsgi.errors.BuildAbandoned`.
    :param run: calls the functions that run code of the application, with their arguments; it may
        raise the same.
    :param grow: whether a scope that is too small ends the build; else it is only logged.
    :param look: whether to look for what the scope lacks when the build has ended well.
    :param verdicts: gets what is in the scope and what is not, and why; for that it looks.
    :param hand_over: called with the generation when the application is made, before it is ready.
    :param verify: called with it when that is done.
    :param on_look: called when only the look is left that ``look`` asks for.
    :raises TargetError: the module or the name in it is misspelt, or can't be served.
    :raises ScopeError: packages belong in the scope that are not in it.
    :raises BuildError: the application's code raised.
    :raises VerificationError: it is not what it has to be.
    :raises SnapshotError: the snapshot is damaged.
    """
    effects = Effects(generation)
    table = ModuleTable(generation, snapshot)
    table.on_loaded = on_module
    generation.modules = table
    imports.opened(table)
    failure: GenwsgiError | BuildAbandoned
    missing: tuple[Addition, ...] = ()
    growth = Growth(table)

    def lacks() -> tuple[Addition, ...]:
        """Look at the scope; return what it lacks, if it is to grow."""
        findings = Findings()
        if look or verdicts is not None:
            explain = verdicts is not None
            findings = examine(growth, generation.name, grow=grow, explain=explain)  # noqa: F821 -- deleted later
        if verdicts is not None:
            verdicts.extend(findings.verdicts)
        return findings.additions if grow else ()

    try:
        with growth:
            generation.application = run(generation.run, _make, target, table, factory)
            try:
                if hand_over is not None:
                    run(hand_over, generation)
                effects.built()
                if verify is not None:
                    verify(generation)
            except Exception:
                # A larger scope may be all that it takes.
                missing = lacks()
                if not missing:
                    raise
            else:
                on_look()
                missing = lacks()
        if missing:
            raise ScopeError(target.text, missing)
    except KeyboardInterrupt:
        tear_down(generation, Event.FAILED)
        raise
    except (
        TargetError,
        SnapshotError,
        ScopeError,
        VerificationError,
        BuildAbandoned,
    ) as error:
        failure = error.with_traceback(None)
    except BaseException as error:  # noqa: BLE001 -- SystemExit at import is its mistake as well
        failure = _failure_of(error, target)
        if isinstance(failure, BuildError):
            failure, missing = _blame(failure, growth, error, grow=grow)
    else:
        table.on_loaded = None
        generation.advance(Event.BUILT)
        return
    # Raised out here, so that no traceback keeps the failed generation's modules.
    tear_down(generation, Event.FAILED)
    effects.forget(growth.forget(missing))
    # The traceback that whoever gets this may keep has this frame in it.
    del effects, table, growth
    failure.__context__ = failure.__cause__ = None
    raise failure


def tear_down(generation: Generation, event: Event | None = None) -> None:
    """Undo what ``generation`` did to the process and let go of its modules.

    :param event: what ends it; ``None`` when it has retired already.
    """
    effects = effects_of(generation)
    if effects is not None:
        if event is None:
            effects.retire(generation.run)
        else:
            effects.undo()
    if event is not None:
        generation.advance(event)
    generation.application = None
    generation.forget_contexts()
    table = generation.modules
    # Nothing is left to do if an earlier teardown came as far as this.
    if isinstance(table, ModuleTable):
        forget(table.builtins, table.modules)
        table.close()
        # Whatever code is left asks a closed table, and not another generation's.
        generation.modules = EndedTable(table)
        imports.closed(table)


def _make(target: Target, table: ModuleTable, factory: bool | None) -> Callable[..., object]:
    """Import and resolve; runs in the generation's context."""
    return resolve(target, table.import_module(target.module), factory)


def _failure_of(error: BaseException, target: Target) -> GenwsgiError:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{target.module}.".startswith(f"{missing}."):
        return TargetError(target.text, f"no module named {missing!r} in the application")
    return build_error(error, target.text)


def build_error(error: BaseException, what: str) -> BuildError:
    """Return what tells people how the application's code raised while ``what`` was built."""
    shown = traceback.TracebackException.from_exception(error)
    _drop_own_frames(shown, set())
    # The place of a syntax error comes before its name, indented; a long message goes on after it.
    told = "".join(traceback.format_exception_only(error)).splitlines()
    reason = next(line for line in told if not line.startswith(" "))
    return BuildError(what, reason, "".join(shown.format()).rstrip())


def _blame(
    failure: BuildError, growth: Growth, error: BaseException, *, grow: bool
) -> tuple[GenwsgiError, tuple[Addition, ...]]:
    """See whether a larger scope would have helped a build that failed."""
    findings = blame(growth, error)
    if findings.additions and grow:
        return (
            ScopeError(failure.target, findings.additions, failure.traceback),
            findings.additions,
        )
    if findings.stays:
        names = "; ".join(f"{item.name} {item.reason}" for item in findings.stays)
        reason = f"{failure.reason} -- {names}: restart to serve this code"
        return BuildError(failure.target, reason, failure.traceback), ()
    return failure, ()


def _drop_own_frames(shown: traceback.TracebackException | None, seen: set[int]) -> None:
    """Leave out the frames of the import system, as Python does with its own."""
    if shown is None or id(shown) in seen:
        return
    seen.add(id(shown))
    own = (_OWN_FRAMES + os.sep, "<frozen importlib")
    kept = [frame for frame in shown.stack if not frame.filename.startswith(own)]
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in kept if frame.filename not in _THIS_LAYER]
    )
    _drop_own_frames(shown.__cause__, seen)
    _drop_own_frames(shown.__context__, seen)
    for inner in getattr(shown, "exceptions", None) or ():  # of an exception group, from 3.11
        _drop_own_frames(inner, seen)


_THIS_LAYER = {
    function.__code__.co_filename
    for function in (build, resolve, Generation.run, hooks.hand_over, keeping.keep)
}

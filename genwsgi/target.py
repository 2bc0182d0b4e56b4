"""What is served: ``MODULE[:NAME]`` read from text, and found in an imported module.

:func:`parse` looks at the text alone.  :func:`resolve` looks into a module that somebody else has
imported, tells a WSGI application (:pep:`3333`) from a factory by its signature, and calls the
factory.  Both are free of shared state: any thread may call them.
"""

from __future__ import annotations

import ast
import copy
import difflib
import enum
import inspect
import keyword
import re
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from genwsgi.errors import TargetError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: The names looked for, in this order, where the target gives none.
CANDIDATES = ("application", "app", "create_app", "make_app")

_FACTORY_NAME = re.compile(r"_*(create|make|build|get)(_|$)|.*factory", re.IGNORECASE)
_MISSING = object()


@dataclass(frozen=True)
class Target:
    """A parsed ``MODULE[:NAME]``.

    :ivar text: the target as it was written.
    :ivar module: the dotted name of the module to import.
    :ivar name: the dotted name inside the module; ``None`` if it was not given.
    :ivar args: the positional arguments of the call; ``None`` if it was not written as a call.
    :ivar kwargs: the keyword arguments of the call; ``None`` if it was not written as a call.
    """

    text: str
    module: str
    name: str | None = None
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None

    @property
    def top(self) -> str:
        """The top-level package (or module) that the target lies in."""
        return self.module.partition(".")[0]


def parse(text: str) -> Target:
    """Read ``MODULE``, ``MODULE:NAME`` or ``MODULE:NAME(literal, key=literal)``.

    Nothing is imported and nothing is evaluated but literals.

    :raises TargetError: the text is none of these; the error says what to write instead.
    """
    module, colon, name = text.partition(":")
    _check_module(text, module, name)
    if not colon:
        return Target(text, module)
    if not name:
        raise TargetError(text, f"no NAME after the colon: write {module}:NAME, or {module} alone")
    try:
        node = ast.parse(name, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if ":" in name.partition("(")[0]:
            raise TargetError(text, "more than one colon: write MODULE:NAME") from error
        raise _bad_name(text, name) from error
    # The parser forgives comments, parentheses and blanks around a name; a command line must not.
    if ast.get_source_segment(name, node) != name:
        raise _bad_name(text, name)
    if not isinstance(node, ast.Call):
        return Target(text, module, _dotted(text, name, node))
    return Target(text, module, _dotted(text, name, node.func), *_arguments(text, node))


def resolve(target: Target, module: ModuleType, factory: bool | None = None) -> WSGIApplication:
    """Find the WSGI callable of ``target`` in ``module``, calling it first if it is a factory.

    :param target: what to find.
    :param module: the module ``target.module``, already imported.
    :param factory: ``True`` to call what is found, ``False`` to serve it as it is, ``None`` to
        tell which from its signature, and from its name where that leaves it open.
    :returns: the WSGI application object of :pep:`3333`.
    :raises TargetError: there is no such name, or it is nothing that can be served.  Whatever the
        application's own code raises (a factory, a module's ``__getattr__``) goes through as it is.
    """
    if target.name is None:
        name, value = _first_candidate(target, module)
    else:
        name, value = target.name, _lookup(target, module)
    if not callable(value):
        raise TargetError(target.text, f"{name} is {_describe(value)}, which is not callable")
    _refuse_asgi(target, name, value)

    if target.args is not None:
        if factory is False:
            reason = f"a call, although it is said to be no factory: write {target.module}:{name}"
            raise TargetError(target.text, reason)
        factory = True
    elif factory is None:
        kind = _classify(value, name)
        if kind is _Kind.UNFIT:
            _refuse_unfit(target, name, value)
        factory = kind is _Kind.FACTORY
    return cast("WSGIApplication", _made_by(target, name, value) if factory else value)


# -- the text ------------------------------------------------------------------------------------


def _check_module(text: str, module: str, name: str) -> None:
    """Refuse what can't be a module's dotted name, guessing what was meant."""
    suffix = f":{name}" if name else ""
    if not text.strip():
        raise TargetError(text, "empty: write MODULE:NAME, such as myapp:create_app")
    if not module:
        raise TargetError(text, f"no module before the colon: write MODULE{suffix or ':NAME'}")
    if module.endswith(".py") or re.search(r"[/\\]", module):
        steps = re.split(r"[/\\]", module[:-3] if module.endswith(".py") else module)
        # An absolute path says nothing of where the module's package begins: offer the file alone.
        guess = ".".join(s for s in (steps[-1:] if not steps[0] else steps) if s not in ("", "."))
        hint = f"did you mean {guess}{suffix}?" if _is_dotted(guess) else "write its dotted name"
        raise TargetError(text, f"a path, not a module: {hint}")
    if not _is_dotted(module):
        guess = module.replace("-", "_")
        hint = f"did you mean {guess}{suffix}?" if _is_dotted(guess) else "write MODULE:NAME"
        raise TargetError(text, f"{module!r} is not the name of a module: {hint}")


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


def _bad_name(text: str, name: str) -> TargetError:
    return TargetError(
        text, f"{name!r} is neither a name nor a call: write app, api.app or create_app('prod')"
    )


def _dotted(text: str, name: str, node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise _bad_name(text, name)
    parts.append(node.id)
    return ".".join(reversed(parts))


def _arguments(text: str, call: ast.Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for arg in call.args:
        if isinstance(arg, ast.Starred):
            raise TargetError(text, "*args can't be unpacked here: write the arguments out")
        args.append(_literal(text, arg))
    for pair in call.keywords:
        if pair.arg is None:
            raise TargetError(text, "**kwargs can't be unpacked here: write the arguments out")
        if pair.arg in kwargs:
            raise TargetError(text, f"the argument {pair.arg} is given twice: write it once")
        kwargs[pair.arg] = _literal(text, pair.value)
    return tuple(args), kwargs


def _literal(text: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = f"the argument {ast.unparse(node)} is not a literal: write a value such as 'prod'"
        raise TargetError(text, reason) from error


# -- the object ----------------------------------------------------------------------------------


def _first_candidate(target: Target, module: ModuleType) -> tuple[str, Any]:
    """The first callable among :data:`CANDIDATES`.

    One that is not callable is passed over: a package's submodule ``app`` hides no ``create_app``.
    """
    passed = []
    for name in CANDIDATES:
        value = getattr(module, name, _MISSING)
        if callable(value):
            return name, value
        if value is not _MISSING:
            passed.append(f"{name} is {_describe(value)}, which is not callable")
    found = "; ".join(passed) or f"module {target.module} has none of {', '.join(CANDIDATES)}"
    raise TargetError(target.text, f"{found}: write {target.module}:NAME")


def _lookup(target: Target, module: ModuleType) -> Any:
    """What the target's dotted name stands for, from attribute to attribute."""
    assert target.name is not None
    value: Any = module
    where = f"module {target.module}"
    for part in target.name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            near = difflib.get_close_matches(part, dir(value))
            hint = f"did you mean {' or '.join(near)}?" if near else "check the spelling"
            raise TargetError(target.text, f"{where} has no {part!r}: {hint}") from error
        where = part
    return value


def _made_by(target: Target, name: str, factory: Any) -> object:
    """Call the factory; return what it made if that can be served."""
    # Copies: a factory that changes a list it was given must not change it for the next generation.
    args, kwargs = copy.deepcopy((target.args or (), target.kwargs or {}))
    call = f"{name}()" if target.args is None else target.text.partition(":")[2]
    try:
        made = factory(*args, **kwargs)
    except TypeError as error:
        # No frame but this one: Python could not even enter the factory with these arguments.
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise TargetError(target.text, f"{call} can't be called: {error}") from error
        raise
    if not callable(made):
        reason = f"{call} returned {_describe(made)}, not a WSGI application: return the callable"
        raise TargetError(target.text, reason)
    _refuse_asgi(target, f"what {call} returned", made)
    shape = _shape(made, follow_wrapped=False)
    if shape is not None and not shape.accepts_two:
        reason = (
            f"{call} returned {_describe(made)} that can't be called with (environ, start_response)"
        )
        raise TargetError(target.text, f"{reason}: return the WSGI application itself")
    return made


def _describe(value: object) -> str:
    if value is None:
        return "None"
    return f"an object of type {type(value).__name__}"


def _refuse_asgi(target: Target, what: str, value: object) -> None:
    called = type(value).__call__ if not inspect.isclass(value) else None
    asynchronous = any(
        test(subject)
        for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        for subject in (value, called)
    )
    shape = _shape(value, follow_wrapped=True)
    if asynchronous or (shape is not None and shape.required == ("scope", "receive", "send")):
        reason = f"{what} is asynchronous (ASGI), and genwsgi serves WSGI: use an ASGI server, "
        raise TargetError(target.text, reason + "or wrap it in an ASGI-to-WSGI adapter")


def _refuse_unfit(target: Target, name: str, value: object) -> NoReturn:
    shape = _shape(value, follow_wrapped=False)
    needs = ", ".join((*shape.required, *shape.required_keywords)) if shape else "arguments"
    reason = f"{name} needs ({needs}), so it is neither a WSGI application nor a factory to call"
    advice = f"write {target.module}:{name}(...) with its arguments, or decide with --no-factory"
    raise TargetError(target.text, f"{reason} without arguments: {advice}")


# -- application or factory ----------------------------------------------------------------------


class _Kind(enum.Enum):
    APPLICATION = "application"
    FACTORY = "factory"
    UNFIT = "unfit"
    OPEN = "open"


@dataclass(frozen=True)
class _Shape:
    """What a callable's signature says about calling it."""

    required: tuple[str, ...]
    optional: int
    variadic: bool
    required_keywords: tuple[str, ...]

    @property
    def accepts_two(self) -> bool:
        """Whether it can be called as a WSGI application is: with two positional arguments."""
        most = len(self.required) + self.optional
        return (
            len(self.required) <= 2 and (self.variadic or most >= 2) and not self.required_keywords
        )


def _shape(value: Any, follow_wrapped: bool) -> _Shape | None:
    """The shape of a callable; ``None`` if it doesn't tell (many written in C don't)."""
    try:
        signature = inspect.signature(value, follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = tuple(p.name for p in positional if p.default is p.empty)
    return _Shape(
        required=required,
        optional=len(positional) - len(required),
        variadic=any(p.kind is p.VAR_POSITIONAL for p in parameters),
        required_keywords=tuple(
            p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        ),
    )


def _classify(value: Any, name: str) -> _Kind:
    """Tell application from factory: by its own signature, then the wrapped one, then the name.

    Its own signature comes first because that is what gets called: a decorator may give a function
    of one argument the two of WSGI.  Only a decorator that hides its arguments behind ``*args``
    leaves the question to the function it wraps, and only a clear answer counts.
    """
    named_factory = _FACTORY_NAME.match(name.rpartition(".")[2]) is not None
    own = _shape(value, follow_wrapped=False)
    if inspect.isclass(value):
        return _judge_class(value, own)
    kind = _judge(own, named_factory)
    if kind is _Kind.OPEN:
        kind = _judge(_shape(value, follow_wrapped=True), named_factory)
        if kind in (_Kind.OPEN, _Kind.UNFIT):
            kind = _Kind.FACTORY if named_factory else _Kind.APPLICATION
    return kind


def _judge(shape: _Shape | None, named_factory: bool) -> _Kind:
    if shape is None or (not shape.required and shape.variadic and not shape.required_keywords):
        return _Kind.OPEN
    if not shape.required and not shape.required_keywords:
        return _Kind.FACTORY
    # create_app(config, debug=False) could take two arguments, but was not made for these two.
    meant = len(shape.required) == 2 or not named_factory
    return _Kind.APPLICATION if shape.accepts_two and meant else _Kind.UNFIT


def _judge_class(value: type, shape: _Shape | None) -> _Kind:
    """A class serves by itself if its instances are response bodies, and else by an instance."""
    iterable = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    called = any("__call__" in vars(base) for base in value.__mro__)
    if shape is None or (shape.variadic and not shape.required):
        return _Kind.APPLICATION if iterable and not called else _Kind.FACTORY
    if not shape.required and not shape.required_keywords:
        return _Kind.FACTORY
    exact = len(shape.required) == 2 and not shape.required_keywords
    return _Kind.APPLICATION if exact and iterable else _Kind.UNFIT

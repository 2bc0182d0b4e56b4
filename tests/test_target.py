"""Tests of genwsgi.target."""

from __future__ import annotations

import functools
import types
from typing import Any

import pytest

from genwsgi.errors import TargetError
from genwsgi.target import CANDIDATES, Target, parse, resolve


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    """A WSGI application, as plain as can be."""
    start_response("200 OK", [])
    return [b"hello"]


def module(**names: Any) -> types.ModuleType:
    """A module called ``m`` that holds these names."""
    made = types.ModuleType("m")
    vars(made).update(names)
    return made


def find(text: str, factory: Any = None, **names: Any) -> Any:
    """Resolve ``text`` in a module that holds ``names``."""
    return resolve(parse(text), module(**names), factory)


def refusal(text: str, factory: bool | None = None, **names: Any) -> str:
    """The one line with which ``text`` is refused."""
    with pytest.raises(TargetError) as caught:
        find(text, factory, **names)
    assert caught.value.target == text
    line = str(caught.value)
    assert "\n" not in line
    return line


# -- parse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("myapp", Target("myapp", "myapp")),
        ("my.app", Target("my.app", "my.app")),
        ("myapp:app", Target("myapp:app", "myapp", "app")),
        ("my.app:api.app", Target("my.app:api.app", "my.app", "api.app")),
        ("m:create_app()", Target("m:create_app()", "m", "create_app", (), {})),
        ("m:make('a:b', -1)", Target("m:make('a:b', -1)", "m", "make", ("a:b", -1), {})),
        (
            "m:C.make(x={'a': [1]})",
            Target("m:C.make(x={'a': [1]})", "m", "C.make", (), {"x": {"a": [1]}}),
        ),
        ("größe:anwendung", Target("größe:anwendung", "größe", "anwendung")),
    ],
)
def test_a_target_is_a_module_a_name_and_literals(text: str, expected: Target) -> None:
    """A target is a dotted module, optionally a dotted name, optionally literal arguments."""
    assert parse(text) == expected


def test_the_top_of_a_target_is_its_first_package() -> None:
    """The scope starts from the first component of the module's name."""
    assert parse("site.web.main:app").top == "site"
    assert parse("main").top == "main"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (":app", "no module before the colon: write MODULE:app"),
        (":", "write MODULE:NAME"),
        ("myapp:", "write myapp:NAME, or myapp alone"),
        ("myapp.py", "did you mean myapp?"),
        ("myapp.py:app", "did you mean myapp:app?"),
        ("path/to/app.py", "did you mean path.to.app?"),
        ("./path/to/app.py:app", "did you mean path.to.app:app?"),
        ("path\\app.py", "did you mean path.app?"),
        ("/srv/site/app.py:app", "did you mean app:app?"),
        ("../app.py", "a path, not a module"),
        ("my-app:app", "did you mean my_app:app?"),
        ("my app:app", "'my app' is not the name of a module"),
        ("my..app", "'my..app' is not the name of a module"),
        (".app", "'.app' is not the name of a module"),
        ("1app:app", "'1app' is not the name of a module"),
        ("class:app", "'class' is not the name of a module"),
        ("\udcff:app", "is not the name of a module"),
        ("m:a:b", "more than one colon"),
        ("m::b", "more than one colon"),
        ("m:1app", "'1app' is neither a name nor a call"),
        ("m:class", "'class' is neither"),
        ("m:app app", "'app app' is neither"),
        ("m: app", "' app' is neither"),
        ("m:app # served", "'app # served' is neither"),
        ("m:(app)", "'(app)' is neither"),
        ("m:app;x", "'app;x' is neither"),
        ("m:app()x", "'app()x' is neither"),
        ("m:app(", "'app(' is neither"),
        ("m:app()()", "'app()()' is neither"),
        ("m:app().wsgi", "'app().wsgi' is neither"),
        ("m:apps[0]", "'apps[0]' is neither"),
        ("m:'app'", "is neither"),
        ("m:a\0b", "is neither"),
        ("m:f({1:2)", "'f({1:2)' is neither"),
        ("m:f(name)", "argument name is not a literal"),
        ("m:f(g())", "argument g() is not a literal"),
        ("m:f({[]: 1})", "is not a literal"),
        ("m:f(x=name)", "argument name is not a literal"),
        ("m:f(*[1])", "*args can't be unpacked"),
        ("m:f(**{'a': 1})", "**kwargs can't be unpacked"),
        ("m:f(a=1, a=2)", "argument a is given twice"),
    ],
)
def test_what_is_no_target_is_refused_with_the_way_out(text: str, hint: str) -> None:
    """A misspelt target is refused in one line that says what to write instead."""
    assert hint in refusal(text)


def test_nothing_is_evaluated_while_parsing() -> None:
    """The arguments of a call are read as literals and never run."""
    assert "not a literal" in refusal("m:f(__import__('os').abort())")


# -- resolve: names ------------------------------------------------------------------------------


def test_candidates_are_tried_in_their_order() -> None:
    """Without a name it is application, app, create_app, make_app: the first that is there."""
    for index, first in enumerate(CANDIDATES):
        made = [functools.partial(wsgi) for _ in CANDIDATES]
        names: dict[str, Any] = dict(zip(CANDIDATES[index:], made[index:], strict=True))
        for name in ("create_app", "make_app"):
            if name in names:
                names[name] = lambda made=names[name]: made
        assert find("m", **names) is made[index], first


def test_a_candidate_that_is_not_callable_hides_no_other() -> None:
    """A submodule called app, or ``app = None``, is passed over for the factory beside it."""
    for other in (types.ModuleType("m.app"), None):
        assert find("m", app=other, create_app=lambda: wsgi) is wsgi


def test_a_module_without_any_candidate_is_told_them_all() -> None:
    """Where no name was given and none is found, the error lists the names that were tried."""
    line = refusal("m", other=wsgi)
    assert ", ".join(CANDIDATES) in line
    assert "m:NAME" in line
    assert "app is an object of type module" in refusal("m", app=types.ModuleType("m.app"))


def test_dotted_names_are_followed() -> None:
    """A dotted name leads from attribute to attribute, and a call may end it."""

    class Maker:
        app = staticmethod(wsgi)

        @classmethod
        def make(cls, number: int) -> Any:
            return functools.partial(wsgi) if number == 1 else None

    assert find("m:Maker.app", Maker=Maker) is wsgi
    assert find("m:Maker.make(1)", Maker=Maker).func is wsgi


def test_a_name_that_is_missing_is_told_its_near_misses() -> None:
    """An unknown name is refused with the names in the module that come close."""
    assert "did you mean create_app?" in refusal("m:crate_app", create_app=wsgi)
    assert "check the spelling" in refusal("m:zzz", create_app=wsgi)
    line = refusal("m:api.ap", api=types.SimpleNamespace(app=wsgi))
    assert "api has no 'ap': did you mean app?" in line


def test_a_module_may_make_its_names_on_demand() -> None:
    """Names are asked of the module, so that its own ``__getattr__`` answers."""

    def lazily(name: str) -> Any:
        if name == "app":
            return wsgi
        raise AttributeError(name)

    assert find("m:app", __getattr__=lazily) is wsgi
    assert find("m", __getattr__=lazily) is wsgi


@pytest.mark.parametrize("value", ["text", None, 3, types.ModuleType("m.app")])
def test_what_is_not_callable_is_refused_by_its_type(value: Any) -> None:
    """Something that can't be called is refused, and the error names what it is."""
    shown = "None" if value is None else type(value).__name__
    line = refusal("m:thing", thing=value)
    assert shown in line
    assert "not callable" in line


# -- resolve: application or factory -------------------------------------------------------------


class Instance:
    """An object that is a WSGI application."""

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class Body:
    """A class that is a WSGI application: its instances are the response bodies."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any:
        return iter([b""])


class OldBody:
    """As Body, iterated by index."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __getitem__(self, index: int) -> bytes:
        raise IndexError


class VariadicBody:
    """As Body, with a constructor that tells nothing."""

    def __init__(self, *args: Any) -> None: ...

    def __iter__(self) -> Any:
        return iter([b""])


def extra(environ: Any, start_response: Any, extra: Any = None) -> list[bytes]:
    """An application with an argument to spare."""
    return []


def optional(environ: Any, start_response: Any = None) -> list[bytes]:
    """An application that needs one argument and takes two."""
    return []


def rest(environ: Any, *rest: Any) -> list[bytes]:
    """An application with a variadic second argument."""
    return []


def configured(config: Any, environ: Any, start_response: Any) -> list[bytes]:
    """An application once its configuration is bound."""
    return []


def anything(*args: Any, **kwargs: Any) -> list[bytes]:
    """A callable whose signature tells nothing."""
    return []


def request_style(function: Any) -> Any:
    """A decorator that makes an application of a function of one request."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(args)

    return wrapper


def passing(function: Any) -> Any:
    """A decorator that passes everything on."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def adapting(function: Any) -> Any:
    """A decorator with the two arguments of WSGI around a function with one."""

    @functools.wraps(function)
    def wrapper(environ: Any, start_response: Any) -> Any:
        return function(environ)

    return wrapper


@pytest.mark.parametrize(
    "value",
    [
        wsgi,
        extra,
        optional,
        rest,
        anything,
        Instance(),
        Instance().method,
        Body,
        OldBody,
        VariadicBody,
        functools.partial(configured, {}),
        functools.partial(extra, extra=1),
        passing(wsgi),
        adapting(lambda request: []),
        request_style(lambda request: []),
        lambda environ, start_response: [],
        max,
    ],
)
def test_applications_are_told_from_their_signature(value: Any) -> None:
    """What can be called with (environ, start_response), and not without, is served as it is."""
    assert find("m:app", app=value) is value


class Service:
    """A class whose instances are WSGI applications."""

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class VariadicService(Service):
    """As Service, with a constructor that tells nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class Single(type):
    """A metaclass that hides the constructor."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class SingleService(Service, metaclass=Single):
    """As Service, with a constructor that its metaclass hides."""


def no_arguments() -> Any:
    """A factory."""
    return wsgi


def one_optional(config: Any = None) -> Any:
    """A factory with a default."""
    return wsgi


def two_optional(config: Any = None, debug: bool = False) -> Any:
    """A factory that could be called with two arguments."""
    return wsgi


def keyword_optional(*, debug: bool = False) -> Any:
    """A factory with a keyword."""
    return wsgi


@pytest.mark.parametrize(
    "value",
    [
        no_arguments,
        one_optional,
        two_optional,
        keyword_optional,
        passing(no_arguments),
        functools.lru_cache(no_arguments),
        lambda: wsgi,
        Service,
        VariadicService,
        SingleService,
    ],
)
def test_factories_are_told_from_their_signature(value: Any) -> None:
    """What can be called without arguments is called, whatever its name, and its result served."""
    found = find("m:thing", thing=value)
    assert found is wsgi or isinstance(found, Service)


@pytest.mark.parametrize("name", ["create_app", "make_app", "_build_app", "get_app", "app_factory"])
def test_the_name_decides_where_the_signature_is_open(name: str) -> None:
    """With ``*args, **kwargs`` a factory's name makes a factory, and any other an application."""

    def opaque(*args: Any, **kwargs: Any) -> Any:
        return wsgi

    assert find(f"m:{name}", **{name: opaque}) is wsgi
    assert find("m:app", app=opaque) is opaque
    assert find("m:creature", creature=opaque) is opaque


def test_a_decorator_that_injects_arguments_makes_a_factory_by_name() -> None:
    """Where the wrapped function needs arguments that its decorator supplies, the name decides."""

    def injecting(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function("config", *args, **kwargs)

        return wrapper

    assert find("m:create_app", create_app=injecting(lambda config: wsgi)) is wsgi


def test_factory_true_and_false_overrule_the_signature() -> None:
    """The option decides: what looks like an application is called, and the other way round."""

    def called(*args: Any) -> Any:
        return wsgi

    assert find("m:app", True, app=called) is wsgi
    assert find("m:create_app", False, create_app=called) is called
    assert find("m:app", False, app=two_optional) is two_optional


class Needy(Service):
    """A class whose constructor needs two arguments that are not those of WSGI."""

    def __init__(self, database: Any, cache: Any) -> None: ...


def needs_config(config: Any, debug: bool = False) -> Any:
    """A factory that needs an argument."""
    return wsgi


def needs_keyword(*, config: Any) -> Any:
    """A factory that needs a keyword."""
    return wsgi


@pytest.mark.parametrize(
    ("value", "needs"),
    [
        (Needy, "database, cache"),
        (needs_config, "config"),
        (needs_keyword, "config"),
        (configured, "config, environ, start_response"),
    ],
)
def test_what_fits_neither_is_refused_with_its_arguments(value: Any, needs: str) -> None:
    """A callable that is neither application nor factory is refused, naming what it needs."""
    line = refusal("m:create_app", create_app=value)
    assert f"needs ({needs})" in line
    assert "m:create_app(...)" in line


# -- resolve: asynchronous -----------------------------------------------------------------------


async def coroutine_app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""


async def coroutine_factory() -> None:
    """A factory that would have to be awaited."""


class AsgiInstance:
    """An object that is an ASGI application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class AsynchronousInstance:
    """An object that takes the arguments of WSGI, and would have to be awaited."""

    async def __call__(self, environ: Any, start_response: Any) -> None: ...


def plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that returns an awaitable."""


async def asynchronous_body(environ: Any, start_response: Any) -> Any:
    """An asynchronous generator."""
    yield b""


@pytest.mark.parametrize(
    "value",
    [
        coroutine_app,
        coroutine_factory,
        AsgiInstance(),
        AsynchronousInstance(),
        plain_asgi,
        asynchronous_body,
        functools.partial(coroutine_app, {}),
    ],
)
@pytest.mark.parametrize("factory", [None, False])
def test_asgi_is_refused_by_name(value: Any, factory: bool | None) -> None:
    """An asynchronous application is refused as ASGI, even where no factory is looked for."""
    assert "(ASGI)" in refusal("m:app", factory, app=value)


def test_a_factory_of_asgi_applications_is_refused() -> None:
    """What a factory returns is looked at too."""
    assert "what create_app() returned is asynchronous (ASGI)" in refusal(
        "m:create_app", create_app=lambda: coroutine_app
    )


# -- resolve: calling ----------------------------------------------------------------------------


def test_a_call_passes_its_literal_arguments() -> None:
    """The arguments written in the target arrive, by position and by keyword."""
    seen: list[Any] = []

    def create_app(*args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return wsgi

    assert find("m:create_app('prod', debug=True)", create_app=create_app) is wsgi
    assert seen == [(("prod",), {"debug": True})]


def test_a_factory_can_not_change_the_arguments_of_the_next_call() -> None:
    """Each call gets arguments of its own, so that one generation can't reach the next."""
    seen: list[Any] = []

    def create_app(plugins: list[str], options: dict[str, Any]) -> Any:
        seen.append((list(plugins), dict(options)))
        plugins.append("mine")
        options["mine"] = True
        return wsgi

    target = parse("m:create_app(['a'], options={})")
    for _ in range(2):
        resolve(target, module(create_app=create_app))
    assert seen == [(["a"], {}), (["a"], {})]


def test_a_call_is_no_application_whatever_the_option_says() -> None:
    """A target written as a call contradicts --no-factory, and that is said."""
    assert "write m:create_app" in refusal("m:create_app()", False, create_app=no_arguments)
    assert find("m:create_app()", True, create_app=no_arguments) is wsgi


@pytest.mark.parametrize("made", [None, "text", [b"body"]])
def test_a_factory_must_return_a_callable(made: Any) -> None:
    """A factory that returns nothing to call is refused, naming what it returned."""
    line = refusal("m:create_app", create_app=lambda: made)
    assert "create_app() returned" in line
    assert ("None" if made is None else type(made).__name__) in line


def test_a_factory_must_return_what_takes_the_arguments_of_wsgi() -> None:
    """A factory that returns another factory would answer every request with an error: refused."""
    line = refusal("m:create_app(1)", create_app=lambda number: no_arguments)
    assert "create_app(1) returned" in line
    assert "(environ, start_response)" in line


class FactoryFailed(Exception):
    """What the application raises."""


def test_what_a_factory_raises_goes_through() -> None:
    """An exception in the application's own code keeps its type and its traceback."""

    def create_app() -> Any:
        raise FactoryFailed

    with pytest.raises(FactoryFailed) as caught:
        find("m:create_app", create_app=create_app)
    assert caught.traceback[-1].name == "create_app"


def test_a_type_error_inside_a_factory_goes_through() -> None:
    """A TypeError that the factory's body raises is the application's, not the target's."""

    def create_app() -> Any:
        return len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError) as caught:
        find("m:create_app", create_app=create_app)
    assert caught.traceback[-1].name == "create_app"


@pytest.mark.parametrize(
    ("text", "factory"), [("m:create_app(1, 2)", None), ("m:create_app(x=1)", None)]
)
def test_arguments_that_do_not_fit_are_refused(text: str, factory: bool | None) -> None:
    """A factory that can't be called with these arguments at all is a misspelt target."""
    assert "can't be called" in refusal(text, factory, create_app=one_optional)


def test_an_application_called_as_a_factory_is_refused() -> None:
    """With --factory an application that needs its two arguments is refused, not tried again."""
    assert "missing 2 required positional arguments" in refusal("m:app", True, app=wsgi)


def test_an_error_in_a_lazy_module_goes_through() -> None:
    """What a module's ``__getattr__`` raises, other than a missing name, is the application's."""

    def lazily(name: str) -> Any:
        raise FactoryFailed

    with pytest.raises(FactoryFailed):
        find("m:app", __getattr__=lazily)

from __future__ import annotations

import pytest

from tests.isolation.apart import each_sees_itself
from tests.isolation.sources import Site

#: Ways of the language and its library to come from a name, a file or a type to a module.
WAYS = {
    "a shared library's __import__": """
        import helping_library
        def ask():
            assert helping_library.by_name("shop.lazy.Thing")(1).version == "VERSION"
            return helping_library.by_name("shop.lazy.V")
    """,
    "werkzeug's import_string": """
        from werkzeug.utils import import_string
        def ask():
            assert import_string("shop.lazy:Thing").version == import_string("shop.lazy").V
            return import_string("shop.lazy.V")
    """,
    "pkgutil by name": """
        import pkgutil
        def ask():
            assert pkgutil.resolve_name("shop.lazy:Thing.version") == "VERSION"
            source = pkgutil.get_data("shop", "lazy.py").decode()
            assert 'V = "VERSION"' in source
            return pkgutil.resolve_name("shop.lazy").V
    """,
    "importlib.resources": """
        import importlib.resources
        def ask():
            folder = importlib.resources.files("shop")
            assert str(folder / "lazy.py") == str(folder.joinpath("lazy.py"))
            names = {entry.name for entry in folder.iterdir()}
            assert {"lazy.py", "onlyVERSION.py", "deep"} <= names
            assert not {"only1.py", "only2.py"} <= names
            assert (folder / "deep").is_dir() and not (folder / "deep").is_file()
            assert (folder / "deep/er.py").is_file() and (folder / "deep/er.py").exists()
            assert not (folder / "late.py").exists()
            assert b'V = "VERSION"' in (folder / "lazy.py").read_bytes()
            with (folder / "lazy.py").open(encoding="utf-8") as file:
                text = file.read()
            assert text == folder.joinpath("lazy.py").read_text(encoding="utf-8")
            return text.partition('V = "')[2][0]
    """,
    "inspect": """
        import inspect
        def ask():
            from shop import lazy
            assert inspect.getmodule(lazy.Thing) is inspect.getmodule(lazy.hinted) is lazy
            assert inspect.getmodule(inspect.currentframe()).__name__ == "shop.asking"
            assert 'version = V' in inspect.getsource(lazy.Thing)
            assert "hinted" in inspect.getsource(lazy.hinted)
            assert 'V = "VERSION"' in inspect.getsource(lazy)
            assert inspect.signature(lazy.hinted, eval_str=True).parameters["b"].annotation is (
                lazy.Thing)
            return lazy.V
    """,
    "dataclasses": """
        import copy, dataclasses, pickle, typing
        from dataclasses import InitVar, dataclass, field
        @dataclass
        class Plain:
            thing: "lazy.Thing"
        @dataclass
        class Item(Plain):
            times: "InitVar[int]" = 1
            kept: "typing.ClassVar[str]" = "VERSION"
            _: "dataclasses.KW_ONLY" = None
            more: list = field(default_factory=list)
            def __post_init__(self, times):
                self.more *= times
        from shop import lazy
        def ask():
            item = Item(lazy.Thing(1), 2, more=[3])
            assert [f.name for f in dataclasses.fields(Item)] == ["thing", "more"]
            assert typing.get_type_hints(Plain)["thing"] is lazy.Thing
            for made in (copy.copy(item), copy.deepcopy(item), pickle.loads(pickle.dumps(item)),
                         dataclasses.replace(item, more=[3, 3], times=1)):
                assert made == item and type(made) is Item and type(made.thing) is lazy.Thing
            return item.kept
    """,
    "named tuples": """
        import collections, pickle, typing
        class Pair(typing.NamedTuple):
            a: "Pair"
            b: int = 0
            version = "VERSION"
        Old = collections.namedtuple("Old", "a b")
        def ask():
            assert type(pickle.loads(pickle.dumps(Old(1, 2)))) is Old
            assert typing.get_type_hints(Pair)["a"] is Pair
            pair = pickle.loads(pickle.dumps(Pair(1)))
            assert type(pair) is Pair
            return pair.version
    """,
    "enum": """
        import copy, enum, pickle
        class Kind(enum.Enum):
            A = "VERSION"
        Flag = enum.Flag("Flag", "X Y", module=__name__)
        Made = enum.Enum("Made", {"B": "VERSION"})
        class Level(enum.IntEnum):
            HIGH = VERSION
        def ask():
            assert pickle.loads(pickle.dumps([Kind.A, Made.B, Level.HIGH])) == [
                Kind.A, Made.B, Level.HIGH]
            assert pickle.loads(pickle.dumps(Kind)) is Kind
            assert copy.deepcopy(Kind.A) is Kind.A and Kind("VERSION") is Kind.A
            both = Flag.X | Flag.Y
            assert pickle.loads(pickle.dumps(both)) is both
            return Made.B.value
    """,
    "abstract classes": """
        import abc, collections.abc, numbers
        class Base(abc.ABC):
            @classmethod
            def __subclasshook__(cls, other):
                return True if other.__name__ == "Hooked" else NotImplemented
        class Hooked: ...
        class Other: ...
        Base.register(Other)
        collections.abc.Sequence.register(Other)
        numbers.Number.register(Other)
        class Sized(collections.abc.Mapping):
            def __getitem__(self, key): return "VERSION"
            def __iter__(self): return iter("x")
            def __len__(self): return 1
        def ask():
            assert isinstance(Hooked(), Base) and isinstance(Other(), Base)
            assert isinstance(Other(), collections.abc.Sequence)
            assert not isinstance(Hooked(), collections.abc.Sequence)
            assert isinstance(Sized(), collections.abc.Mapping)
            return Sized()["x"]
    """,
    "protocols": """
        import typing
        @typing.runtime_checkable
        class Named(typing.Protocol):
            name: str
            def call(self) -> "Named": ...
        class Thing:
            name = "VERSION"
            def call(self): ...
        def ask():
            assert isinstance(Thing(), Named) and not isinstance(3, Named)
            assert typing.get_type_hints(Named.call)["return"] is Named
            return Thing().name
    """,
    "copyreg": """
        import copy, copyreg, pickle
        class Odd:
            def __init__(self, version): self.version = version
        def reduce(odd): return make, (odd.version,)
        def make(version): return Odd("VERSION")
        copyreg.pickle(Odd, reduce)
        def ask():
            for made in (copy.copy(Odd("x")), pickle.loads(pickle.dumps(Odd("x")))):
                assert type(made) is Odd
            return made.version
    """,
    "singledispatch": """
        import functools
        from shop.lazy import Thing
        @functools.singledispatch
        def show(thing): return "?"
        @show.register
        def _(thing: "Thing"): return thing.version
        class Shown:
            @functools.singledispatchmethod
            def show(self, thing): return "?"
            @show.register
            def _(self, thing: "Thing"): return thing.version
        def ask():
            assert Shown().show(Thing(1)) == show(Thing(1))
            return show(Thing(1))
    """,
    "for type checkers": """
        from __future__ import annotations
        import typing
        if typing.TYPE_CHECKING:
            from shop.lazy import Thing
        def made(x) -> Thing: ...
        def ask():
            import shop.lazy
            hints = typing.get_type_hints(made, localns={"Thing": shop.lazy.Thing})
            return hints["return"].version
    """,
    "patch": """
        import importlib, sys
        from unittest import mock
        import shop.lazy
        def ask():
            with mock.patch("shop.lazy.V", "patched"):
                assert shop.lazy.V == sys.modules["shop.lazy"].V == "patched"
            with mock.patch.object(shop.lazy, "V", "object"):
                from shop.lazy import V
                assert V == "object"
            with mock.patch("shop.lazy.Thing", autospec=True) as thing:
                assert shop.lazy.Thing is thing
            with mock.patch.dict("sys.modules", {"shop.lazy": None, "shop.put": sys}):
                assert importlib.import_module("shop.put") is sys
                try:
                    importlib.import_module("shop.lazy")
                except ModuleNotFoundError:
                    pass
                else:
                    raise AssertionError("shop.lazy")
            assert "shop.put" not in sys.modules
            assert sys.modules["shop.lazy"] is shop.lazy
            return shop.lazy.V
    """,
    "reload": """
        import importlib, sys
        import shop.lazy
        def ask():
            before, thing = shop.lazy, shop.lazy.Thing
            shop.lazy.V = shop.lazy.mark = "changed"
            assert importlib.reload(shop.lazy) is before is sys.modules["shop.lazy"]
            assert shop.lazy.Thing is not thing
            assert shop.lazy.mark == "changed"
            return shop.lazy.V
    """,
    "a lazy loader": """
        import importlib.util, sys
        def ask():
            name = "shop.deep.er"
            sys.modules.pop(name, None)
            spec = importlib.util.find_spec(name)
            spec.loader = importlib.util.LazyLoader(spec.loader)
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            return module.V
    """,
    "a file loaded by hand": """
        import importlib.util, os
        def ask():
            place = os.path.join(os.path.dirname(__file__), "byhand.py")
            spec = importlib.util.spec_from_file_location("some_plugin", place)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            assert module.late() == "VERSION"
            return module.V
    """,
    "runpy": """
        import runpy
        def ask():
            names = runpy.run_module("shop.byhand", run_name="__main__")
            assert names["__name__"] == "__main__" and names["late"]() == "VERSION"
            return runpy.run_module("shop.byhand", alter_sys=True)["V"]
    """,
    "exec": """
        def ask():
            names = {}
            exec("from shop.byhand import V, late", names)
            assert names["late"]() == names["V"] == eval("__import__('shop.lazy').lazy.V")
            return names["V"]
    """,
    "a module's class": """
        def ask():
            from shop import property_module
            assert property_module.plain == "VERSION"
            return property_module.V
    """,
    "asyncio": """
        import asyncio, contextvars, importlib, threading
        def look():
            return importlib.import_module("shop.lazy").V
        async def main():
            loop = asyncio.get_running_loop()
            later = loop.create_future()
            loop.call_later(0, lambda: later.set_result(look()))
            found = {look(), await asyncio.to_thread(look), await later,
                     await loop.run_in_executor(None, look),
                     await asyncio.create_task(asyncio.to_thread(look))}
            assert len(found) == 1, found
            return found.pop()
        def ask():
            return asyncio.run(main())
    """,
    "threads of all kinds": """
        import contextvars, helping_library, importlib, threading
        def look():
            return importlib.import_module("shop.lazy").V
        def in_thread(work):
            found = []
            thread = threading.Thread(target=lambda: found.append(work()))
            thread.start()
            thread.join()
            return found[0]
        def in_timer(work):
            found = []
            timer = threading.Timer(0, lambda: found.append(work()))
            timer.start()
            timer.join()
            return found[0]
        def shared_thread():
            thread = helping_library.Asked()
            thread.start()
            thread.join()
            return thread.found
        kept = contextvars.copy_context()
        def ask():
            found = {look(), in_thread(look), in_timer(look), in_thread(lambda: in_thread(look)),
                     in_timer(shared_thread), shared_thread(), in_thread(lambda: kept.run(look)),
                     in_thread(lambda: contextvars.Context().run(look)),
                     helping_library.pool.submit(look).result(),
                     helping_library.pool.submit(lambda: in_thread(look)).result(),
                     helping_library.pool.submit(shared_thread).result()}
            assert len(found) == 1, found
            return found.pop()
    """,
}

MORE = {
    "shop__byhand": """
        from shop.lazy import V
        def late():
            import shop.lazy
            return shop.lazy.V
    """,
    "shop__property_module": """
        import sys, types
        plain = "VERSION"
        class Special(types.ModuleType):
            @property
            def V(self):
                import shop.lazy
                return shop.lazy.V
        sys.modules[__name__].__class__ = Special
    """,
}


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("way", WAYS)
def test_each_generation_sees_itself(site: Site, way: str) -> None:
    """Of two live generations each sees only its own modules, also when the files are gone."""
    each_sees_itself(site, WAYS[way], **MORE)

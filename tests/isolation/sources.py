"""Source trees on disk, and the generations that are built from them."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwsgi.errors import ScopeError
from genwsgi.generations.generation import Generation
from genwsgi.isolation.modules import EndedTable
from genwsgi.isolation.scope import Addition, ScopeRules, find_scope
from genwsgi.isolation.store import Store
from genwsgi.live import LiveApplication
from genwsgi.target import parse

#: An application that answers with what its module ``shop.answer`` computes.
APPLICATION = """
    def create_app():
        def app(environ, start_response):
            start_response("200 OK", [])
            def body():
                yield str(environ["ask"]()).encode()
            return body()
        return app
"""

#: A package whose function imports the module ``lazy`` when it is called.
LAZILY = "def ask():\n    import shop.lazy\n    return shop.lazy.V\n"


_copies = itertools.count(1)


def write(root: Path, files: dict[str, str]) -> None:
    """Write source files, dedented, below ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


class Site:
    """A source tree, a store, and the live application made from them."""

    def __init__(self, folder: Path, target: str = "shop:create_app") -> None:
        self.root = folder / "src"
        self.root.mkdir()
        self.store = Store(str(folder / "store"))
        self.live = LiveApplication(parse(target), self.store)
        self.target = parse(target)
        self.scope: tuple[str, ...] = ()
        self.share: tuple[str, ...] = ()
        self.additions: tuple[Addition, ...] = ()
        self.path: tuple[str, ...] = (str(self.root),)

    def write(self, **files: str) -> None:
        """Write modules: ``shop__models`` is ``shop/models.py``, ``shop`` is ``shop/__init__.py``.

        A package gets the application in front of what it is given.
        """
        for key, text in files.items():
            name = key.replace("____init__", "/:init:").replace("__", "/")
            name = name.replace(":init:", "__init__")
            if key == "shop":
                write(self.root, {"shop/__init__.py": textwrap.dedent(text)})
                with open(self.root / "shop/__init__.py", "a") as file:
                    file.write(textwrap.dedent(APPLICATION))
            else:
                write(self.root, {name + ".py": text})

    def replace(self, **files: str) -> None:
        """Write modules as :meth:`write` does, in place of all that were there."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        self.write(**files)

    def take(self) -> str:
        """Take a snapshot of the tree as it is now."""
        rules = ScopeRules(
            self.target.module, self.path, (), self.scope, self.share, self.additions
        )
        return self.store.take(find_scope(rules))

    def build(self, *, grow: bool = False) -> Generation:
        """Build a generation from the tree as it is now."""
        return self.live.build(self.take(), "test", grow=grow)

    def grow(self, rounds: int = 4) -> dict[str, str]:
        """Serve the tree as it is now with a scope that grows; return what joined, and why."""
        joined: dict[str, str] = {}
        for _ in range(rounds):
            try:
                self.live.swap(self.build(grow=True))
                return joined
            except ScopeError as error:
                self.additions += error.additions
                joined.update({item.name or item.folder: item.reason for item in error.additions})
        raise AssertionError(f"the scope grows without end: {joined}")

    def serve(self) -> Generation:
        """Build a generation from the tree as it is now and make it the current one."""
        generation = self.build()
        self.live.swap(generation)
        return generation

    def close(self) -> None:
        """Close everything; it has ended then, however slow the machine is."""
        self.live.close(timeout=60.0)

    def request(self, ask: Callable[[], Any] = lambda: None) -> Any:
        """Begin a request, whose body is not read yet, on the current generation."""
        environ = {"ask": ask, "REQUEST_METHOD": "GET", "PATH_INFO": "/slow"}
        return self.live.application(environ, lambda *_: lambda _data: None)

    def two(self, **files: str) -> tuple[Generation, Generation]:
        """Two live generations: of ``files`` with ``VERSION`` replaced by 1 and by 2.

        A lease keeps the first one alive.
        """
        generations = []
        for version in ("1", "2"):
            self.replace(**{n: text.replace("VERSION", version) for n, text in files.items()})
            generations.append(self.serve())
            if version == "1":
                self.pending = self.request()
        return generations[0], generations[1]


def compiled(folder: Path) -> Path:
    """Put a compiled module ``_json`` into ``folder``, unlike that of any test before."""
    source = importlib.util.find_spec("_json")
    assert source is not None
    assert source.has_location, source
    path = Path(shutil.copy(source.origin or "", folder))
    with path.open("ab") as file:
        file.write(bytes(next(_copies)))  # which no loader minds
    return path


def torn_down(generation: Generation) -> bool:
    """Whether all of a generation is undone, and the thread that has done it is gone.

    Its table is closed a little earlier, and may then still have modules and its snapshot.
    """
    thread = f"genwsgi-teardown-{generation.number}"
    ended = isinstance(generation.modules, EndedTable)
    return ended and not any(one.name == thread for one in threading.enumerate())


def call(generation: Generation, module: str, name: str, *args: Any) -> Any:
    """Call a function of the generation's module, in its context."""
    table = generation.modules
    return generation.run(getattr(generation.run(table.import_module, module), name), *args)

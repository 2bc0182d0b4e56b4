"""Functions of the standard library that code replaces by its own, as tracers and reporters do.

A wrapper around ``threading.Thread.start`` or ``http.client.HTTPConnection.putrequest`` would be
wrapped by the next generation's, that by the one after it, and none of them could ever be let go.
What a build has replaced is found by comparing; then a *stand-in* is put there, which calls what
the generation that asks wants there, and the original for code of none: a thread that the server
starts would else run in a tracer's frame for ever, and keep that generation.  A generation whose
build has found a stand-in and wrapped it means the original when it calls that.

Claims are made and dropped by single operations on dicts, so no lock is needed.
"""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from collections.abc import Callable, Collection, Mapping
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

from genwsgi.generations.generation import Generation
from genwsgi.isolation.asking import asking
from genwsgi.isolation.effects.base import Book, Record, Run, current
from genwsgi.isolation.effects.claims import MISSING, counted
from genwsgi.isolation.holders import belongs

#: What is in a module or class under each of its names.
_Names = dict[str, Any]
_names_of_class: Callable[[type], MappingProxyType[str, Any]] = vars(type)["__dict__"].__get__
#: The interpreter's own table: no generation has modules of the standard library.
_real: dict[str, ModuleType] = sys.modules
#: Top-level modules that are looked at.
_STANDARD = sys.stdlib_module_names - {"builtins", "this", "antigravity"}


class Override:
    """One place of the standard library: what was there, and what generations want there.

    :ivar owner: the module or class.
    :ivar base: what is called for whoever has no claim; for a class it may be inherited.
    :ivar before: what is put back in the end; ``MISSING`` empties the place.
    :ivar claims: what each generation wants there.
    """

    def __init__(self, owner: Any, name: str, base: Any, before: Any) -> None:
        self.owner = owner
        self.name = name
        self.base = base
        self.before = before
        self.claims: dict[Book, Any] = {}
        #: Held weakly: it is in its place, and with those who have wrapped it.
        self._stand_in: Callable[[], Any] = lambda: None

    def claim(self, book: Book, value: Any, found: Any) -> None:
        """Let ``book``'s generation, which found ``found`` in the place, have ``value`` there."""
        self.claims[book] = value
        if found in _stand_ins:
            _stand_ins[found][1].add(book)
        # A new one each time: who finds it next is known by it.
        wrapped: weakref.WeakSet[Book] = weakref.WeakSet()

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            return self._called(wrapped, args)(*args, **kwargs)

        if isinstance(self.base, FunctionType):
            functools.update_wrapper(stand_in, self.base)
        self._stand_in = weakref.ref(stand_in)
        _stand_ins[stand_in] = self, wrapped
        setattr(self.owner, self.name, stand_in)

    def drop(self, book: Book) -> None:
        """Forget a generation's claim; with the last one the place is as it was."""
        self.claims.pop(book, None)
        if not self.claims:
            self.restore()

    def restore(self) -> None:
        """Put back what was there, unless somebody else has replaced the stand-in."""
        stand_in = self._stand_in()
        if stand_in is not None and _names(self.owner).get(self.name) is stand_in:
            _put(self.owner, self.name, self.before)

    def _called(self, wrapped: weakref.WeakSet[Book], args: tuple[Any, ...]) -> Any:
        generation: Generation | None = asking()
        book: Book | None = None if generation is None else generation.effects
        found = self.base
        if book is not None and book not in wrapped:
            found = self.claims.get(book, self.base)
        if type(found) is not FunctionType and isinstance(self.owner, type) and args:
            # A wrapper object, which a class would bind to the instance.
            bind = getattr(type(found), "__get__", None)
            if bind is not None:
                return functools.partial(_without_first, bind(found, args[0], type(args[0])))
        return found


def _without_first(function: Callable[..., Any], _self: object, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


class Addition:
    """A name that generations have given to a class of the standard library, which had none.

    A descriptor: each generation has what it put there itself, and none finds another one's, so
    code that asks first whether somebody has done so already does it in each generation.
    """

    def __init__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name
        self._claims: dict[Book, Any] = {}

    def __get__(self, instance: object, owner: type) -> Any:
        generation: Generation | None = asking()
        book: Book | None = None if generation is None else generation.effects
        # Whoever has no book, as a thread of the server, finds the newest one's.
        claims = list(self._claims.values())[-1:] if book is None else [self._claims.get(book)]
        if not claims or claims[0] is None:
            raise AttributeError(
                f"{self._owner.__name__!r} has no {self._name!r} in this generation",
                name=self._name,
                obj=owner if instance is None else instance,
            )
        bind = getattr(type(claims[0]), "__get__", None)
        return claims[0] if bind is None else bind(claims[0], instance, owner)

    def claim(self, book: Book, value: Any) -> None:
        """Let ``book``'s generation, which has put ``value`` into the place, have it there."""
        self._claims[book] = value
        setattr(self._owner, self._name, self)

    def drop(self, book: Book) -> None:
        """Forget a generation's claim; with the last one the class has no such name any more."""
        self._claims.pop(book, None)
        if not self._claims and _names(self._owner).get(self._name) is self:
            delattr(self._owner, self._name)


#: Each stand-in's place, and the generations that have wrapped it.
_stand_ins: weakref.WeakKeyDictionary[Any, tuple[Override, weakref.WeakSet[Book]]] = (
    weakref.WeakKeyDictionary()
)


class _Taken:
    """A place with what no function can stand for, as a class, or a module's new name: put back.

    :ivar place: the module or class, and the name in it.
    :ivar value: what the build has put there.
    """

    def __init__(self, owner: Any, name: str, value: Any, before: Any) -> None:
        self.place = (owner, name)
        self.value = value
        self._before = before
        _taken.append(self)

    def undo(self) -> None:
        """Put back what was there, or have whoever came after put it back."""
        if self in _taken:
            _taken.remove(self)
        owner, name = self.place
        if self.in_force():
            _put(owner, name, self._before)
        for other in _taken.copy():
            if other.place == self.place and other._before is self.value:
                other._before = self._before

    def in_force(self) -> bool:
        """Whether the place has it."""
        owner, name = self.place
        return _names(owner).get(name) is self.value

    def adds(self) -> bool:
        """Whether there would be nothing in the place without it."""
        return self._before is MISSING


#: All of them, oldest first.
_taken: list[_Taken] = []


class Overrides(Record):
    """What one build has replaced in the standard library, found by comparing."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._before: dict[Any, _Names] = {}
        self._modules: set[str] = set()
        self._made: list[Override | Addition] = []
        self._taken: list[_Taken] = []
        #: What shared packages have replaced meanwhile: owner, name, the function, what was there.
        self._others: list[tuple[Any, str, FunctionType, Any]] = []
        self.look()

    def look(self) -> None:
        """Remember what is in the modules that have come since the last look."""
        book = self.book()
        if book is None or not book.building:
            return
        new = _real.keys() - self._modules
        self._modules |= new
        for name in new:
            if name.partition(".")[0] in _STANDARD:
                self._look_at(name)

    def built(self) -> None:
        """Claim what the build has replaced."""
        book = self.book()
        generation = None if book is None else book.generation()
        if book is None or generation is None:
            return
        for owner, before in self._before.items():
            if _same(_names(owner), before):
                continue
            for name, now in _names(owner).copy().items():
                then = before.get(name, MISSING)
                if now is then:
                    continue
                if _is_of(generation, now):
                    self._claim(book, owner, name, now, then)
                elif type(now) is FunctionType:
                    self._others.append((owner, name, now, then))
        self._before = {}

    def undo(self) -> None:
        """Drop all claims, the last first, and put back what can only be put back."""
        book = self.book()
        while self._made and book is not None:
            self._made.pop().drop(book)
        while self._taken:
            self._taken.pop().undo()

    def retire(self, run: Run) -> None:
        """Drop and put back all, but leave a name that a module would not have any more.

        The current generation may have found it there and not added it again, so it goes on to
        that one.
        """
        newest = current()
        if newest is not None and newest[1] is not self.book():
            left = [one for one in self._taken if one.adds() and one.in_force()]
            newest[1].of(Overrides)._taken += left
            self._taken = [one for one in self._taken if one not in left]
        super().retire(run)

    def forget(self, packages: Collection[str]) -> None:
        """Put back what the shared copies of ``packages`` have replaced, which are unloaded now."""
        for owner, name, now, then in reversed(self._others):
            module = now.__globals__.get("__name__")
            top = module.partition(".")[0] if type(module) is str else ""
            if top in packages and _names(owner).get(name) is now:
                _put(owner, name, then)
        self._others = []

    def report(self) -> list[str]:
        """How many functions it has replaced."""
        return counted({"replaced function": len(self._made) + len(self._taken)})

    def _look_at(self, name: str) -> None:
        module = _real.get(name)
        if type(module) is not ModuleType:
            return
        names = self._before[module] = vars(module).copy()
        classes = {kind for kind in map(type, names.values()) if issubclass(kind, type)}
        for value in names.values():
            if type(value) in classes:
                own = _names_of_class(value)
                module_of = own.get("__module__")
                # gevent puts classes of its own into the modules that it patches.
                if module_of == name or str(module_of).startswith("gevent."):
                    self._before[value] = own.copy()

    def _claim(self, book: Book, owner: Any, name: str, now: Any, then: Any) -> None:
        known = _stand_ins.get(then) if type(then) is FunctionType else None
        base = then if then is not MISSING else _inherited(owner, name)
        if type(then) is Addition or (base is MISSING and isinstance(owner, type)):
            addition = then if type(then) is Addition else Addition(owner, name)
            addition.claim(book, now)
            self._made.append(addition)
            return
        added = any(one.place == (owner, name) and one.value is then for one in _taken)
        if known is not None:
            override = known[0]
        elif _can_be_called(now) and _can_be_called(base) and not added:
            override = Override(owner, name, base, then)
        else:
            self._taken.append(_Taken(owner, name, now, then))
            return
        override.claim(book, now, then)
        self._made.append(override)


def _names(owner: Any) -> MappingProxyType[str, Any] | _Names:
    return vars(owner) if type(owner) is ModuleType else _names_of_class(owner)


def _same(names: Mapping[str, Any], before: _Names) -> bool:
    """Whether nothing has changed, as is nearly always so; a build compares some 25,000 names.

    Lists do it fastest, and ask only objects that are not the very same whether they are equal.
    """
    try:
        return list(names) == list(before) and list(names.values()) == list(before.values())
    except Exception:  # noqa: BLE001 -- then they are not
        return False


def _inherited(owner: Any, name: str) -> Any:
    for base in owner.__mro__[1:] if isinstance(owner, type) else ():
        if name in _names_of_class(base):
            return _names_of_class(base)[name]
    return MISSING


def _can_be_called(value: Any) -> bool:
    """Whether a function can stand for it; classes and other descriptors are only put back."""
    return callable(value) and not isinstance(value, type | staticmethod | classmethod)


def _put(owner: Any, name: str, value: Any) -> None:
    if value is MISSING:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def _is_of(generation: Generation, value: Any) -> bool:
    """Whether ``value`` is of the generation's code, or an object that calls something that is."""
    table: Any = generation.modules
    if table is None or table.closed:
        return False
    if isinstance(value, type):
        # By its name, for a module that failed is not in the table any more.
        return bool(table.owns(_names_of_class(value).get("__module__")))
    inside = [value]
    if type(value) is not FunctionType:
        if not isinstance(value, staticmethod | classmethod | property) and not callable(value):
            return False
        inside += [type(value), *gc.get_referents(value)]
    return any(belongs(one, table.builtins, table.modules) for one in inside)


def install() -> None:
    """Nothing to wrap: a stand-in comes with the first claim."""


def uninstall() -> None:
    """Take stand-ins away that are left, because a generation could not be torn down."""
    for override, _ in list(_stand_ins.values()):
        override.claims.clear()
        override.restore()
    while _taken:
        _taken[-1].undo()

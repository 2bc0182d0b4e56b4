"""What an update rebuilds, and why.

A version has every module that was ever updated, and:

1. the modules that the update names;
2. those of the program's own that import one of these, and so on: they hold on to what they took;
3. those that one of these imports and that the program has not loaded, or whose source has changed:
   the new code was written for them.

Not rebuilt because of what they import are ``__main__``, modules that use ``genwsgi.hotupdate``
themselves (they are the program around the versions: its loops, its queues), what ``keep`` names,
and packages' own ``__init__``: what that takes out of a rebuilt module is looked up anew instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from genwsgi.errors import UpdateRefused
from genwsgi.hotupdate.own import Module, Search
from genwsgi.hotupdate.source import MACHINERY, Imports, Sources
from genwsgi.isolation.originals import within
from genwsgi.isolation.scope import Scope


@dataclass
class Plan:
    """What the next version consists of.

    :ivar modules: the modules by name.
    :ivar reasons: for each of them why, in a few words.
    :ivar reexports: for each package the names that it takes out of these, with their origin.
    :ivar stale: for each of these packages which of the names its own code uses, as they were.
    """

    modules: dict[str, Module] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    reexports: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    stale: dict[str, list[str]] = field(default_factory=dict)

    def scope(self) -> Scope:
        """Return what the snapshot is taken of: modules below a package come with it."""
        names = set(self.modules)
        tops = {n: m for n, m in self.modules.items() if not within(n.rpartition(".")[0], names)}
        return Scope({n: m.as_package(self.reasons[n]) for n, m in sorted(tops.items())})

    def describe(self) -> str:
        """Return the modules with their reasons, for the log."""
        return "; ".join(f"{name} ({self.reasons[name]})" for name in sorted(self.modules))


class Planner:
    """Makes plans.  One thread at a time.

    :param keep: modules, with what lies below them, that are never rebuilt unless they are named.
    """

    def __init__(self, sources: Sources, keep: Collection[str]) -> None:
        self._sources = sources
        self._keep = frozenset(keep)

    def plan(
        self,
        named: Iterable[str],
        search: Search,
        loaded: Mapping[str, Module],
        before: Iterable[str],
        changed: Callable[[Module], bool],
    ) -> Plan:
        """Return what an update of ``named`` rebuilds.

        :param search: where the new source is.
        :param loaded: the program's own modules.
        :param before: what the current version has.
        :param changed: whether the source of a loaded module is another one than what runs.
        :raises UpdateRefused: a module that is named is not the program's, or is not found.
        """
        plan = Plan()
        for name in dict.fromkeys(named):
            module = search.find(name)
            if module is None:
                raise UpdateRefused(_not_found(name, search, loaded))
            self._add(plan, module, "named")
        for name in before:
            # One that is gone now was not needed by anybody, or its importers say so.
            module = None if name in plan.modules else search.find(name)
            if module is not None:
                self._add(plan, module, "updated before")
        current = {n: search.find(n) or m for n, m in loaded.items()}
        size = -1
        while size != len(plan.modules):
            size = len(plan.modules)
            self._add_importers(plan, current)
            self._add_needed(plan, search, loaded, changed)
        return plan

    def _add(self, plan: Plan, module: Module, reason: str) -> None:
        plan.modules[module.name] = module
        plan.reasons[module.name] = reason

    def _add_importers(self, plan: Plan, current: Mapping[str, Module]) -> None:
        """Add what imports a module of the plan, until there is nothing more."""
        reached = set(plan.modules)
        reached.update(
            f"{name}.{alias}" for name in plan.reexports for alias in plan.reexports[name]
        )
        size = -1
        while size != len(reached):
            size = len(reached)
            for module in current.values():
                imports = self._sources.imports(module)
                if imports is None or within(module.name, plan.modules):
                    continue
                hit = sorted(name for name in imports.names if _is_reached(name, reached))
                if not hit or self._is_kept(module, imports):
                    continue
                if module.package:
                    taken = plan.reexports[module.name] = _taken(imports, plan.modules, reached)
                    plan.stale[module.name] = sorted(imports.used & taken.keys())
                    reached.update(f"{module.name}.{alias}" for alias in taken)
                else:
                    reached.add(module.name)
                    self._add(plan, module, f"imports {hit[0]}")

    def _add_needed(
        self,
        plan: Plan,
        search: Search,
        loaded: Mapping[str, Module],
        changed: Callable[[Module], bool],
    ) -> None:
        """Add what modules of the plan import and what is new, or has changed with them."""
        for importer in list(plan.modules.values()):
            imports = self._sources.imports(importer)
            for name in sorted(imports.names if imports is not None else ()):
                if within(name, plan.modules):
                    continue
                module = search.find(name)
                if module is None or module.package:
                    continue  # a package that is new is imported, once, as any other code
                if name not in loaded:
                    self._add(plan, module, f"new, for {importer.name}")
                elif changed(module) and not self._is_kept(module, self._sources.imports(module)):
                    self._add(plan, module, f"changed, and {importer.name} imports it")

    def part_of_the_program(
        self, name: str, loaded: Mapping[str, Module], *, named: bool = False
    ) -> str:
        """Say why a module is not to be rebuilt because its source has changed; else empty.

        :param named: somebody asks for it by name, so that what counts is what lies below it.
        """
        for other in sorted(loaded):
            if within(other, {name}) and not (named and other == name):
                module = loaded[other]
                if within(other, self._keep):
                    return f"{other} is to be kept"
                if self._is_kept(module, self._sources.imports(module)):
                    return f"{other} uses {MACHINERY} and is part of what runs"
        return ""

    def _is_kept(self, module: Module, imports: Imports | None) -> bool:
        uses = imports is not None and any(within(name, {MACHINERY}) for name in imports.names)
        return uses or within(module.name, self._keep)


def _taken(
    imports: Imports, modules: Collection[str], reached: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Return the names that a package takes out of ``modules``, or out of other packages' taken.

    Not those that are modules themselves: these are handles.
    """
    return {
        alias: (source, name)
        for alias, (source, name) in imports.taken.items()
        if f"{source}.{name}" not in modules
        and (within(source, modules) or _is_reached(f"{source}.{name}", reached))
    }


def _is_reached(name: str, reached: Collection[str]) -> bool:
    """Whether ``name`` is, or lies below, one of ``reached``, or may be in a package by ``*``."""
    return within(name, reached) or f"{name.rpartition('.')[0]}.*" in reached


def _not_found(name: str, search: Search, loaded: Mapping[str, Module]) -> str:
    if name in loaded:
        return f"the source of {name} is gone: {loaded[name].file} does not exist"
    where = f" in {', '.join(search.first)} nor" if search.first else ""
    return f"{name} is no module of this program: it is found neither{where} on sys.path"

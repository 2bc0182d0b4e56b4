"""Whether the scope of a build was large enough, found out when the build has ended.

:class:`Growth` is with one build from its beginning: it has import statements recorded, and knows
what was loaded before.  What it finds at the end are packages that belong in the scope as well.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from genwsgi.isolation import lookup, recording
from genwsgi.isolation.audit import audit
from genwsgi.isolation.closure import Closure, close, reachable
from genwsgi.isolation.duplicates import is_duplicate, told, tops_below
from genwsgi.isolation.known import registries
from genwsgi.isolation.modules import ModuleTable
from genwsgi.isolation.packages import Kind, nature, places, shared_modules
from genwsgi.isolation.scope import Addition, is_installed
from genwsgi.isolation.view import ModuleProxy, real

log = logging.getLogger("genwsgi")

#: What has been logged in this process.
_told: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Verdict:
    """One top-level package that the application uses.

    :ivar inside: whether it is in the scope.
    :ivar reason: why, or why not, in one line.
    """

    name: str
    inside: bool
    reason: str


@dataclass(frozen=True)
class Findings:
    """What a look at a build has found.

    :ivar additions: what belongs in the scope and is not in it.
    :ivar stays: packages that belong there too, but can't be imported more than once, and why.
    :ivar verdicts: every package that the application uses, those in the scope first.
    """

    additions: tuple[Addition, ...] = ()
    stays: tuple[Addition, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


class Growth:
    """Looks for what is missing in the scope of one build.  A context manager; one thread.

    :param table: the table of the generation being built.
    """

    def __init__(self, table: ModuleTable) -> None:
        self._table = table
        self._before: frozenset[str] = frozenset()
        self._path: tuple[str, ...] = ()

    def __enter__(self) -> Growth:
        self._before = frozenset(_tops(real.copy()))
        self._path = tuple(sys.path)
        recording.begin(self)
        # For as long as the generation lives: what requests import, as Django's views are, the next
        # build is to know of.
        self._table.on_import = recording.note
        return self

    def __exit__(self, *exc_info: object) -> None:
        recording.end(self)

    def look(self, *, explain: bool = False) -> Findings:
        """Find out what is missing.  Takes some time, in which it lets other threads run.

        :param explain: whether to give a verdict about every package.
        """
        table, snapshot = self._table, self._table.snapshot
        edges, modules, used = self._uses()
        folders = self._own_folders({name: modules[name] for name in used})
        used -= {name for names in folders.values() for name in names}
        reasons = {name: f"keeps {what}" for name, what in registries().items() if name in used}
        found = close(table.names, edges, reasons, self._may_join)
        # Only what is shared for all that is looked into, which takes longest.
        left = sorted(used - found.joins.keys())
        reasons.update(audit({name: modules[name] for name in left}, list(lookup.living)))
        found = close(table.names, edges, reasons, self._may_join)
        known = {item.folder for item in snapshot.additions}
        apart = tuple(
            Addition("", "the application puts it on sys.path", folder)
            for folder in folders
            if folder not in known
        )
        findings = self._findings(found, used)
        return replace(
            findings,
            additions=findings.additions + apart,
            verdicts=self._explain(used, found) if explain else (),
        )

    def blame(self, error: BaseException) -> Findings:
        """Find out which packages to import afresh because of a duplicate registration.

        Nothing is found if ``error`` says no such thing, or there is no earlier generation.

        :param error: how the build failed.
        """
        table = self._table
        if table.generation.number == 1 or not is_duplicate(error):
            return Findings()
        edges, modules, used = self._uses()
        why = f"keeps what an earlier generation registered: {told(error)}"
        near = [name for name in tops_below(error, table.names) if name in used]
        reasons = dict.fromkeys(near, why)
        if not any(self._may_join(name) for name in near):
            # It can't be imported afresh itself: but what keeps its objects may be.
            reasons.update((one, why) for one, other in edges if other in near and one in used)
        left = {name: modules[name] for name in sorted(used)}
        for name, what in audit(left, list(lookup.living)).items():
            reasons.setdefault(name, what)
        return self._findings(close(table.names, edges, reasons, self._may_join), used)

    def forget(self, additions: Collection[Addition]) -> set[str]:
        """Unload the shared copies of packages that only this build has loaded; say which.

        To be called when the generation is torn down.  What was there before stays, for whoever
        uses it.
        """
        tops = {item.name for item in additions} - self._before
        for item in additions:
            if item.folder:
                tops |= self._loaded_from(os.path.realpath(item.folder)) - self._before
        with lookup.lock:
            for name, module in real.copy().items():
                if type(module) is not ModuleProxy and name.partition(".")[0] in tops:
                    del real[name]
        return tops

    def _uses(self) -> tuple[recording.Edges, dict[str, list[str]], set[str]]:
        """Return who imports whom, the shared modules by package, and which packages are used."""
        recording.ask_unseen()
        edges = recording.edges()
        modules = shared_modules()
        # What only the host program uses is none of the application's business.
        used = (reachable(self._table.names, edges) & modules.keys()) | (
            modules.keys() - self._before
        )
        return edges, modules, used - self._table.names

    def _findings(self, found: Closure, used: Collection[str]) -> Findings:
        tried = {item.name for item in self._table.snapshot.additions}
        return Findings(
            tuple(
                Addition(name, why)
                for name, why in found.joins.items()
                if name in used and name not in tried
            ),
            tuple(
                Addition(name, f"{why}, but {self._because(name)}")
                for name, why in found.stays.items()
                if name in used
            ),
        )

    def _may_join(self, name: str) -> bool:
        return name not in self._table.snapshot.share and nature(name).kind is Kind.PURE

    def _because(self, name: str) -> str:
        if name in self._table.snapshot.share:
            return "--share names it"
        found = nature(name)
        if found.kind is Kind.COMPILED:
            return f"has compiled modules ({found.detail}) and stays shared"
        return f"stays shared: {found}"

    def _own_folders(self, modules: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        """Return the folders that the application has put on the path, with what is from there.

        Not those where packages of others are installed.  A folder outside of the application's
        counts if something was imported from it.
        """
        roots = {os.path.realpath(root): root for root in self._table.snapshot.roots}
        found: dict[str, set[str]] = {}
        for entry in dict.fromkeys(sys.path):
            folder = os.path.realpath(entry)
            if entry in self._path or folder in roots or not os.path.isdir(folder):
                continue
            names = {name for name in modules if _is_from(name, folder)}
            root = next((root for root in roots if _below(folder, root)), None)
            if is_installed(folder) or not (names or (root is not None and _has_modules(folder))):
                continue
            if root is None:
                found[folder] = names
            else:
                found[os.path.join(roots[root], os.path.relpath(folder, root))] = names
        return found

    def _loaded_from(self, folder: str) -> set[str]:
        return {name for name in shared_modules() if _is_from(name, folder)}

    def _explain(self, used: Collection[str], found: Closure) -> tuple[Verdict, ...]:
        snapshot = self._table.snapshot
        inside = {
            **{top: snapshot.reasons[top] for top in _tops(self._table.modules)},
            **found.joins,
        }
        verdicts = [Verdict(name, True, inside[name]) for name in sorted(inside)]
        loaded = _tops(real.copy()) - self._before
        for name in sorted((set(used) | loaded) - inside.keys()):
            why = "imports nothing of the scope"
            if name in found.stays:
                why = f"{found.stays[name]}, but {self._because(name)}"
            elif name in snapshot.share:
                why = "named by --share"
            elif nature(name).kind is not Kind.PURE:
                why = str(nature(name))
            verdicts.append(Verdict(name, False, why))
        return tuple(verdicts)


def examine(growth: Growth, generation: str, *, grow: bool, explain: bool = False) -> Findings:
    """Look at a build, and log, once in a process, what can't be helped.

    :param generation: what the generation is called.
    :param grow: whether the caller does something about the additions.
    """
    try:
        findings = growth.look(explain=explain)
    except Exception:
        # What was built is none the worse for it.
        log.exception("the scope of %s can't be looked at", generation)
        return Findings()
    for item in findings.additions if not grow else ():
        if (item.name, item.folder) not in _told:
            _told.add((item.name, item.folder))
            what = item.name or item.folder
            log.warning(
                "%s is shared by all generations until the next deploy, although it "
                "belongs in the scope: %s",
                what,
                item.reason,
            )
    for item in findings.stays if grow else ():
        if (item.name, item.folder) not in _told:
            _told.add((item.name, item.folder))
            log.info("%s %s", item.name, item.reason)
    return findings


def blame(growth: Growth, error: BaseException) -> Findings:
    """Look at a build that failed; see :meth:`Growth.blame`."""
    try:
        return growth.blame(error)
    except Exception:
        log.exception("it can't be looked into why a build failed")
        return Findings()


def _tops(modules: Collection[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def _is_from(name: str, folder: str) -> bool:
    return any(os.path.realpath(os.path.dirname(place)) == folder for place in places(name))


def _has_modules(folder: str) -> bool:
    """Whether something can be imported from ``folder``."""
    try:
        entries = os.listdir(folder)
    except OSError:
        return False
    return any(
        entry.endswith(".py") or os.path.isfile(os.path.join(folder, entry, "__init__.py"))
        for entry in entries
    )


def _below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder

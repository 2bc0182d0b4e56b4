"""Where releases come from: the application's tree, read into the store."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from genwsgi.deploy.protocol import Release
from genwsgi.errors import OrderError, SnapshotError
from genwsgi.isolation.scope import Addition, Package, Scope, ScopeRules, find_scope
from genwsgi.isolation.snapshot import Snapshot
from genwsgi.isolation.store import Store


@dataclass(frozen=True)
class Reading:
    """What was read.

    :ivar digest: names the snapshot.
    :ivar path: the folders, of those that were to be read first, that code of it was found in.
    :ivar watched: the folders and files whose changes concern it.
    """

    digest: str
    path: tuple[str, ...]
    watched: tuple[str, ...] = ()


class Source:
    """Reads the application's tree.  One thread at a time.

    :param others: gives, for a scope, further files that belong to the release (templates ...).
    """

    def __init__(
        self,
        rules: ScopeRules,
        store: Store,
        others: Callable[[Scope], Iterable[str]] = lambda _scope: (),
    ) -> None:
        self.rules = rules
        self.store = store
        self._others = others

    def scope(self, path: Sequence[str] = ()) -> Scope:
        """Look up the scope as it is on disk now.

        :param path: folders that come before all others.
        :raises TargetError: the target is not on the path.
        """
        return find_scope(_first(self.rules, path))

    def warn_of_left_out(self, log: logging.Logger) -> dict[str, str]:
        """Say, at a start, what of the application no deploy renews, and why; return that."""
        left_out = self.scope().left_out
        for name, why in left_out.items():
            log.warning("the application's own %s is not renewed by deploys: %s", name, why)
        return left_out

    def grow(self, additions: Iterable[Addition]) -> None:
        """Have ``additions`` in the scope from now on; what is there already is passed over."""
        self.rules = _grown(self.rules, additions)

    def resume(self, release: Release) -> Scope:
        """Begin where the coordinator that committed ``release`` has ended; return its scope now.

        :raises SnapshotError, TargetError: it can't be read.
        """
        # What is set aside is recognised only if it is read with the scope that it had.
        for digest in release.aside:
            with contextlib.suppress(SnapshotError):  # it is not kept any more
                self._grow_as(digest)
        self._grow_as(release.digest)
        return self.scope(release.path)

    def _grow_as(self, digest: str) -> None:
        known = self.store.open(digest)
        known.release()
        self.grow(known.additions)

    def take(self, committed: str | None = None, additions: Iterable[Addition] = ()) -> str:
        """Take a snapshot of the tree as it is now and return its digest.

        Its scope has what that of ``committed`` has grown by: so a coordinator that was restarted
        knows what the one before it had found.

        :param committed: digest of the release that is served, whose flaws are not held against
            the new one; ``None`` for the first.
        :param additions: what further belongs in the scope of this snapshot, and of later ones
            only if this one is committed.
        :raises SnapshotError, TargetError: it can't be taken; what was served still is.
        """
        return self.read(committed, additions).digest

    def read(
        self,
        committed: str | None = None,
        additions: Iterable[Addition] = (),
        path: Sequence[str] = (),
        modules: Iterable[str] = (),
        asked: str = "",
        on_file: Callable[[int, int], object] = lambda _done, _total: None,
    ) -> Reading:
        """Take a snapshot, as :meth:`take` does, from other folders too.

        :param path: folders that come before all others, the newest first.
        :param modules: dotted names of what has to be found.
        :param asked: the one of ``path`` in which there has to be something.
        :param on_file: see :meth:`~genwsgi.isolation.store.Store.take`.
        :raises OrderError: that is not so.
        """
        known = self.store.open(committed) if committed is not None else None
        try:
            if known is not None:
                self.grow(known.additions)
            rules = _grown(self.rules, additions)
            scope = find_scope(_first(rules, path))
            used = tuple(folder for folder in path if _holds(folder, scope))
            if used != tuple(path):
                # What the snapshot says of itself must not depend on folders that gave nothing.
                scope = find_scope(_first(rules, used))
            if asked and asked not in used:
                raise OrderError(
                    f"{asked} holds no package or module of this application: name the folder that "
                    "they are in"
                )
            digest = self.store.take(scope, self._others(scope), known, on_file)
            self._check(modules, self.store.open(digest))
        finally:
            if known is not None:
                known.release()
        return Reading(digest, used, scope.watched)

    def _check(self, modules: Iterable[str], taken: Snapshot) -> None:
        try:
            missing = [name for name in modules if not _has(taken, name)]
        finally:
            taken.release()
        if missing:
            raise OrderError(
                f"no module {', '.join(missing[:3])} in the scope of this application: it has "
                f"{', '.join(sorted(taken.tops)[:10])}"
            )


def _first(rules: ScopeRules, path: Sequence[str]) -> ScopeRules:
    """The rules with the folders of ``path`` before all others."""
    if not path:
        return rules
    return replace(rules, path=(*path, *rules.path), first=(*path, *rules.first))


def _holds(folder: str, scope: Scope) -> bool:
    """Whether a package of ``scope`` lies in ``folder``."""
    real = os.path.realpath(folder)
    return any(real in map(os.path.dirname, _places(one)) for one in scope.packages.values())


def _places(package: Package) -> tuple[str, ...]:
    return (package.file,) if package.file else package.folders


def _has(snapshot: Snapshot, name: str) -> bool:
    """Whether the module ``name`` is among those that ``snapshot`` has."""
    top, *parts = name.split(".")
    for place in snapshot.tops.get(top, ()):
        if not parts:
            return True
        inner = os.path.join(place, *parts)
        endings = (f"{inner}.py", os.path.join(inner, "__init__.py"))
        if any(path in snapshot.files for path in endings) or inner in snapshot.folders:
            return True
        if any(path.startswith(f"{inner}.") for path in snapshot.extensions):
            return True
    return False


def _grown(rules: ScopeRules, additions: Iterable[Addition]) -> ScopeRules:
    known = {(item.name, item.folder): item for item in rules.additions}
    for item in additions:
        known.setdefault((item.name, item.folder), item)
    return replace(rules, additions=tuple(known[key] for key in sorted(known)))

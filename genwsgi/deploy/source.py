"""Where releases come from: the application's tree, read into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from genwsgi.isolation.scope import Addition, Scope, ScopeRules, find_scope
from genwsgi.isolation.snapshot import Store


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

    def scope(self) -> Scope:
        """Look up the scope as it is on disk now.

        :raises TargetError: the target is not on the path.
        """
        return find_scope(self.rules)

    def grow(self, additions: Iterable[Addition]) -> None:
        """Have ``additions`` in the scope from now on; what is there already is passed over."""
        self.rules = _grown(self.rules, additions)

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
        if committed is None:
            scope = find_scope(_grown(self.rules, additions))
            return self.store.take(scope, self._others(scope))
        known = self.store.open(committed)
        try:
            self.grow(known.additions)
            scope = find_scope(_grown(self.rules, additions))
            return self.store.take(scope, self._others(scope), known)
        finally:
            known.release()


def _grown(rules: ScopeRules, additions: Iterable[Addition]) -> ScopeRules:
    known = {(item.name, item.folder): item for item in rules.additions}
    for item in additions:
        known.setdefault((item.name, item.folder), item)
    return replace(rules, additions=tuple(known[key] for key in sorted(known)))

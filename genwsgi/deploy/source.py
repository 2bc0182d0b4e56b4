"""Where releases come from: the application's tree, read into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from genwsgi.isolation.scope import Scope, ScopeRules, find_scope
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

    def take(self, committed: str | None = None) -> str:
        """Take a snapshot of the tree as it is now and return its digest.

        :param committed: digest of the release that is served, whose flaws are not held against
            the new one; ``None`` for the first.
        :raises SnapshotError, TargetError: it can't be taken; what was served still is.
        """
        scope = self.scope()
        if committed is None:
            return self.store.take(scope, self._others(scope))
        known = self.store.open(committed)
        try:
            return self.store.take(scope, self._others(scope), known)
        finally:
            known.release()

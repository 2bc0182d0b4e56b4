"""Which releases a server can go back to, and which one is meant by "the one before".

Pure; one thread at a time, the coordinator's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from genwsgi.deploy.protocol import Release
from genwsgi.errors import OrderError


class KeptReleases:
    """The committed release, and the latest before it whose snapshots are kept.

    :param releases: those of this server that are known to have been committed, oldest first.
    :param keep: how many snapshots to keep besides the committed release's.
    """

    def __init__(self, releases: Iterable[Release], keep: int) -> None:
        self._keep = keep
        self._releases: tuple[Release, ...] = ()
        for release in releases:
            self.commit(release)

    @property
    def releases(self) -> tuple[Release, ...]:
        """Those that are kept, oldest first; the last is the committed one."""
        return self._releases

    @property
    def digests(self) -> frozenset[str]:
        """The snapshots that are kept."""
        return frozenset(release.digest for release in self._releases)

    def __contains__(self, release: tuple[int | None, str]) -> bool:
        """Whether the release of this number and digest is kept."""
        return any((one.number, one.digest) == release for one in self._releases)

    def commit(self, release: Release) -> None:
        """Note that ``release`` is committed; what is no longer kept is forgotten."""
        if (release.number, release.digest) in self:
            return
        releases = (*self._releases, release)
        latest = dict.fromkeys(one.digest for one in reversed(releases))
        kept = set(list(latest)[: self._keep + 1])
        self._releases = tuple(one for one in releases if one.digest in kept)

    def find(self, number: int | None) -> Release:
        """The release ``number``; None: the one before the committed one.

        :raises OrderError: it is not kept; the error names those that are.
        """
        found = self._before() if number is None else self._numbered(number)
        if found is None:
            what = "no release before this one" if number is None else f"release {number}"
            others = [str(one.number) for one in self._releases[:-1]] or ["none"]
            state = "is kept" if number is None else "is not kept"
            raise OrderError(f"{what} {state}; kept are: {', '.join(others)}")
        return found

    def before(self, release: Release) -> Release:
        """The latest before ``release`` that has other code, be it what a rollback has left.

        :raises OrderError: none is kept.
        """
        earlier = (one for one in reversed(self._releases) if one.number < release.number)
        found = next((one for one in earlier if one.digest != release.digest), None)
        if found is None:
            raise OrderError(f"no release before {release.number} is kept")
        return found

    def _numbered(self, number: int) -> Release | None:
        return next((one for one in self._releases if one.number == number), None)

    def _before(self) -> Release | None:
        """The one before the committed release."""
        current = self._releases[-1]
        left = {current.digest, *current.aside}
        return next((one for one in self._led_to(current) if one.digest not in left), None)

    def _led_to(self, release: Release) -> Iterator[Release]:
        """Those before ``release``, latest first, without what a rollback has left.

        Where one went back to 2, what comes before it is 2, then 1, and not the one that was left.
        """
        latest = release.back_to or release.number - 1
        for one in reversed(self._releases):
            if one.number <= latest:
                yield one
                latest = one.back_to or one.number - 1

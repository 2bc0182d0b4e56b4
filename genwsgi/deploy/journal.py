"""The orders without an outcome yet, written down for the coordinator that comes after this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from genwsgi.deploy.actions import Order
from genwsgi.deploy.rundir import RunDirectory


class Journal:
    """What a coordinator has accepted and not ended.  One thread at a time.

    A disk that is full costs the journal and not the deploys.

    :param failed: told when it can't be written.
    """

    def __init__(self, directory: RunDirectory, failed: Callable[[OSError], None]) -> None:
        self._directory = directory
        self._failed = failed
        self._entries: dict[str, dict[str, object]] = {}

    def __contains__(self, order: str) -> bool:
        return order in self._entries

    def take_over(self) -> list[tuple[Order, int]]:
        """Return the orders that the coordinator before had not ended, each with its attempts."""
        found: list[tuple[Order, int]] = []
        for entry in self._directory.orders():
            try:
                attempts = int(str(entry.pop("attempts")))
                entry["modules"] = tuple(entry.get("modules") or ())  # type: ignore[arg-type]
                found.append((Order(**entry), attempts))  # type: ignore[arg-type]
            except (TypeError, ValueError, KeyError):
                continue
        # All are kept before the first of them can be this coordinator's death as well.
        for order, attempts in found:
            self._note(order, attempts)
        return found

    def add(self, order: Order, attempts: int) -> None:
        """Write down an order that is begun for the ``attempts``-th time."""
        self._note(order, attempts)
        self._keep()

    def remove(self, order: Order) -> None:
        """Strike out an order that has its outcome."""
        self._entries.pop(order.id, None)
        self._keep()

    def _note(self, order: Order, attempts: int) -> None:
        self._entries[order.id] = {**asdict(order), "attempts": attempts}

    def write(self) -> None:
        """Write it all down.

        :raises OSError: it can't be written.
        """
        self._directory.keep_orders(list(self._entries.values()))

    def _keep(self) -> None:
        try:
            self.write()
        except OSError as error:
            self._failed(error)

"""The clients who have given orders, and what they are told until those have ended.

One thread, the coordinator's.  A client that hangs up has stopped waiting; its order goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from genwsgi.deploy.peers import Peer, Peers
from genwsgi.deploy.protocol import OrderOutcome, Progress


@dataclass
class _Waiting:
    peer: Peer
    follow: bool


class Clients:
    """Who waits for the outcome of which order."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._waiting: dict[str, _Waiting] = {}

    def wait(self, peer: Peer, order: str, *, follow: bool) -> None:
        """``peer`` is to be told how ``order`` ends, and with ``follow`` how far it is."""
        self._waiting[order] = _Waiting(peer, follow)

    def forget(self, peer: Peer) -> None:
        """``peer`` has hung up."""
        self._waiting = {order: one for order, one in self._waiting.items() if one.peer is not peer}

    def follows(self, order: str | None) -> bool:
        """Whether somebody is to be told how far ``order`` is."""
        return order in self._waiting and self._waiting[order].follow

    def progress(self, progress: Progress) -> None:
        """Tell whoever follows the order."""
        if self.follows(progress.id):
            self._peers.send(self._waiting[progress.id].peer, progress)

    def ended(self, outcome: OrderOutcome) -> None:
        """Tell whoever waits for it how an order has ended."""
        waiting = self._waiting.pop(outcome.id, None)
        if waiting is not None:
            self._peers.send(waiting.peer, outcome)

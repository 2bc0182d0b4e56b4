"""The orders that come in, from wherever: which are taken, which are refused, and with what reason.

One thread, the coordinator's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from genwsgi.deploy import protocol
from genwsgi.deploy.actions import Order
from genwsgi.deploy.answers import in_words
from genwsgi.deploy.clients import Clients
from genwsgi.deploy.coordinator import Coordinator
from genwsgi.deploy.desk import Desk, Submission, Then, new_id
from genwsgi.deploy.history import History
from genwsgi.deploy.kept import KeptReleases
from genwsgi.deploy.orders import PROBATION, WATCH
from genwsgi.deploy.peers import Peer
from genwsgi.deploy.performing import Performer
from genwsgi.deploy.protocol import OrderOutcome, Outcome
from genwsgi.deploy.rundir import RunDirectory
from genwsgi.errors import OrderError

#: How often an order is taken up again after the coordinator died over it.
ATTEMPTS: Final = 2

#: The triggers of orders that are given to this server alone; what others give can be paused.
SIGHUP: Final = "SIGHUP"
ROLLBACK: Final = "rollback"


class Intake:
    """Takes orders, and has them decided and carried out.

    :param watched: whether there is a file watch.
    :param trusted: returns the real path of a folder that a client's order names, or raises
        :class:`~genwsgi.errors.OrderError`.
    """

    def __init__(
        self,
        directory: RunDirectory,
        decision: Coordinator,
        performer: Performer,
        *,
        clients: Clients,
        desk: Desk,
        kept: KeptReleases,
        history: History,
        log: logging.Logger,
        watched: Callable[[], bool],
        trusted: Callable[[str], str],
    ) -> None:
        self._directory = directory
        self._decision = decision
        self._performer = performer
        self._journal = performer.journal
        self._clients = clients
        self._desk = desk
        self._kept = kept
        self._history = history
        self._log = log
        self._watched = watched
        self._trusted = trusted
        # The order to leave what did not pass its probation, until it is carried out.
        self._condemning = ""

    def ask(self, peer: Peer, request: protocol.OrderRequest | protocol.RollbackRequest) -> None:
        """A client asks for a deploy, or asks again."""
        self._clients.wait(peer, request.id, follow=request.follow)
        if request.id in self._journal:
            return  # it asks again, after a connection broke
        ended = self._desk.outcome(request.id) or self._history.outcome(request.id)
        if ended is not None:
            self._clients.ended(ended)
        elif isinstance(request, protocol.RollbackRequest):
            self._go_back(request.id, ROLLBACK, request.detail, request.release)
        else:
            self._deploy(request)

    def _deploy(self, request: protocol.OrderRequest) -> None:
        order = Order(request.id, request.trigger, request.force, request.detail)
        try:
            path = self._trusted(request.path) if request.path else ""
        except OrderError as error:
            self._refuse(order, str(error))
        else:
            self._performer.order(replace(order, path=path, modules=request.modules))

    def _go_back(self, name: str, trigger: str, detail: str, release: int | None) -> None:
        """Order that the code of ``release`` is served again; None: of the one before."""
        order = Order(name, trigger, False, detail)
        try:
            # Now, for what is the one before may be another when the order is served.
            number = self._kept.find(release).number
        except OrderError as error:
            self._refuse(order, str(error))
        else:
            self._performer.order(replace(order, back_to=number))

    def condemn(self, release: int | None, reason: str, then: Then) -> None:
        """The committed release is not to be kept: go back to ``release``; None: the one before.

        :param then: told how that ends.
        """
        self._condemning = new_id()
        self._desk.listen(self._condemning, then)
        self._go_back(self._condemning, PROBATION, reason, release)

    def committed(self, release: protocol.Release) -> None:
        """``release`` is committed: what waits to leave another has nothing left to leave."""
        if release.trigger == PROBATION:
            self.look_again("their mend may have been superseded")
        condemning, self._condemning = self._condemning, ""
        if condemning and release.trigger != PROBATION:
            # It waits for the end of this deploy, and would go back from what was not condemned.
            reason = f"release {release.number} has taken the place of what was condemned"
            now = time.monotonic()
            self._performer.perform(self._decision.withdraw(condemning, reason, now))

    def _refuse(self, order: Order, reason: str) -> None:
        outcome = OrderOutcome(order.id, Outcome.REFUSED, None, reason, "", 0.0)
        self._performer.report(order, outcome)

    def _pass_over(self, order: Order, reason: str) -> None:
        """Don't obey an automatic order.  What the watch has seen, it will see again."""
        if order.trigger == WATCH:
            self._log.info("order %s by %s: refused: %s", order.id, order.trigger, reason)
            refused = OrderOutcome(order.id, Outcome.REFUSED, None, reason, "", 0.0)
            self._desk.ended(refused, self._decision.release)
        else:
            self._refuse(order, f"{reason}: genwsgictl resume, and order it once more")

    def look_again(self, why: str = "automatic deploys go on") -> None:
        """Have the newest state deployed, if it is watched."""
        if self._watched():
            self._desk.submit(WATCH, f"a look at the files, for {why}")

    def take(self, submission: Submission) -> None:
        """A trigger has handed something in."""
        order = submission.order
        if submission.withdraw:
            now = time.monotonic()
            self._performer.perform(self._decision.withdraw(order.id, order.detail, now))
        elif order.id in self._journal:
            if not order.hold:
                self._log.info("order %s: the word has come", order.id)
                self._performer.perform(self._decision.word(order.id, time.monotonic()))
        elif self._desk.tell_again(order.id):
            pass
        elif order.trigger != SIGHUP and (pause := self._directory.paused()):
            self._pass_over(order, f"automatic deploys {in_words(pause)}")
        else:
            self._performer.order(order, self._desk.attempts.pop(order.id, 0) + 1)

    def resume(self) -> None:
        """Take up what the coordinator before this one had accepted when it died."""
        for order, attempts in self._journal.take_over():
            if order.hold and attempts < ATTEMPTS:
                # Whether it is still wanted, and still to be held, its trigger knows, and gives it
                # again.
                self._desk.attempts[order.id] = attempts
                self._journal.remove(order)
            elif attempts < ATTEMPTS:
                self._performer.order(order, attempts + 1)
            else:
                reason = f"the coordinator died over it {attempts} times"
                outcome = OrderOutcome(order.id, Outcome.FAILED, None, reason, "", 0.0)
                self._performer.report(order, outcome)

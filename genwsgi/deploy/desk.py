"""Where triggers hand their orders in, and where they are told how those ended.

Any thread may hand in; all else belongs to the coordinator's.
"""

from __future__ import annotations

import logging
import queue
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from genwsgi.deploy.actions import Order
from genwsgi.deploy.protocol import Committed, OrderOutcome, Outcome, Release

#: How many outcomes are remembered for those who ask again.
REMEMBERED = 200

#: Told of the outcome of an order, and before that, perhaps, that it is prepared.
Then = Callable[[OrderOutcome], None]


@dataclass(frozen=True)
class Submission:
    """What a thread has handed in.

    :ivar then: who is to be told.
    :ivar withdraw: the order is not wanted any more.
    """

    order: Order
    then: Then | None
    withdraw: bool


def new_id() -> str:
    """Return a name for an order that has none."""
    return uuid.uuid4().hex[:12]


class Desk:
    """The orders of this host's triggers.

    :param wake: called by any thread when something was handed in.
    """

    def __init__(self, wake: Callable[[], None], log: logging.Logger) -> None:
        self._wake = wake
        self._log = log
        self._submitted: queue.SimpleQueue[Submission] = queue.SimpleQueue()
        self._then: dict[str, Then] = {}
        self._ended: dict[str, OrderOutcome] = {}
        self._generation = (0, 0)
        #: How often the orders were begun that their triggers have to give again.
        self.attempts: dict[str, int] = {}
        #: How many orders have ended in which way, those that were refused at once among them.
        self.outcomes: Counter[str] = Counter()

    def submit(
        self,
        trigger: str,
        detail: str,
        *,
        force: bool = False,
        id: str = "",  # noqa: A002 -- as the order calls it
        path: str = "",
        modules: Sequence[str] = (),
        hold: float = 0.0,
        then: Then | None = None,
        withdraw: bool = False,
    ) -> str:
        """Hand in an order and return its id.  Any thread may call this.

        :param id: names it; a new name unless given.  An order that is held and comes again
            without ``hold`` is let go; one that has ended does not begin again.
        :param path, modules, hold: see :class:`~genwsgi.deploy.actions.Order`.
        :param then: called with the outcome, and before that with one that says ``prepared`` if the
            order is held; on the coordinator's thread, so it has to return at once.
        :param withdraw: call the order ``id`` off instead, if it is not committed yet.
        """
        name = id or new_id()
        order = Order(name, trigger, force, detail, path, tuple(modules), hold)
        self._submitted.put(Submission(order, then, withdraw))
        self._wake()
        return name

    def submissions(self) -> Iterator[Submission]:
        """What was handed in, in its order; whoever wants to hear of it is noted."""
        while True:
            try:
                submission = self._submitted.get_nowait()
            except queue.Empty:
                return
            if submission.then is not None:
                self.listen(submission.order.id, submission.then)
            yield submission

    def listen(self, order: str, then: Then) -> None:
        """Have ``then`` told how ``order`` ends, which is to be given."""
        self._then[order] = then

    def tell_again(self, order: str) -> bool:
        """Tell the outcome of an order that has ended; return whether it has."""
        outcome = self._ended.get(order)
        if outcome is not None:
            self._tell(outcome)
        return outcome is not None

    def serves(self, message: Committed) -> None:
        """A worker has told which generation serves a release."""
        release, highest = self._generation
        newest = max(highest, message.generation) if release == message.release else 0
        self._generation = (message.release, newest or message.generation)

    def held(self, order: Order, release: int, seconds: float) -> None:
        """Tell that an order is prepared and held."""
        self._tell(OrderOutcome(order.id, Outcome.PREPARED, release, "", "", seconds))

    def ended(self, outcome: OrderOutcome, committed: Release) -> OrderOutcome:
        """Tell how an order ended, and return that with the generation that serves now."""
        release, highest = self._generation
        if release == committed.number:
            outcome = replace(outcome, generation=highest)
        self.outcomes[outcome.outcome] += 1
        self._ended[outcome.id] = outcome
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._tell(outcome)
        self._then.pop(outcome.id, None)
        return outcome

    def outcome(self, order: str) -> OrderOutcome | None:
        """How ``order`` ended, if it is one of the latest that have."""
        return self._ended.get(order)

    def _tell(self, outcome: OrderOutcome) -> None:
        then = self._then.get(outcome.id)
        if then is None:
            return
        try:
            then(outcome)
        except Exception:  # noqa: BLE001 -- it is logged; a trigger may be somebody else's code
            self._log.exception("a trigger can't be told of the outcome of order %s", outcome.id)

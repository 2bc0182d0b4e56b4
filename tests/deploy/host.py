"""A coordinator with a clock, for the tests of its rules."""

from __future__ import annotations

from genwsgi.deploy.actions import Phase
from genwsgi.deploy.coordinator import Coordinator, Order, Report, Send
from genwsgi.deploy.protocol import Building, Committed, Hello, Ready, Release, Step

FIRST = Release(1, "old", "start", "", 0.0)
NEW = Release(2, "new", "ctl", "by hand", 1000.0)
TIMEOUT = 60.0
HOLD = 30.0


def an_order(name="a", trigger="ctl", force=False, **more):
    """An order with the id ``name``."""
    return Order(name, trigger, force, "by hand", **more)


class Host:
    """A coordinator and a clock; what it was told last is ``did``, everything is ``done``."""

    def __init__(self, workers=2, committed=FIRST):
        self.coordinator = Coordinator(committed, build_timeout=TIMEOUT)
        self.now = 0.0
        self.done = []
        for worker in range(1, workers + 1):
            self.hello(worker)

    def call(self, name, *args):
        """Call one input now; return the actions."""
        did = getattr(self.coordinator, name)(*args, self.now)
        self.done += did
        return did

    def order(self, name="a", trigger="ctl", force=False, **more):
        """Give an order."""
        return self.call("order", an_order(name, trigger, force, **more))

    def taken(self, digest="new", path=()):
        """Answer a TakeSnapshot."""
        did = self.coordinator.snapshot_taken(digest, self.now, 1000.0, path)
        self.done += did
        return did

    def hello(self, worker, pid=None, current=FIRST, prepared=None):
        """Connect a worker; its pid is 100 more than its connection."""
        return self.call("hello", worker, Hello(pid or 100 + worker, current, prepared))

    def building(self, *workers, release=2):
        """Say that workers have begun to build."""
        for worker in workers:
            self.call("building", worker, Building(release, Step.BUILDING, 0, 0))

    def looking(self, worker, release=2):
        """Say that a worker has built, and looks at the scope; return the actions."""
        return self.call("building", worker, Building(release, Step.LOOKING, 0, 0))

    def ready(self, *workers, release=2):
        """Say that workers are ready; return the last actions."""
        return [self.call("ready", worker, Ready(release, 0.1)) for worker in workers][-1]

    def swapped(self, *workers, release=2):
        """Say that workers have swapped; return the last actions."""
        done = [self.call("committed", worker, Committed(release, 2)) for worker in workers]
        return done[-1]

    def tick(self, until):
        """Let the time be ``until``."""
        self.now = until
        return self.call("tick")

    def to(self, phase):
        """Go to ``phase``, with two workers and no deploy before."""
        way = list(Phase)
        reached = way.index(phase)
        if reached >= way.index(Phase.READING):
            self.order(hold=HOLD if phase is Phase.HOLDING else 0.0)
        if reached >= way.index(Phase.CANARY):
            self.taken()
            self.building(1)
        if reached >= way.index(Phase.PREPARING):
            self.ready(1)
            self.building(2)
        if reached >= way.index(Phase.HOLDING):
            self.ready(2)
        assert self.coordinator.phase is phase
        return self

    def outcomes(self):
        """What was reported, as (id, outcome)."""
        return [
            (action.order.id, action.outcome.outcome)
            for action in self.done
            if isinstance(action, Report)
        ]

    @property
    def last(self):
        """The latest outcome."""
        return self.coordinator.last

    @property
    def ignored(self):
        """How many inputs were ignored."""
        return self.coordinator.statistics().ignored


def messages(actions, worker=None):
    """What is sent, to whom; or to ``worker``."""
    sent = [(one.worker, one.message) for one in actions if isinstance(one, Send)]
    return sent if worker is None else [message for to, message in sent if to == worker]


def reports(actions):
    """The outcomes reported."""
    return [action.outcome for action in actions if isinstance(action, Report)]

"""The coordinator against simulated agents, with everything that may die dying at any point."""

from __future__ import annotations

import copy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from genwsgi.deploy.actions import Held, Phase
from genwsgi.deploy.coordinator import Coordinator, Order, Record, Report, Send, TakeSnapshot
from genwsgi.deploy.protocol import (
    Abort,
    Building,
    Commit,
    Committed,
    Failed,
    Hello,
    Outcome,
    Prepare,
    Ready,
    Release,
    Step,
    Welcome,
)
from genwsgi.deploy.running import GROWTHS
from genwsgi.isolation.scope import Addition

FIRST = Release(1, "code 0", "start", "", 0.0)
TIMEOUT = 60.0
DIGESTS = [f"code {number}" for number in range(4)]
MOST_WORKERS = 4
ADDITIONS = [Addition(f"package{number}", "it imports shop") for number in range(GROWTHS + 2)]


def same(one, other):
    """Whether two releases are one."""
    return one is not None and (one.number, one.digest) == (other.number, other.digest)


class Agent:
    """A worker process with its agent, which does what it is told when the test lets it."""

    def __init__(self, pid, current):
        self.pid = pid
        self.current = current
        self.prepared = None
        self.building = None
        self.look = False
        self.connection = None
        self.inbox = []

    def follow(self, committed):
        """Run ``committed``, prepared or built now.  Return whether that was a change."""
        if self.current is not None and self.current.number >= committed.number:
            return False
        self.current, self.prepared, self.building = committed, None, None
        return True


class Deploys(RuleBasedStateMachine):
    """One host.  The rules are what may happen; the invariants are what the design promises."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.recorded = FIRST
        self.history = {(FIRST.number, FIRST.digest)}
        self.looked_at: set[tuple[int, str]] = set()
        self.agents = []
        self.pids = 100
        self.connections = 0
        self.unreported = []
        self.disk_full = False
        self.open_orders = {}
        self.order_count = 0
        self.words: set[str] = set()
        self.start()

    def start(self):
        """Start a coordinator from what is recorded."""
        self.coordinator = Coordinator(self.recorded, build_timeout=TIMEOUT)
        self.sizes: dict[str, list[int]] = {}
        self.reads = 0
        self.serving: frozenset[int] = frozenset()

    # -- carrying out what the coordinator decides

    def perform(self, actions):
        """Do the actions in order, as the driver does, and check each against the real state."""
        for action in actions:
            if isinstance(action, TakeSnapshot):
                self.reads += 1
                self.check_growth(action)
            elif isinstance(action, Report):
                assert self.open_orders.pop(action.order.id) == action.order, "reported twice"
                assert action.outcome.id == action.order.id
            elif isinstance(action, Held):
                assert self.open_orders[action.order.id] == action.order
                assert action.order.id not in self.words, "held although the word has come"
            elif isinstance(action, Record):
                running = self.coordinator.statistics().running
                order = self.open_orders[running]
                assert not order.hold or running in self.words, "committed without the word"
                if self.disk_full:
                    self.disk_full = False
                    self.perform(self.coordinator.record_failed("disk full", self.now))
                    return
                self.record(action.release)
            elif isinstance(action, Send):
                if isinstance(action.message, Commit):
                    assert action.message.release == self.recorded.number, "commit before record"
                for agent in self.agents:
                    if agent.connection == action.worker:
                        agent.inbox.append(action.message)

    def check_growth(self, action):
        """One order's scope grows with each reading, and only so often."""
        sizes = self.sizes.setdefault(action.order.id, [])
        assert len(action.additions) == len(set(action.additions))
        assert len(action.additions) > (sizes[-1] if sizes else -1)
        assert action.additions or not sizes, "begun anew for nothing"
        sizes.append(len(action.additions))
        assert len(sizes) <= 1 + GROWTHS

    def record(self, release):
        """The commit point: everybody who is alive and known must be ready for it."""
        assert release.number > self.recorded.number, "a number went back"
        known = {one.worker: one.pid for one in self.coordinator.participants}
        for agent in self.agents:
            if agent.connection in known:
                assert same(agent.prepared, release), f"{agent.pid} has not said ready"
            elif agent.pid in self.serving:
                assert agent.pid in known.values(), f"{agent.pid} serves and was not asked"
        assert known, "nobody was asked"
        looked_at = (release.number, release.digest) in self.looked_at
        assert looked_at or release.back_to is not None, "nobody has looked at its scope"
        assert release.digest not in release.aside, "served and set aside"
        if release.back_to is None:
            assert not release.aside
        else:
            assert (release.back_to, release.digest) in self.history, "back to what never was"
            left = {*self.recorded.aside, self.recorded.digest} - {release.digest}
            assert left <= set(release.aside) <= left | set(DIGESTS)
        self.recorded = release
        self.history.add((release.number, release.digest))

    def agent(self, index):
        """One of the agents."""
        return self.agents[index % len(self.agents)]

    # -- what may happen

    @initialize(workers=st.integers(0, MOST_WORKERS))
    def begin(self, workers):
        """The server has started with some workers."""
        for _ in range(workers):
            self.fork(True, True)

    @rule(who=st.sets(st.integers(0, MOST_WORKERS - 1)), rounds=st.integers(1, 3))
    def carry_on(self, who, rounds):
        """Some of the workers obey, and end their builds well."""
        for _ in range(rounds):
            for agent in [agent for index, agent in enumerate(self.agents) if index in who]:
                while agent.inbox:
                    self.handle(agent, agent.inbox.pop(0))
                self.conclude(agent, True)

    @precondition(lambda self: not self.open_orders)
    @rule(digest=st.sampled_from(DIGESTS))
    def deploy_in_peace(self, digest):
        """A deploy is ordered when there is none, and nothing hinders it for a while."""
        self.give_an_order("ctl", False, digest)
        self.look_who_serves()
        self.carry_on(range(MOST_WORKERS), 2)

    @rule(
        trigger=st.sampled_from(["watch", "ctl"]),
        force=st.booleans(),
        digest=st.none() | st.sampled_from(DIGESTS),
        hold=st.sampled_from([0.0, 0.0, 3.0]),
    )
    def give_an_order(self, trigger, force, digest, hold=0.0, back_to=0):
        """Somebody orders a deploy, and the source may be read at once."""
        self.order_count += 1
        order = Order(str(self.order_count), trigger, force, "", hold=hold, back_to=back_to)
        self.open_orders[order.id] = order
        self.perform(self.coordinator.order(order, self.now))
        while self.reads and digest is not None:
            self.read_the_source(digest)

    @rule(index=st.integers(0, 20), found=st.booleans(), peace=st.booleans())
    def go_back(self, index, found, peace):
        """A rollback to what was committed once is ordered, and its snapshot may still be there."""
        number, digest = sorted(self.history)[index % len(self.history)]
        self.give_an_order("rollback", False, digest if found else None, back_to=number)
        if peace:
            self.look_who_serves()
            self.carry_on(range(MOST_WORKERS), 2)

    @precondition(lambda self: self.recorded.aside)
    @rule(index=st.integers(0, 3))
    def touch_what_is_set_aside(self, index):
        """The watch sees what was rolled back from once more, and must leave it alone."""
        busy = bool(self.open_orders)
        before, aside = self.recorded, self.recorded.aside
        self.give_an_order("watch", False, aside[index % len(aside)])
        if not busy:
            assert self.recorded == before
            assert not self.open_orders

    @precondition(lambda self: self.open_orders)
    @rule(index=st.integers(0, 1))
    def give_the_word(self, index):
        """An order need not be held any longer, or at all."""
        order = sorted(self.open_orders)[index % len(self.open_orders)]
        self.words.add(order)
        self.perform(self.coordinator.word(order, self.now))

    @precondition(lambda self: self.open_orders)
    @rule(index=st.integers(0, 1))
    def withdraw(self, index):
        """An order is called off."""
        order = sorted(self.open_orders)[index % len(self.open_orders)]
        self.perform(self.coordinator.withdraw(order, "called off", self.now))

    @precondition(lambda self: self.open_orders)
    @rule(who=st.sets(st.integers(0, MOST_WORKERS - 1)))
    def hold_one(self, who):
        """A deploy goes on until it is held, if nothing hinders it, and perhaps some die then."""
        self.look_who_serves()
        self.carry_on(range(MOST_WORKERS), 2)
        if self.coordinator.phase is Phase.HOLDING:
            for agent in [agent for index, agent in enumerate(self.agents) if index in who]:
                self.agents.remove(agent)
                self.disconnect(agent, True)

    @precondition(lambda self: self.reads)
    @rule(digest=st.sampled_from(DIGESTS))
    def read_the_source(self, digest):
        """A snapshot that was asked for is taken, or found, where an order wants it again."""
        self.reads -= 1
        running = self.coordinator.statistics().running
        order = self.open_orders.get(running)
        if order is not None and order.back_to:
            digest = dict(self.history)[order.back_to]
        self.perform(self.coordinator.snapshot_taken(digest, self.now, 0.0))

    @precondition(lambda self: self.reads)
    @rule()
    def fail_to_read(self):
        """A snapshot that was asked for can't be taken."""
        self.reads -= 1
        self.perform(self.coordinator.snapshot_failed("invalid syntax", "  ^", self.now))

    @precondition(lambda self: len(self.agents) < MOST_WORKERS)
    @rule(booted=st.booleans(), connect=st.booleans())
    def fork(self, booted, connect):
        """A worker starts; it boots the recorded release, before it connects or after."""
        self.pids += 1
        agent = Agent(self.pids, self.recorded if booted else None)
        self.agents.append(agent)
        if connect:
            self.connect(agent)

    @precondition(lambda self: self.agents)
    @rule(index=st.integers(0, MOST_WORKERS), report=st.booleans())
    def kill(self, index, report):
        """A worker dies."""
        agent = self.agent(index)
        self.agents.remove(agent)
        noticed = report and not self.unreported
        before = self.coordinator.last
        self.disconnect(agent, report)
        if noticed and agent.building is None and agent.prepared is None:
            assert self.coordinator.last == before, "it had not even begun"

    @precondition(lambda self: self.agents)
    @rule(index=st.integers(0, MOST_WORKERS), report=st.booleans())
    def leave(self, index, report):
        """A worker ends in good order, and says so if it is connected."""
        agent = self.agent(index)
        self.agents.remove(agent)
        if agent.connection is not None:
            self.perform(self.coordinator.leaving(agent.connection, self.now))
        self.disconnect(agent, report)

    @precondition(lambda self: self.agents)
    @rule(index=st.integers(0, MOST_WORKERS), report=st.booleans(), again=st.booleans())
    def lose_connection(self, index, report, again):
        """A connection breaks; the agent may connect again before that is noticed."""
        agent = self.agent(index)
        self.disconnect(agent, report)
        if again:
            self.connect(agent)

    @precondition(lambda self: any(agent.connection is None for agent in self.agents))
    @rule()
    def connect_again(self):
        """All agents that are not connected connect."""
        for agent in self.agents:
            if agent.connection is None:
                self.connect(agent)

    @precondition(lambda self: self.unreported)
    @rule()
    def notice_loss(self):
        """A broken connection is noticed."""
        self.perform(self.coordinator.gone(self.unreported.pop(0), self.now))

    def connect(self, agent):
        """Follow what is recorded, give up what is half built, then say Hello."""
        agent.building = None
        if agent.current is not None:
            agent.follow(self.recorded)
        self.connections += 1
        agent.connection, agent.inbox = self.connections, []
        hello = Hello(agent.pid, agent.current, agent.prepared)
        self.perform(self.coordinator.hello(agent.connection, hello, self.now))

    def disconnect(self, agent, report):
        """Break a connection; what was on its way is lost."""
        connection, agent.connection, agent.inbox = agent.connection, None, []
        if connection is not None:
            self.unreported.append(connection)
            if report:
                self.notice_loss()

    @precondition(lambda self: any(agent.inbox for agent in self.agents))
    @rule(index=st.integers(0, MOST_WORKERS), count=st.integers(1, 5))
    def obey(self, index, count):
        """A worker does the next things it was told."""
        agents = [agent for agent in self.agents if agent.inbox]
        agent = agents[index % len(agents)]
        for _ in range(count):
            if agent.inbox:
                self.handle(agent, agent.inbox.pop(0))

    def handle(self, agent, message):
        """What an agent does with a message."""
        if isinstance(message, Welcome):
            if agent.follow(message.committed):
                self.say(agent, Committed(agent.current.number, 1))
        elif isinstance(message, Prepare):
            agent.building, agent.prepared, agent.look = message.release, None, message.look
            self.say(agent, Building(message.release.number, Step.BUILDING, 0, 0))
        elif isinstance(message, Commit):
            agent.follow(self.recorded)
            self.say(agent, Committed(agent.current.number, 1))
        elif isinstance(message, Abort):
            for name in ("building", "prepared"):
                held = getattr(agent, name)
                if held is not None and held.number == message.release:
                    setattr(agent, name, None)

    @precondition(lambda self: any(agent.building and agent.look for agent in self.agents))
    @rule()
    def look(self):
        """Who builds first has built, and looks at the scope for all."""
        for agent in self.agents:
            if agent.building and agent.look:
                self.say(agent, Building(agent.building.number, Step.LOOKING, 0, 0))

    @precondition(lambda self: any(agent.building for agent in self.agents))
    @rule(
        good=st.sampled_from([True, True, True, False]),
        everybody=st.booleans(),
        additions=st.just(()) | st.lists(st.sampled_from(ADDITIONS)).map(tuple),
    )
    def finish_build(self, good, everybody, additions):
        """A build ends well or badly, perhaps with its scope too small, in one worker or in all."""
        for agent in [agent for agent in self.agents if agent.building][: None if everybody else 1]:
            self.conclude(agent, good, additions)

    @precondition(lambda self: not self.open_orders)
    @rule(
        digest=st.sampled_from(DIGESTS),
        times=st.integers(1, len(ADDITIONS)),
        canary=st.booleans(),
        read=st.booleans(),
    )
    def deploy_what_lacks_something(self, digest, times, canary, read):
        """A deploy is ordered, and its builds find one thing after the other to be missing."""
        self.give_an_order("ctl", True, digest)
        self.look_who_serves()
        for addition in ADDITIONS[:times]:
            self.hear_all()
            if not canary:
                self.carry_on(range(1), 1)
                self.hear_all()
            for agent in [agent for agent in self.agents if agent.building]:
                self.conclude(agent, False, (addition,))
            while self.reads and (read or addition is not ADDITIONS[times - 1]):
                self.read_the_source(digest)

    def hear_all(self):
        """Everybody hears what there is to hear, and no build ends."""
        for agent in self.agents:
            while agent.inbox:
                self.handle(agent, agent.inbox.pop(0))

    def conclude(self, agent, good, additions=()):
        """End the build of one worker, if it was not told to drop it meanwhile."""
        release, agent.building = agent.building, None
        if release is None:
            return
        if good:
            agent.prepared = release
            if agent.look:
                self.looked_at.add((release.number, release.digest))
            self.say(agent, Ready(release.number, 0.1))
        else:
            self.say(agent, Failed(release.number, "no", "Traceback", additions))

    def say(self, agent, message):
        """Send a message, if connected."""
        if agent.connection is not None:
            method = getattr(self.coordinator, type(message).__name__.lower())
            self.perform(method(agent.connection, message, self.now))

    @rule()
    def look_who_serves(self):
        """The driver refreshes the set of serving processes."""
        self.serving = frozenset(agent.pid for agent in self.agents if agent.current is not None)
        self.perform(self.coordinator.serving(self.serving, self.now))

    @rule(seconds=st.sampled_from([0.1, 0.1, 0.1, 0.6, 5.0, 70.0]))
    def let_time_pass(self, seconds):
        """Time passes, and the coordinator may be told late."""
        self.now += seconds
        self.perform(self.coordinator.tick(self.now))

    @rule()
    def fill_the_disk(self):
        """The next Record fails."""
        self.disk_full = True

    @rule(ahead=st.integers(-2, 2), index=st.integers(0, 2 * MOST_WORKERS))
    def babble(self, ahead, index):
        """Messages come about releases that their worker was not told to build."""
        number = max(1, self.recorded.number + ahead)
        agent = self.agents[index] if index < len(self.agents) else None
        connection = agent.connection if agent is not None else self.connections + index
        if connection is None:
            return
        known = {agent.building, agent.prepared, agent.current} if agent is not None else set()
        told = {m.release for m in agent.inbox if isinstance(m, Prepare)} if agent else set()
        if number in {release.number for release in known | told if release is not None}:
            return
        if number != self.coordinator.release.number:
            for message in (
                Building(number, Step.BUILDING, 1, 0),
                Ready(number, 0.1),
                Failed(number, "x", ""),
                Committed(number, 1),
            ):
                method = getattr(self.coordinator, type(message).__name__.lower())
                self.perform(method(connection, message, self.now))
        if agent is None and connection not in self.unreported:
            self.perform(self.coordinator.gone(connection, self.now))
        self.perform(self.coordinator.record_failed("nothing was asked", self.now))
        if not self.reads:
            self.perform(self.coordinator.snapshot_taken("noise", self.now, 0.0))
            self.perform(self.coordinator.snapshot_failed("noise", "", self.now))

    @rule()
    def kill_the_coordinator(self):
        """The coordinator dies and is started again from what is recorded; its orders are lost."""
        self.open_orders.clear()
        self.unreported.clear()
        self.start()
        for agent in self.agents:
            agent.connection, agent.inbox = None, []

    # -- what must hold

    @invariant()
    def no_worker_runs_what_was_never_recorded(self):
        """Every release that a worker serves was committed, and the coordinator knows which is."""
        for agent in self.agents:
            if agent.current is not None:
                assert (agent.current.number, agent.current.digest) in self.history
        assert self.coordinator.release == self.recorded

    @invariant()
    def every_order_is_served_waiting_or_reported(self):
        """The orders without an outcome are the one being served and the one that waits."""
        statistics = self.coordinator.statistics()
        running = {statistics.running, statistics.waiting} - {None}
        assert running == self.open_orders.keys()
        assert (statistics.phase is Phase.IDLE) is (not running)

    @invariant()
    def nothing_that_may_be_read_is_swept(self):
        """The snapshots of what connected workers serve or were told to build are needed."""
        needed = self.coordinator.needed()
        assert self.recorded.digest in needed
        known = {one.worker for one in self.coordinator.participants}
        for agent in self.agents:
            if agent.connection in known and agent.current is not None and not agent.inbox:
                assert agent.current.digest in needed

    @invariant()
    def deadlines_lead_to_idle(self):
        """With nobody answering, ticking from deadline to deadline ends every deploy."""
        coordinator = copy.deepcopy(self.coordinator)
        open_orders = set(self.open_orders)
        for _ in range(12):
            deadline = coordinator.next_deadline()
            if deadline is None:
                break
            actions = coordinator.tick(max(deadline, self.now))
            open_orders -= {one.order.id for one in actions if isinstance(one, Report)}
        assert coordinator.phase is Phase.IDLE
        assert not open_orders

    def teardown(self):
        """Once everything is heard, all run the recorded release, and the next deploy works."""
        self.settle()
        self.check_agreement()
        if self.agents:
            before = self.recorded.number
            self.give_an_order("ctl", True, "code 3")
            self.settle()
            assert self.coordinator.last is not None
            assert self.coordinator.last.outcome == Outcome.COMMITTED
            assert self.recorded.number > before
            self.check_agreement()

    def settle(self):
        """Let everybody hear and do what there is to hear and do."""
        self.disk_full = False
        for _ in range(200):
            while self.unreported:
                self.notice_loss()
            for agent in self.agents:
                if agent.connection is None:
                    self.connect(agent)
            self.carry_on(range(MOST_WORKERS), 1)
            while self.reads:
                self.read_the_source("code 3")
            self.look_who_serves()
            if self.coordinator.phase is Phase.IDLE and not any(one.inbox for one in self.agents):
                return
            self.let_time_pass(0.1 if self.agents else 70.0)
        raise AssertionError(f"{self.coordinator} does not come to rest")

    def check_agreement(self):
        """No order is open, and every worker runs the recorded release and holds no other."""
        assert not self.open_orders
        for agent in self.agents:
            assert agent.current == self.recorded
            assert agent.prepared is None
        assert {one.pid for one in self.coordinator.participants} == {
            agent.pid for agent in self.agents
        }
        for one in self.coordinator.participants:
            assert one.release == self.recorded.number


TestDeploys = Deploys.TestCase
TestDeploys.__doc__ = "Whatever dies whenever: all workers or none, and an outcome for each order."
TestDeploys.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

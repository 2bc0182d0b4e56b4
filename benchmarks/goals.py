"""What is to be reached, on two cores, and why it isn't where it isn't."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """One figure's limit.

    :ivar least: it is the least that is good, rather than the most.
    :ivar reason: why it is missed; shown only where it is.
    :ivar steady: it is much the same in every run, so that a quick one tells gross mistakes.
    """

    what: str
    limit: float
    unit: str = ""
    least: bool = False
    reason: str = ""
    steady: bool = False

    def met(self, figure: float) -> bool:
        """Tell whether ``figure`` is good enough."""
        return figure >= self.limit if self.least else figure <= self.limit

    def shown(self, figure: float) -> str:
        """Return ``figure`` with its unit."""
        digits = 3 if not self.unit else 0 if abs(figure) >= 100 or self.unit == "n" else 1
        number = f"{figure:,.{digits}f}"
        return number if self.unit in ("", "n") else f"{number} {self.unit}"

    def limit_shown(self) -> str:
        """Return the limit with its unit, and which side of it is good."""
        return f"{'≥' if self.least else '≤'} {self.shown(self.limit)}"

    def better(self, one: float, other: float) -> float:
        """Return the better one of two figures; of two counts of what is wrong the worse one."""
        return max(one, other) if self.least or self.unit == "n" else min(one, other)

    def grossly_worse(self, figure: float, known: float) -> bool:
        """Tell whether ``figure`` is worse than a known one by a factor of 2, or by more.

        What is within its limit is never grossly worse.
        """
        if not self.steady or self.met(figure):
            return False
        return figure < known / 2 if self.least else figure > known * 2


def _throughput(subject: str) -> Goal:
    return Goal(
        f"throughput against gunicorn's, {subject}, gthread, median of the rounds",
        0.99,
        least=True,
        steady=True,
        reason="What a request costs more is what the middleware takes, against all the rest.",
    )


def _deploying(subject: str, limit: float, reason: str = "") -> dict[str, Goal]:
    return {
        f"latency {subject} {worker} {figure}": Goal(
            f"{words} during deploys, beyond that without, {subject}, {worker}",
            limit,
            "ms",
            reason=_GEVENT if worker == "gevent" else reason,
        )
        for worker in ("gthread", "gevent")
        for figure, words in (("p99.9", "p99.9"), ("slowest", "slowest request"))
    }


_GEVENT = """\
gevent runs requests and the build on one thread: while a module is imported nothing else runs in
that worker. A build lets the others run between two modules, and can't within one. The longer they
then take, the longer it works before it does so again: after each module, it took many times as
long."""

_BUILD = """\
A request that needs the interpreter's lock while a build has it waits for its turn: half a
millisecond, since a build has threads take turns that often, each time that the request has given
the lock away; and a module's compiled parts don't give it away at all."""

_COLLECTION = """\
A retired generation is collected in one pass of the garbage collector, which has the
interpreter's lock for some 45 ms where it is Django's, most of that to free what nobody needs any
more. It waits for a moment in which no request is under way, for 0.4 s at most; one that comes
just then waits for the end of the pass. What was there before the application is frozen, which
makes the pass shorter by a fifth. To put it off while a build runs measured no better; and to
take modules apart one by one before would break code that somebody still holds."""

GOALS: dict[str, Goal] = {
    **{f"throughput {subject}": _throughput(subject) for subject in ("nothing", "flask", "django")},
    "middleware list": Goal(
        "the middleware alone, list body",
        400,
        "ns",
        reason="""\
A request is entered into its generation's leases, runs in that generation's context of its thread,
and is taken out again when its body is closed. Written out in one function, without an object for
the lease and with one look for the context, that is half of what it was. What is left is the time
that names the lease, two steps in a dict, `Context.run` and a list with a finalizer of its own.""",
    ),
    **_deploying("flask", 10, _BUILD),
    **_deploying("django", 10, _COLLECTION),
    **_deploying("import", 25, _BUILD),
    "offences": Goal("failed requests and closed connections, all deploys under load", 0, "n"),
    "freshness flask": Goal(
        "file saved to first new response, beyond the bare import, flask",
        50,
        "ms",
        steady=True,
        reason="""\
The file watch waits for 25 ms of silence, so that many files written one after the other are one
deploy. Before the first worker goes live all have built, one of them first: the others begin when
it only looks at its scope any more. Each build compares what it may have replaced in the standard
library, for some 4 ms.""",
    ),
    "freshness django": Goal(
        "file saved to first new response, beyond the bare import, django",
        50,
        "ms",
        steady=True,
        reason="""\
Before the first worker goes live every worker has built, one of them alone at first, so there are
two builds one after the other; and a build pauses between modules while requests run.""",
    ),
    "memory": Goal("memory after the last deploy, beyond that after the 20th", 3, "%"),
    "idle genwsgi gthread": Goal("idle connections closed by deploys, gthread", 0, "n"),
    "idle genwsgi gevent": Goal("idle connections closed by deploys, gevent", 0, "n"),
    "growth modules": Goal("time per module with 5,000 modules, against that with 1,000", 1.25),
    "growth workers": Goal(
        "the coordinator's processor time with 8 workers, against that with one",
        1.5,
        reason="""\
The coordinator sends each worker two messages for a deploy and hears some six of it, at 0.1 ms or
less each. From two workers on it is nearly flat: it looks for workers that have died ten times a
second and not at each message, and hears how far a build is five times a second.""",
    ),
    "sync deploys": Goal("deploys that a sync of many files is, at most", 1, "n"),
}

"""Where updates come from: the broker's messages and changes of the files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from genwsgi.deploy.protocol import Outcome
from genwsgi.hotupdate.settings import Configuration
from genwsgi.hotupdate.updater import Request, Update, Updater
from genwsgi.hotupdate.versions import Version
from genwsgi.triggers.registry import Trigger
from genwsgi.triggers.watch import Change, WatchTrigger

if TYPE_CHECKING:
    from genwsgi.triggers.amqp import builder

log = logging.getLogger("genwsgi")

#: How long to wait for a trigger's threads, in seconds.
CLOSE = 5.0


class Listening:
    """The triggers of one program.  Started and stopped by one thread at a time."""

    def __init__(self, updater: Updater, configuration: Configuration) -> None:
        self.configuration = configuration
        self._updater = updater
        self._triggers: dict[str, Trigger] = {}
        self._watched: list[str] = []
        self._stopped = False
        # One object, by which the updater is told to forget it.
        self._callback = self._follow

    def start(self) -> None:
        """Start the triggers: what happens after the return leads to an update."""
        if self.configuration.watch:
            self._watch()
            self._updater.on_update(self._callback)
        if self.configuration.amqp is not None:
            self._listen()

    def stop(self) -> None:
        """Stop the triggers.  Any thread, any number of times."""
        self.forsake()
        triggers, self._triggers = self._triggers, {}
        for trigger in triggers.values():
            trigger.stop()
        for trigger in triggers.values():
            trigger.join(CLOSE)

    def forsake(self) -> None:
        """Follow no update, and leave the triggers as they are: they may be another process's."""
        self._stopped = True
        self._updater.forget(self._callback)

    def status(self) -> dict[str, dict[str, object]]:
        """Return how each trigger stands, by its name.  Any thread."""
        return {name: trigger.status() for name, trigger in self._triggers.copy().items()}

    def _watch(self) -> None:
        self._watched = self._updater.folders()
        trigger = WatchTrigger(
            self._watched, self._on_change, polling=self.configuration.polling, log=log
        )
        trigger.start()
        before, self._triggers["watch"] = self._triggers.get("watch"), trigger
        if before is not None:
            before.stop()
        if self._stopped:  # meanwhile, by another thread that may not have seen this one
            trigger.stop()

    def _on_change(self, change: Change) -> None:
        touched = tuple(os.path.realpath(path) for path in change.paths)
        self._updater.ask(Request(touched=touched, source="watch"))

    def _follow(self, _old: Version, _new: Version) -> None:
        """An update may have come from another folder: it is to be watched from now on."""
        if not self._stopped and self._updater.folders() != self._watched:
            self._watch()

    def _listen(self) -> None:
        from genwsgi.triggers.amqp.listener import Listener

        settings = self.configuration.amqp
        assert settings is not None
        # What pika says of a broker that is away is said in one line by the listener.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        if settings.allow_unsigned:
            log.info(
                "hotupdate obeys unsigned orders by %s on %s, for code %s %s; give key_file to "
                "believe signed ones only",
                settings.exchange,
                settings.shown,
                "below" if settings.deep else "in the folders of",
                ", ".join(settings.roots),
            )
        listener = Listener(settings, ProgramBuilder(self._updater), log)
        listener.start()
        self._triggers["amqp"] = listener


class ProgramBuilder:
    """What the broker's listener has its requests made by."""

    #: An order may name the application that it is for; a program has no such name, so it is none.
    target = ""

    def __init__(self, updater: Updater) -> None:
        self._updater = updater

    def request(self, request: builder.Request, tell: Callable[[builder.Result], None]) -> None:
        """Have an update made; the updater's thread calls ``tell``."""
        from genwsgi.triggers.amqp.builder import Result

        if request.hold:
            reason = "only servers hold a release ready; this program makes its updates at once"
            tell(Result(Outcome.REFUSED, error=reason))
            return

        def told(update: Update) -> None:
            number = update.version
            tell(Result(update.outcome, number, number, update.seconds, update.reason))

        self._updater.ask(
            Request(request.modules, request.path, source=f"amqp order {request.id}", tell=told)
        )

    def withdraw(self, order: str, reason: str) -> None:
        """Nothing is ever held here."""

    def committed(self) -> int:
        """The number of the current version."""
        return self._updater.versions.current.number

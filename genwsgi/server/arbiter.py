"""gunicorn's arbiter with a coordinator at its side.

No threads here: the master forks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

import genwsgi
from genwsgi.deploy.problems import explained
from genwsgi.deploy.server import WORKERS_LACK, WORKERS_START
from genwsgi.server import metrics, restart, systemd
from genwsgi.server.accepting import patient
from genwsgi.server.child import ending
from genwsgi.server.logs import join_error_log
from genwsgi.server.supervisor import CoordinatorProcess

if TYPE_CHECKING:
    from genwsgi.server.application import GenwsgiApplication


#: An exit status that no process can have.
NO_STATUS = -1

#: So many workers, or two for each that there are to be, end before any has served: no other will.
FUTILE = 6

#: What a worker is told by signals.
_FOR_WORKERS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)

_MAIN = os.path.realpath(os.path.join(os.path.dirname(genwsgi.__file__), "__main__.py"))


class _Replaced(Exception):
    """New workers are started, and the old ones told to end."""


class GenwsgiArbiter(Arbiter):
    """Starts from a snapshot, keeps a coordinator running, and takes SIGHUP for a deploy.

    gunicorn's own reload, which replaces the workers, stays what :meth:`reload` does.
    """

    app: GenwsgiApplication

    def __init__(self, app: GenwsgiApplication) -> None:
        super().__init__(app)
        if os.path.realpath(sys.argv[0]) == _MAIN:
            # `python -m genwsgi`, which SIGUSR2 would start again by the file's path: then the
            # first place to look for the application's modules would be this package.
            self.START_CTX["args"] = [sys.executable, "-m", "genwsgi", *sys.argv[1:]]
        self._coordinator: CoordinatorProcess | None = None
        # Remembered here as well: the run directory may be lost.
        self._served = False
        # Why the probe failed, until that is in the log.
        self._unsaid = ""
        self._announcer = systemd.take(os.environ)
        # Where the coordinator says how it stands, and where metrics are asked for.
        self._ear: systemd.Ear | None = None
        self._metrics: socket.socket | None = None
        # How many workers have ended, while none has served.
        self._futile = 0
        # Whether the log has been told that no worker can be started.
        self._starved = False
        # Whether gunicorn's reload is under way.
        self._replacing = False

    def setup(self, app: GenwsgiApplication) -> None:
        """Take the configuration, with workers that outlive a shortage of descriptors."""
        super().setup(app)
        join_error_log()
        self.worker_class = patient(self.cfg.worker_class)

    def run(self) -> None:
        """Serve until told to stop, and leave nothing behind."""
        master = os.getpid()
        try:
            super().run()
        except SystemExit as end:
            # A forked worker leaves through here as well: with 0 if it was told to, or recycled.
            if os.getpid() != master and not end.code:
                self.app.leave()
            raise
        finally:
            # A worker has nothing to clear away.
            if os.getpid() == master:
                if self._metrics is not None:
                    # The path is the other server's, if there is one (SIGUSR2).
                    metrics.close(self._metrics, alone=self.reexec_pid == self.master_pid == 0)
                if self._coordinator is not None:
                    self._coordinator.stop()
                self.app.close()

    def start(self) -> None:
        """Take the first snapshot, before a port is bound or a worker forked."""
        if self._announcer is not None:
            self._ear = self.app.handed["ear"] = systemd.Ear()
            self._announcer.begin()
        self._listen_for_scrapes()
        # gunicorn's own exit status for those who tell it to stop.
        with ending(lambda _signal: 0) as kept:
            report = self.app.open()
        self._unsaid = report.reason
        if not report.met:
            self._say_what_is_unknown()
        super().start()
        assert self.app.directory is not None
        self._coordinator = self.app.coordinator = CoordinatorProcess(
            self.app.told,
            self.cfg.chdir,
            self.log,
            label=self.app.directory.path,
            handed=self.app.handed.values(),
        )
        if self._ear is not None:
            self._ear.wake(self.wakeup)
        if self._metrics is not None:
            self.log.info("Metrics at: %s", metrics.where(self._metrics))
        self._coordinator.ensure()
        if signal.SIGHUP in kept:
            self._coordinator.hang_up()

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """Take note of a signal; in a forked worker, of one that it can't obey yet.

        gunicorn would lose it there, and a server that is told to stop just then waits in vain for
        that worker, until the time to end in good order is over.
        """
        if os.getpid() == self.pid:
            super().signal(sig, frame)
        elif sig in _FOR_WORKERS:
            self.app.early.append(sig)

    def manage_workers(self) -> None:
        """Keep the coordinator and the workers running.  Called at least every second."""
        self.app.keep_directory()
        if self._coordinator is not None:
            self._coordinator.ensure()
        if self.app.directory is not None and self.app.directory.take_restart():
            self._replace_workers()
        if not self._served and self.app.directory is not None:
            self._served = self.app.directory.happened("served")
            if self._served:
                # Otherwise they have met the same, and one has shown it whole.
                self._say_what_is_unknown()
        super().manage_workers()
        if self._announcer is not None:
            self._tell_systemd(self._announcer)

    def _tell_systemd(self, announcer: systemd.Announcer) -> None:
        directory = self.app.directory
        if self._ear is None or directory is None:
            return
        for word in self._ear.words():
            announcer.hear(word)
        announcer.look(len(directory.serving() & set(self.WORKERS)), self.num_workers)

    def _replace_workers(self) -> None:
        """Read the configuration again and start new workers in the place of the old ones."""
        self.log.info("Replacing the workers; connections that are kept open end with them")
        try:
            with restart.or_as_before(self), contextlib.suppress(_Replaced):
                self._replacing = True
                self.reload()
        except (Exception, SystemExit) as error:
            if os.getpid() != self.pid:  # the end of a worker that has just been forked
                raise
            # gunicorn ends over a file that can't be loaded, and has told why.
            told = isinstance(error, SystemExit)
            self.log.error(
                "the configuration can't be %s: the workers stay as they are; mend it, and"
                " restart them once more",
                "loaded" if told else f"used ({restart.reason(error)})",
            )
        finally:
            self._replacing = False

    def _say_what_is_unknown(self) -> None:
        if self._unsaid:
            self.log.warning("what the scope may lack is not known: %s", self._unsaid)
        self._unsaid = ""

    def spawn_worker(self) -> int | None:
        """Start a worker; if the system refuses it, those there are serve on, and it is retried."""
        try:
            pid: int = super().spawn_worker()
        except Exception as error:
            if os.getpid() != self.pid:
                # The worker itself, which couldn't even say why it ends (to a closed pipe): it
                # must not go on as a second master.
                os._exit(Arbiter.WORKER_BOOT_ERROR)
            if not isinstance(error, OSError):
                raise
            reason = f"no worker can be started: {explained(error)}"
            if not self._served:
                raise HaltServer(reason, Arbiter.WORKER_BOOT_ERROR) from error
            if not self._starved:
                self.log.error("%s; it is tried again every second", reason)
            self._starved = True
            self._tell(WORKERS_LACK)
            return None
        if self._starved:
            self._starved = False
            self.log.info("workers can be started again")
            self._tell(WORKERS_START)
        return pid

    def _tell(self, what: bytes) -> None:
        if self._coordinator is not None:
            self._coordinator.tell(what)

    def reap_workers(self) -> None:
        """Reap workers, and say that they serve no more."""
        if self._replacing:
            # gunicorn waits here for the old ones, while it starts no other, kills none that hangs
            # and takes no signal: it may be half a minute until their last response is out.
            raise _Replaced
        if self._served or (self.app.directory and self.app.directory.happened("served")):
            # gunicorn halts the server for a worker that ends with one of these.  Code that was
            # deployed later may do so too, by os._exit(3), and must not end what others serve.
            self._bear_any_status()
        before = set(self.WORKERS)
        try:
            super().reap_workers()
        finally:
            if self.app.directory is not None:
                for pid in before - set(self.WORKERS):
                    self.app.directory.end_serving(pid)
        self._give_up_if_futile(len(before - set(self.WORKERS)))

    def _give_up_if_futile(self, ended: int) -> None:
        """End a start that gets nowhere, as gunicorn does for two exit statuses only."""
        if self.WORKER_BOOT_ERROR == NO_STATUS:
            return
        self._futile += ended
        if self._futile >= max(FUTILE, 2 * self.num_workers):
            raise HaltServer(
                f"{self._futile} workers have ended before any has served: what the application"
                " does when it is imported seems to end the process; the log says above with which"
                " status or signal",
                Arbiter.WORKER_BOOT_ERROR,
            )

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers."""
        # Where one has halted the server, the next would interrupt the halt.
        self._bear_any_status()
        if self._announcer is not None:
            self._announcer.stop()
        super().stop(graceful)

    def _bear_any_status(self) -> None:
        self.WORKER_BOOT_ERROR = self.APP_LOAD_ERROR = NO_STATUS

    def _listen_for_scrapes(self) -> None:
        if self.cfg.metrics is None:
            return
        listener = metrics.inherited(os.environ)
        if listener is None:
            listener = metrics.listen(self.cfg.metrics, self.cfg.uid, self.cfg.gid)
        self._metrics = self.app.handed["metrics"] = listener

    def reexec(self) -> None:
        """SIGUSR2: start a second server beside this one, which gives its metrics as well."""
        with metrics.inheritable(self._metrics, self.cfg.env_orig):
            super().reexec()

    def handle_hup(self) -> None:
        """SIGHUP is a deploy."""
        if self._coordinator is not None:
            self.log.info("Hang up: ordering a deploy")
            self._coordinator.hang_up()

    def handle_usr1(self) -> None:
        """Reopen the log files, the coordinator's too."""
        super().handle_usr1()
        if self._coordinator is not None:
            self._coordinator.signal(signal.SIGUSR1)

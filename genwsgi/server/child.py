"""One piece of work in a forked process of its own, which can't outlive its deadline or the master.

For the master, which has no threads: it waits here until the child is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from genwsgi.errors import GenwsgiError

#: What a child may report, in bytes.
MOST = 1 << 20

#: How long a killed child may take to be gone, in seconds.
REAP = 5.0

#: Between two looks at a child that says nothing, in seconds.
LOOK = 0.02

#: Signals that end the master.
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

#: Signals that would end it as well, before it knows better than the system what they are for.
_OTHERS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_PR_SET_PDEATHSIG = 1


class ChildError(GenwsgiError):
    """A child did not do its work; the text goes on where the child's name ends."""


def run_in_child(work: Callable[[], str], timeout: float) -> str:
    """Fork, call ``work`` in the child, and return what that returned.

    The child leads a process group of its own, all of which is gone when this returns.  It runs no
    exit handler of this process, and what it does not handle itself it does not survive.

    :param timeout: how long it may take, in seconds.
    :raises ChildError: it has returned nothing.
    """
    deadline = time.monotonic() + timeout
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or both would write what is waiting there
    read, write = os.pipe()
    master = os.getpid()
    handled = {*ENDS, *_OTHERS}
    # Until each of the two is where it can be ended in good order.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        child = os.fork()
        if not child:
            _be_the_child(work, master, read, write, before)
    except BaseException:
        os.close(write)
        os.close(read)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write)
        with contextlib.suppress(OSError):  # it has done so itself, or is gone
            os.setpgid(child, child)
        return _listen(child, read, deadline, timeout)
    finally:
        os.close(read)
        _end(child)


def die_with(master: int) -> None:
    """Have the system kill this process when its parent ``master`` ends.

    To be called again after a change of the user, which takes it back (prctl(2)).
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != master:
        os._exit(1)  # it ended before that


@contextlib.contextmanager
def ending(status: Callable[[int], int]) -> Iterator[list[int]]:
    """While the block runs, a signal that ends the master raises ``SystemExit``, once.

    Others that are for a running server are kept until there is one.

    :param status: gives the exit status for a signal.
    :returns: the list in which other signals are kept, in their order.
    """
    kept: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        for one in ENDS:
            signal.signal(one, signal.SIG_IGN)  # it ends already
        raise SystemExit(status(number))

    before = {one: signal.signal(one, end) for one in ENDS}
    for one in _OTHERS:
        before[one] = signal.signal(one, lambda number, _frame: kept.append(number))
    try:
        yield kept
    finally:
        for one, handler in before.items():
            signal.signal(one, handler if handler is not None else signal.SIG_DFL)


def _be_the_child(
    work: Callable[[], str], master: int, read: int, write: int, mask: Iterable[int]
) -> None:
    """Never returns, and lets nothing out."""
    status = 1
    try:
        os.close(read)
        os.setpgid(0, 0)
        die_with(master)
        for one in (*ENDS, *_OTHERS):
            signal.signal(one, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        report = memoryview(work().encode())
        while report:
            report = report[os.write(write, report) :]
        status = 0
    except BaseException:  # noqa: BLE001 -- it is shown, and nobody is left to raise it for
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _listen(child: int, read: int, deadline: float, timeout: float) -> str:
    """Return what the child reports, when it has ended."""
    os.set_blocking(read, False)
    said = bytearray()
    open_ = True
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ChildError(f"was not done within {timeout:g} s")
        # Whatever the child has started may hold the pipe open, so its end is looked for as well.
        if open_ and select.select([read], [], [], min(left, LOOK))[0]:
            open_ = _take(read, said)
        elif end := _how_it_ended(child):
            _take(read, said)
            if not said or end != _WELL:
                raise ChildError(end)
            return said.decode()
        elif not open_:
            time.sleep(0.001)


def _take(read: int, said: bytearray) -> bool:
    """Read what there is; return whether there may be more."""
    try:
        while data := os.read(read, 1 << 16):
            said += data
            if len(said) > MOST:
                raise ChildError(f"reported more than {MOST} bytes")
    except BlockingIOError:
        return True
    return False


_WELL = "ended and said nothing"


def _how_it_ended(child: int) -> str:
    """How the child ended, in words; empty while it runs.  It is not reaped yet."""
    try:
        found = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return _WELL  # SIGCHLD is ignored here: the system has reaped it
    if found is None:
        return ""
    if found.si_code != os.CLD_EXITED:
        return f"was killed by signal {found.si_status} ({signal.strsignal(found.si_status)})"
    return f"ended with status {found.si_status}" if found.si_status else _WELL


def _end(child: int) -> None:
    """Kill what is left of the child's process group, and reap the child."""
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(child, signal.SIGKILL)  # before it has its group
    deadline = time.monotonic() + REAP
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.001)

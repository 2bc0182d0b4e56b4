"""What many tests need: waiting for an event with a deadline, never by sleeping a fixed time."""

from __future__ import annotations

import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

#: Between two looks at a condition that nothing announces, in seconds.
GLANCE = 0.005


def wait_until(condition: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """Return the first true value of ``condition()``; fail after ``timeout`` seconds, naming it."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition!r}")
        time.sleep(GLANCE)


def unmeasured() -> dict[str, str]:
    """The environment of a process that is to be interrupted, without coverage's tracer.

    What a signal's handler raises may be raised in the tracer, whose lock then stays taken: the
    process would wait for it for ever.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open nothing more for a while."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Have the system cut all files of this process at ``size`` bytes, as a disk does that is full.

    The write that goes beyond raises ``OSError``, since Python ignores SIGXFSZ.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def handler_of_all() -> Iterator[tuple[threading.Event, threading.Lock]]:
    """A log handler of "gw-shared", as all code has it: set when it is asked, and its lock."""
    asked, free = threading.Event(), threading.Lock()

    class Handler(logging.NullHandler):
        # As in logging before Python 3.13.
        def handle(self, record: logging.LogRecord) -> bool:
            asked.set()
            free.acquire()
            try:
                return True
            finally:
                free.release()

    logger, handler = logging.getLogger("gw-shared"), Handler()
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield asked, free
    finally:
        logger.removeHandler(handler)

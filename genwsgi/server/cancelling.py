"""What ends a request in a worker of gunicorn's: its connection is cut, its code interrupted."""

from __future__ import annotations

import _socket
import contextlib
import gc
import socket
import sys
from functools import partial
from typing import Any

from genwsgi.errors import RequestCancelled
from genwsgi.generations.cancelling import Means, raise_in_thread, runs
from genwsgi.generations.generation import Generation
from genwsgi.generations.leases import Open
from genwsgi.isolation.asking import applications


def means() -> tuple[Means, ...]:
    """Return what there is in this process."""
    gevent: Any = sys.modules.get("gevent.monkey")
    greenlets = gevent is not None and gevent.is_module_patched("threading")
    return (cut, raise_in_greenlet if greenlets else partial(raise_in_thread, applications))


def cut(generation: Generation, lease: Open, _late: bool) -> bool:
    """Shut the connection of the request: whoever reads from it or writes to it fails at once.

    Not one of HTTP/2, which other requests share.
    """
    environ = lease.environ or {}
    connection = environ.get("gunicorn.socket")
    if connection is None or environ.get("HTTP_VERSION") == "2":
        return True
    # gevent's sockets have the system's inside; those of TLS would want to say goodbye first.
    inner = getattr(connection, "_sock", connection)
    with contextlib.suppress(OSError, TypeError):
        shut = _socket.socket.shutdown
        generation.leases.while_open(lease.since, shut, inner, socket.SHUT_RDWR)
    return True


def raise_in_greenlet(generation: Generation, lease: Open, _late: bool) -> bool:
    """Raise :class:`~genwsgi.errors.RequestCancelled` in the greenlet that runs the request."""
    greenlet: Any = sys.modules["greenlet"]
    hub: Any = sys.modules["gevent"].get_hub()
    for one in gc.get_objects():
        if isinstance(one, greenlet.greenlet) and runs(one.gr_frame, generation, lease):
            hub.loop.run_callback(_throw, one, generation, lease)
    return True


def _throw(greenlet: Any, generation: Generation, lease: Open) -> None:
    """Runs in the hub, whose greenlets wait for it: what it looks at stays so."""
    open_still = lease.since in generation.leases.taken
    if open_still and runs(greenlet.gr_frame, generation, lease):
        greenlet.throw(RequestCancelled)

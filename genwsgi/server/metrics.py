"""The address of the metrics: refused where it can't be, and bound by the master.

Without prometheus_client, which only the coordinator imports.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import stat
from collections.abc import Iterable, Iterator, MutableMapping

from gunicorn.util import parse_address

from genwsgi.errors import OptionError

#: An address as the socket module has it: a path, or a host and a port with perhaps more.
Address = str | tuple[str, int]

#: By which a server that is started again (SIGUSR2) is told which descriptor it inherits.
INHERITED = "GENWSGI_METRICS_FD"

_ANY = ("0.0.0.0", "::", "")


def parse(text: str) -> Address:
    """Return the address that ``unix:PATH`` or ``HOST:PORT`` means.

    :raises ValueError: it is neither.
    """
    if text.startswith("unix:") and len(text) > len("unix:"):
        path = text[len("unix:") :]
        return os.path.abspath("/" + path.lstrip("/") if path.startswith("//") else path)
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    found = parse_address(text)
    return (str(found[0]), int(found[1]))


def check(text: str, binds: Iterable[object]) -> None:
    """Refuse metrics at one of the addresses ``binds``, as gunicorn has them, or without support.

    :raises OptionError: one line.
    """
    address = parse(text)
    if any(_same(address, one) for one in binds):
        raise OptionError(
            f"--metrics {text} is where the application is served: give the metrics an address of "
            "their own, such as unix:/run/shop/metrics.sock"
        )
    if importlib.util.find_spec("prometheus_client") is None:
        raise OptionError(
            "--metrics needs the package prometheus_client: pip install '.[metrics]' where "
            "genwsgi's source is"
        )


def _same(one: Address, other: object) -> bool:
    if isinstance(one, str):
        return isinstance(other, str) and os.path.realpath(one) == os.path.realpath(other)
    if not isinstance(other, tuple) or one[1] != other[1] or not one[1]:  # 0 is any that is free
        return False
    return one[0] == other[0] or one[0] in _ANY or other[0] in _ANY


def listen(text: str, uid: int, gid: int) -> socket.socket:
    """Listen at the address, for a coordinator that will be the user ``uid``.

    A unix socket is that user's alone.  One that a killed server has left is replaced.

    :raises OptionError: somebody else listens there, or it can't be had; one line.
    """
    address = parse(text)
    try:
        return _unix(address, uid, gid) if isinstance(address, str) else _inet(*address)
    except OSError as error:
        raise OptionError(
            f"--metrics {text} can't be used: {error.strerror or error}; give another address, or "
            "end what uses it"
        ) from error


def inherited(environ: MutableMapping[str, str]) -> socket.socket | None:
    """Return the socket of the server that this one was started by, if that had one."""
    descriptor = environ.pop(INHERITED, "")
    if not descriptor.isdigit():
        return None
    with contextlib.suppress(OSError):
        found = socket.socket(fileno=int(descriptor))
        found.set_inheritable(False)
        return found
    return None


@contextlib.contextmanager
def inheritable(
    listener: socket.socket | None, environ: MutableMapping[str, str]
) -> Iterator[None]:
    """Have a server that is started meanwhile find ``listener``, if there is one."""
    if listener is None:
        yield
        return
    environ[INHERITED] = str(listener.fileno())
    listener.set_inheritable(True)
    try:
        yield
    finally:
        listener.set_inheritable(False)
        del environ[INHERITED]


def where(listener: socket.socket) -> str:
    """Say for people where it listens."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}/metrics"


def close(listener: socket.socket, *, alone: bool) -> None:
    """Close it, and remove a unix socket's path if no other server listens there too."""
    name = listener.getsockname()
    listener.close()
    if alone and isinstance(name, str):
        with contextlib.suppress(OSError):
            os.unlink(name)


def _inet(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    listener.setblocking(False)
    return listener


def _unix(path: str, uid: int, gid: int) -> socket.socket:
    if _left_over(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        if os.geteuid() == 0:
            # Whoever may write in its folder may have put a link in its place.
            os.chown(path, uid, gid, follow_symlinks=False)
        listener.listen()
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _left_over(path: str) -> bool:
    """Whether there is a socket at ``path`` at which nobody listens."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) != 0

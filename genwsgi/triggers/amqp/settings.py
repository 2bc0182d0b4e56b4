"""Where the broker is and whom to believe, checked before anything starts."""

from __future__ import annotations

import os
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from genwsgi.errors import OptionError
from genwsgi.triggers.amqp.hiding import HiddenURL, without_password
from genwsgi.triggers.amqp.signing import read_keys

#: The fanout exchange that orders come by.
EXCHANGE: Final = "genwsgi.hotupdate"

#: For how long a signed order is good, in seconds: a host that was away so long catches up.
WINDOW: Final = 3600.0

#: Seconds in which a connection that says nothing is taken for dead, roughly.
HEARTBEAT: Final = 10

#: Seconds that each step of connecting may take.
CONNECT: Final = 3.0

#: Seconds that a broker may keep a connection from publishing.
BLOCKED: Final = 15.0


@dataclass(frozen=True)
class Settings:
    """What a listener, or a sender, has to know.

    :ivar url: ``amqp://`` or ``amqps://``, with the password if there is one; see :attr:`shown`.
    :ivar keys: what signs; the first one signs, all are believed.
    :ivar allow_unsigned: obey messages without a signature as well.
    :ivar roots: the release roots, below which a path in a message must lie.
    :ivar deep: it may do so at any depth, or else only right in one of them.
    :ivar ca, cert, key: PEM files: who vouches for the broker, and who we are (TLS).
    :ivar window: for how long a signed order is good, in seconds.
    """

    url: str = field(repr=False)
    exchange: str = EXCHANGE
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    allow_unsigned: bool = False
    roots: tuple[str, ...] = ()
    deep: bool = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    window: float = WINDOW

    @property
    def control(self) -> str:
        """The exchange for what must not be kept for latecomers."""
        return f"{self.exchange}.control"

    @property
    def latest(self) -> str:
        """The queue that keeps the latest order for latecomers."""
        return f"{self.exchange}.latest"

    @property
    def shown(self) -> str:
        """The URL without the password."""
        return without_password(self.url)

    def parameters(self) -> Any:
        """Return what pika connects with."""
        import pika

        parameters = pika.URLParameters(self.url)
        parameters.heartbeat = HEARTBEAT
        parameters.socket_timeout = CONNECT
        parameters.stack_timeout = 2 * CONNECT
        parameters.blocked_connection_timeout = BLOCKED
        parameters.connection_attempts = 1
        parameters.client_properties = {"product": "genwsgi"}
        if self.url.startswith("amqps:"):
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
            parameters.ssl_options = pika.SSLOptions(context, parameters.host)
        return parameters


def check_url(url: str) -> None:
    """Refuse a URL that can't be meant, and parameters in it that can't be understood.

    :raises OptionError: it is no URL of a broker.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        usable = url.startswith(("amqp://", "amqps://")) and bool(parts.hostname)
        usable = usable and (parts.port is None or 0 < parts.port < 65536)
        if usable:
            import pika

            # A name that no resolver can be asked for is an error of its own each time (RFC 3490).
            str(pika.URLParameters(url).host).encode("idna")
    except Exception:  # noqa: BLE001 -- whatever it is that pika can't make of it
        usable = False
    if not usable:
        # Not the text itself: it may hold a password that can't be told from the rest.
        raise OptionError(
            "--amqp is no URL of a broker: write amqp://USER:PASSWORD@HOST:PORT/VHOST"
        )


def from_options(options: Mapping[str, Any], *, listens: bool = True) -> Settings | None:
    """Return the settings that genwsgi's options ask for; ``None``: they ask for no broker.

    :param options: the options by name; ``amqp_keys`` may hold what ``amqp_key_file`` names.
    :param listens: whether orders are to be believed, and not only to be given.
    :raises OptionError: they can't be used, or would have nobody's order believed.
    """
    url = options.get("amqp")
    if not url:
        given = [name for name in _ALONE if options.get(name)]
        if given and listens:
            flag = "--" + given[0].replace("_", "-")
            raise OptionError(f"{flag} without --amqp says nothing: add --amqp, or leave it out")
        return None
    check_url(url)
    ca, cert, key = (options.get(f"amqp_{name}") for name in ("ca", "cert", "key"))
    if (ca or cert or key) and not url.startswith("amqps:"):
        raise OptionError("--amqp-ca, --amqp-cert and --amqp-key are for amqps:// only")
    if key and not cert:
        raise OptionError(
            "--amqp-key without --amqp-cert: it is the certificate's; the key that signs orders is "
            "--amqp-key-file"
        )
    for name, path in (("ca", ca), ("cert", cert), ("key", key)):
        if path and not os.access(path, os.R_OK):
            raise OptionError(f"--amqp-{name} {path} can't be read")
    keys = tuple(map(bytes.fromhex, options.get("amqp_keys") or ()))
    if not keys and options.get("amqp_key_file"):
        keys = read_keys(options["amqp_key_file"])
    unsigned = bool(options.get("amqp_allow_unsigned"))
    if listens and not keys and not unsigned:
        raise OptionError(
            "--amqp without --amqp-key-file: nobody's order could be believed. Write a key "
            "(openssl rand -hex 32) into a file of mode 600, or add --amqp-allow-unsigned"
        )
    return Settings(
        url=url.reveal() if isinstance(url, HiddenURL) else url,
        exchange=options.get("amqp_exchange") or EXCHANGE,
        keys=keys,
        allow_unsigned=unsigned,
        roots=tuple(os.path.abspath(root) for root in options.get("release_root") or ()),
        ca=ca,
        cert=cert,
        key=key,
        window=options.get("amqp_window") or WINDOW,
    )


_ALONE: Final = (
    "amqp_key_file",
    "amqp_allow_unsigned",
    "amqp_ca",
    "amqp_cert",
    "amqp_key",
    "release_root",
)


def to_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return genwsgi's options for a broker as plain data, for the process that listens.

    The keys themselves are told, not their file: only the master may be able to read that.

    :param options: the options by name, already checked with :func:`from_options`.
    """
    settings = from_options(options)
    if settings is None:
        return {}
    return {
        "amqp": settings.url,
        "amqp_exchange": settings.exchange,
        "amqp_keys": [key.hex() for key in settings.keys],
        "amqp_allow_unsigned": settings.allow_unsigned,
        "amqp_window": settings.window,
        "amqp_ca": settings.ca and os.path.abspath(settings.ca),
        "amqp_cert": settings.cert and os.path.abspath(settings.cert),
        "amqp_key": settings.key and os.path.abspath(settings.key),
        "release_root": settings.roots,
    }

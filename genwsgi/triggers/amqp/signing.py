r"""Who may give an order: whoever has the key.

The signature of a message is the HMAC-SHA256 (RFC 2104) of its *canonical form* under the key, as
64 hexadecimal digits in lower case.  The canonical form is that of RFC 8785 (JSON Canonicalization
Scheme) without the field ``signature``: the other fields sorted by name, no white space, texts in
UTF-8 with nothing escaped but ``"``, ``\``, and what is below U+0020 (``\b \f \n \r \t``,
else ``\u00xx`` in lower case), whole numbers without a fraction.  So this is enough in Python::

    body = json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    message["signature"] = hmac.new(key, body.encode(), hashlib.sha256).hexdigest()

as long as times are whole seconds given as integers.

A key file holds one key in each line; the first signs, all are believed, so that a key can be
replaced without a moment in which orders are refused.  The answers of hosts are signed likewise.

Pure, but for :func:`read_keys`; any thread.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any, Final

from genwsgi.errors import OptionError
from genwsgi.triggers.amqp.message import Refusal

#: The shortest key that is taken for a secret, in bytes.
MIN_KEY: Final = 16

#: The largest key file that is read, in bytes.
MAX_KEYS: Final = 64 << 10

#: How far, in seconds, a clock of a sender may be ahead of this host's.
AHEAD: Final = 60.0


def canonical(fields: Mapping[str, Any]) -> bytes:
    """Return the canonical form of a message's object, its signature left out.

    :raises Refusal: it has none: a lone surrogate, or a number that not all languages write alike.
    """
    plain = {name: _plain(value) for name, value in fields.items() if name != "signature"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal("a text in it has no UTF-8, so that it can't be signed") from error


def _plain(value: object) -> object:
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return int(value)
        if not 1e-6 <= abs(value) < 1e15:
            raise Refusal("a number in it is out of the bounds that all languages write alike")
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def sign(fields: Mapping[str, Any], key: bytes) -> str:
    """Return the signature of a message's object."""
    return hmac.new(key, canonical(fields), hashlib.sha256).hexdigest()


def signed(fields: Mapping[str, Any], keys: Iterable[bytes]) -> dict[str, Any]:
    """Return the object with its signature under the first key, or as it is if there is no key."""
    for key in keys:
        return {**fields, "signature": sign(fields, key)}
    return dict(fields)


def is_signed(fields: Mapping[str, Any], keys: Iterable[bytes]) -> bool:
    """Whether the object bears a signature by one of ``keys``.  A near miss takes no longer.

    :raises Refusal: what has no canonical form bears none.
    """
    given = fields.get("signature")
    if not isinstance(given, str) or not given.isascii():
        return False
    try:
        return any(hmac.compare_digest(sign(fields, key), given) for key in keys)
    except RecursionError as error:
        raise Refusal("it is nested too deeply to be signed") from error


def check_time(issued_at: float | None, expires: float | None, now: float, window: float) -> None:
    """Refuse what was given too long ago, or from the future, or has expired.

    :param now: the time of day, in seconds since the epoch.
    :param window: for how long an order is good, in seconds; infinite where it may say nothing of
        when it was given.
    :raises Refusal: quietly if it is merely old, which is what a latecomer finds.
    """
    if expires is not None and now >= expires:
        raise Refusal(f"it has expired {now - expires:.0f} s ago", quiet=True)
    if issued_at is None:
        if window != float("inf"):
            raise Refusal("it is signed and has no issued_at, so that it could be sent again")
        return
    if issued_at > now + AHEAD:
        raise Refusal(f"it was issued {issued_at - now:.0f} s in the future: compare the clocks")
    if issued_at < now - window:
        age = f"{now - issued_at:.0f} s ago, longer than the {window:g} s that an order is good for"
        raise Refusal(f"it was issued {age}", quiet=True)


def read_keys(path: str) -> tuple[bytes, ...]:
    """Read a key file: one key in each line, the first signs.

    :raises OptionError: it can't be read, others may read it, or it holds no key.
    """
    try:
        # Not for ever, if it is a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise OptionError(f"the key file {path} can't be read: {error.strerror}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OptionError(f"the key file {path} is not a file")
    with open(descriptor, "rb") as file:
        if found.st_uid not in {0, os.geteuid()}:
            raise OptionError(
                f"the key file {path} belongs to user {found.st_uid}: chown it to this user or root"
            )
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise OptionError(f"the key file {path} is open to others (mode {mode:03o}): chmod 600")
        keys = tuple(line.strip() for line in file.read(MAX_KEYS).splitlines() if line.strip())
    if not keys:
        raise OptionError(f"the key file {path} is empty: write one with openssl rand -hex 32")
    if any(len(key) < MIN_KEY for key in keys):
        raise OptionError(f"the key file {path} holds a key of less than {MIN_KEY} characters")
    return keys

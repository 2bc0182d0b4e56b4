"""Messages as bytes: messages in, frames out, and back.

Pure: nothing here reads, writes or waits.  A frame is the length of its body as four bytes, most
significant first, then the body: one JSON object (RFC 8259) in UTF-8 that names its ``kind`` and
has exactly that message's fields.

All of it may be used from any thread; one :class:`Decoder` from one thread at a time.
"""

from __future__ import annotations

import json
import math
import reprlib
import types
import typing
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import Final

from genwsgi.deploy import control, protocol
from genwsgi.errors import ProtocolError

T = typing.TypeVar("T")

Message = protocol.FromWorker | protocol.ToWorker | control.FromClient | control.ToClient

#: What a message is called in its frame.
KINDS: Final[dict[str, type]] = {
    "hello": protocol.Hello,
    "building": protocol.Building,
    "ready": protocol.Ready,
    "failed": protocol.Failed,
    "committed": protocol.Committed,
    "generations": protocol.Generations,
    "problems": protocol.Problems,
    "counts": protocol.Counts,
    "cancelled": protocol.Cancelled,
    "leaving": protocol.Leaving,
    "welcome": protocol.Welcome,
    "prepare": protocol.Prepare,
    "commit": protocol.Commit,
    "abort": protocol.Abort,
    "tell": protocol.Tell,
    "cancel": protocol.Cancel,
    "order": protocol.OrderRequest,
    "rollback": protocol.RollbackRequest,
    "progress": protocol.Progress,
    "outcome": protocol.OrderOutcome,
    "status-request": control.StatusRequest,
    "status": control.Status,
    "history-request": control.HistoryRequest,
    "history": control.History,
    "diff-request": control.DiffRequest,
    "diff": control.Diff,
    "pause": control.PauseRequest,
    "restart": control.RestartRequest,
    "cancel-request": control.CancelRequest,
    "done": control.Done,
}

#: The largest body of a frame, in bytes.  Longer is refused before it is read.
MAX_FRAME: Final = 1 << 20
#: The room one text may take in a frame, in bytes; see :func:`clip`.
MAX_TEXT: Final = 64 << 10

_PREFIX: Final = 4
_MAX_INT: Final = (1 << 63) - 1
_KIND_OF: Final = {cls: kind for kind, cls in KINDS.items()}


def encode(message: Message) -> bytes:
    """Return ``message`` as one frame.

    :raises ProtocolError: it takes more than :data:`MAX_FRAME` bytes, or holds what JSON can't.
    """
    kind = _KIND_OF[type(message)]
    try:
        # ASCII: a lone surrogate (an undecodable file name in a traceback) has no UTF-8.
        body = json.dumps({"kind": kind, **asdict(message)}, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"message {kind!r} can't be sent: {error}") from error
    if len(body) > MAX_FRAME:
        raise ProtocolError(
            f"message {kind!r} can't be sent: it takes {len(body)} bytes, more than {MAX_FRAME};"
            " clip() its texts"
        )
    return len(body).to_bytes(_PREFIX, "big") + body


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """Return ``text``, cut in its middle so that it takes at most ``limit`` bytes of a frame.

    Both ends stay, the end more of it: there a traceback says what was raised.
    """
    if len(text) <= limit and _room(text) <= limit:
        return text
    mark = f"\n[... cut: {len(text)} characters were more than fit ...]\n"
    left = max(0, limit - _room(mark))
    head = _fitting(text, left // 4)
    backwards = _fitting(text[: -left - 1 : -1], left - _room(head))
    return head + mark + backwards[::-1]


def clean(text: str) -> str:
    """Return ``text`` with spaces for what would break a line or steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _room(text: str) -> int:
    """The bytes that ``text`` takes in a frame, without its quotes."""
    return len(json.dumps(text)) - 2


def _fitting(text: str, limit: int) -> str:
    """The longest start of ``text`` that takes at most ``limit`` bytes of a frame."""
    text = text[:limit]
    size = bisect_right(range(len(text) + 1), limit, key=lambda n: _room(text[:n])) - 1
    return text[:size]


class Decoder:
    """Turns bytes, however they were split on the way, back into messages.

    After an error it stays broken: where the next frame would begin is no longer known.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._broken: str | None = None

    def __repr__(self) -> str:
        state = f"broken: {self._broken}" if self._broken else f"{len(self._buffer)} bytes pending"
        return f"<Decoder, {state}>"

    def feed(self, data: bytes) -> list[Message]:
        """Take ``data`` and return the messages it completes, oldest first.

        :raises ProtocolError: the bytes are no message; close the connection.  Messages that the
            same bytes held before the fault are dropped with it.
        """
        if self._broken is not None:
            raise ProtocolError(f"connection is broken, close it: {self._broken}")
        self._buffer += data
        try:
            return [_decode(body) for body in self._frames()]
        except ProtocolError as error:
            self._broken = str(error)
            self._buffer.clear()
            raise

    def _frames(self) -> Iterable[bytes]:
        while len(self._buffer) >= _PREFIX:
            size = int.from_bytes(self._buffer[:_PREFIX], "big")
            if size > MAX_FRAME:
                raise ProtocolError(f"frame of {size} bytes: more than {MAX_FRAME} are refused")
            end = _PREFIX + size
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_PREFIX:end])
            del self._buffer[:end]
            yield body


def read(cls: type[T], body: bytes) -> T:
    """Return the ``cls``, a dataclass, whose fields are those of the JSON object ``body``.

    :raises ProtocolError: it has others, or they hold what the annotations don't allow.
    """
    return typing.cast(T, _read(cls, _parse(body), cls.__name__))


def _decode(body: bytes) -> Message:
    value = _parse(body)
    if not isinstance(value, dict):
        raise ProtocolError(f"frame holds a JSON {_named(value)}, not an object")
    kind = value.pop("kind", None)
    cls = KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ProtocolError(f"unknown kind of message: {reprlib.repr(kind)}")
    return typing.cast(Message, _read(cls, value, str(kind)))


def _parse(body: bytes) -> object:
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{len(body)} bytes are not JSON in UTF-8: {error}") from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


@cache
def _fields(cls: type) -> dict[str, object]:
    return typing.get_type_hints(cls)


def _read(hint: object, value: object, where: str) -> object:
    """Return ``value``, as JSON gave it, as what the annotation ``hint`` asks for, or raise."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        (inner,) = (option for option in options if option is not type(None))
        return None if value is None else _read(inner, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(options[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and type(value) in (int, float):
        number = _as_float(value)
        if math.isfinite(number) and number == value:
            return number
    elif hint is int and type(value) is int:
        if 0 <= value <= _MAX_INT:
            return value
    elif hint in (str, bool) and type(value) is hint:
        return value
    elif isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        hints = _fields(hint)
        odd = sorted(hints.keys() ^ value.keys())
        if odd:
            state = "missing" if odd[0] in hints else "unknown"
            raise ProtocolError(f"{where}: field {reprlib.repr(odd[0])} is {state}")
        return hint(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in hints})
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ProtocolError(f"{where}: {_named(value)} {reprlib.repr(value)} is no {expected}")


def _as_float(value: typing.Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _named(value: object) -> str:
    return type(value).__name__

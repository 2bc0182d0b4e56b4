"""What a message says: bytes in, an order or the reason why it is refused out.

A message is one JSON object (RFC 8259) in UTF-8, of at most :data:`MAX_SIZE` bytes, with these
fields and no others.  All may be absent, but whole it must say what is to be done:

=================  =================================================================================
``model_path``     the module that changed, dotted; empty or absent: the whole application
``modules``        a list of them, for one update of several
``physical_path``  an absolute path: a folder that holds the code
``is_append_path`` true: import from that folder first, from now on; false: read what is there anew,
                   wherever code is imported from now (``physical_path`` is not looked at then)
``release``        the publisher's name for what is deployed, for people
``id``             names the order; it is accepted once
``issued_at``      when it was given, in seconds since the epoch
``expires``        when it ends to be worth anything, the same
``target``         the application it is for (``MODULE`` or ``MODULE:NAME``); others let it be
``step``           for a deploy on several hosts at once, see :class:`Step`
``hold``           with the step ``prepare``: how long to wait for the word, in seconds
``signature``      see :mod:`genwsgi.triggers.amqp.signing`
=================  =================================================================================

A field of another name is a reason to refuse: it may be a misspelt ``expires``, or a condition that
this version would pass over.

Pure; any thread.
"""

from __future__ import annotations

import enum
import json
import math
import re
import reprlib
from dataclasses import dataclass
from typing import Any, Final

#: The largest message that is looked at, in bytes.
MAX_SIZE: Final = 64 << 10

#: The longest text in a field, in characters.
MAX_TEXT: Final = 4096

#: The most modules that one message names.
MAX_MODULES: Final = 1000

#: The longest time that a host waits for the word on a prepared release, in seconds.
MAX_HOLD: Final = 3600.0

#: An order has one of these at least.
_ORDERING: Final = frozenset({"model_path", "modules", "is_append_path", "id"})

_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


class Refusal(Exception):
    """A message that is not obeyed.

    :ivar reason: why, in one line.
    :ivar quiet: it is nobody's mistake (an old order that a latecomer finds), so not worth a
        warning.
    """

    def __init__(self, reason: str, *, quiet: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.quiet = quiet


class Step(str, enum.Enum):
    """What a message asks of a host.

    * deploy: build it and go live; if a release of this id is held here, go live with that.
    * call: say who you are.
    * prepare: build it and hold it, for ``hold`` seconds at most, until the order itself comes.
    * abort: drop what is held, or being built, for this id.
    * ask: say how the order of this id ended here.
    """

    DEPLOY = "deploy"
    CALL = "call"
    PREPARE = "prepare"
    ABORT = "abort"
    ASK = "ask"


@dataclass(frozen=True)
class Message:
    """What a message says, field by field as above.

    :ivar modules: ``model_path`` and ``modules`` together, each once.
    :ivar id: empty if it has none.
    """

    modules: tuple[str, ...] = ()
    physical_path: str = ""
    is_append_path: bool = False
    release: str = ""
    id: str = ""
    issued_at: float | None = None
    expires: float | None = None
    target: str = ""
    step: Step = Step.DEPLOY
    hold: float = 0.0
    signature: str = ""

    @property
    def path(self) -> str:
        """The folder to import from first, from now on; empty: it stays what it is."""
        return self.physical_path if self.is_append_path else ""

    def describe(self) -> str:
        """Return what it is about, for people: its release, modules and path."""
        what = ", ".join(self.modules[:3]) or "all modules"
        more = f" and {len(self.modules) - 3} more" if len(self.modules) > 3 else ""
        name = f"{self.release}: " if self.release else ""
        return f"{name}{what}{more}" + (f" from {self.path}" if self.path else "")


def load(body: bytes) -> dict[str, Any]:
    """Return the JSON object that ``body`` is.

    :raises Refusal: it is none, is too large, or names a field twice.
    """
    if len(body) > MAX_SIZE:
        raise Refusal(f"{len(body)} bytes are more than the {MAX_SIZE} that a message may have")
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicate
        )
    except (ValueError, RecursionError) as error:
        raise Refusal(f"it is not JSON in UTF-8: {_line(error)}") from error
    if not isinstance(value, dict):
        raise Refusal(f"it is a JSON {type(value).__name__}, not an object")
    return value


def read(fields: dict[str, Any]) -> Message:
    """Return what the object of a message says.

    :raises Refusal: a field is unknown, of the wrong type or out of bounds, or one is missing.
    """
    unknown = sorted(set(fields) - _READERS.keys())
    if unknown:
        raise Refusal(f"its field {_shown(unknown[0])} is unknown")
    values: dict[str, Any] = {
        name: reader(name, fields[name]) for name, reader in _READERS.items() if name in fields
    }
    one = values.pop("model_path", "")
    several = values.pop("modules", ())
    values["modules"] = tuple(dict.fromkeys([*([one] if one else []), *several]))
    message = Message(**values)
    if message.is_append_path and not message.physical_path:
        raise Refusal("is_append_path is true and physical_path is missing: it says no folder")
    if message.step is Step.DEPLOY and not fields.keys() & _ORDERING:
        raise Refusal("it has no model_path, modules, is_append_path or id: it is no order")
    if message.step in (Step.PREPARE, Step.ABORT, Step.ASK) and not message.id:
        raise Refusal(f"step {message.step.value} without an id: it must say which order is meant")
    if message.step is Step.PREPARE and not message.hold:
        raise Refusal("step prepare without hold: it must say how long the release is to be held")
    return message


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _no_duplicate(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _shown(value: object) -> str:
    return reprlib.repr(value)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _wrong(name: str, value: object, wanted: str) -> Refusal:
    return Refusal(f"its field {name} is {_shown(value)}, not {wanted}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not _printable(value):
        raise _wrong(name, value, f"one line of at most {MAX_TEXT} characters")
    return value


def _printable(text: str) -> bool:
    # A line of a log must stay one; a lone surrogate has no UTF-8.
    return all(char.isprintable() for char in text)


def _path(name: str, value: object) -> str:
    text = _text(name, value)
    if text and not text.startswith("/"):
        raise _wrong(name, value, "an absolute path")
    return text


def _module(name: str, value: object) -> str:
    text = _text(name, value)
    if text and not _NAME.fullmatch(text):
        raise _wrong(name, value, "the dotted name of a module")
    return text


def _modules(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_MODULES:
        raise _wrong(name, value, f"a list of at most {MAX_MODULES} modules")
    found = tuple(_module(name, item) for item in value)
    if not all(found):
        raise _wrong(name, "", "the dotted name of a module")
    return found


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


def _identity(name: str, value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise _wrong(name, value, "1 to 128 visible ASCII characters")
    return value


def _number(name: str, value: object, most: float, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, value, wanted)
    # Compared before it is converted: an int may be too large for a float.
    if not 0 <= value <= most or not math.isfinite(value):
        raise _wrong(name, value, wanted)
    return float(value)


def _moment(name: str, value: object) -> float:
    return _number(name, value, 1e11, "a number of seconds since the epoch")


def _hold(name: str, value: object) -> float:
    return _number(name, value, MAX_HOLD, f"a number of seconds, at most {MAX_HOLD:g}")


def _step(name: str, value: object) -> Step:
    try:
        return Step(value)
    except ValueError:
        raise _wrong(name, value, f"one of {', '.join(step.value for step in Step)}") from None


_READERS: Final = {
    "model_path": _module,
    "modules": _modules,
    "physical_path": _path,
    "is_append_path": _flag,
    "release": _text,
    "id": _identity,
    "issued_at": _moment,
    "expires": _moment,
    "target": _text,
    "step": _step,
    "hold": _hold,
    "signature": _text,
}

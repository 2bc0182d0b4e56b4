"""Frames and messages: what goes out comes back, and nothing else gets in."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import asdict, is_dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genwsgi.deploy import framing
from genwsgi.deploy.control import (
    CancelRequest,
    Diff,
    DiffRequest,
    Done,
    History,
    HistoryEntry,
    HistoryRequest,
    Pause,
    PauseRequest,
    RestartRequest,
    Status,
    StatusRequest,
    WorkerStatus,
)
from genwsgi.deploy.framing import MAX_FRAME, MAX_TEXT, Decoder, clip, encode
from genwsgi.deploy.protocol import (
    Abort,
    Building,
    Cancel,
    Cancelled,
    Commit,
    Committed,
    Counts,
    Failed,
    Generations,
    Hello,
    Leaving,
    OrderOutcome,
    OrderRequest,
    Outcome,
    Prepare,
    Problem,
    Problems,
    Progress,
    Ready,
    Release,
    RollbackRequest,
    Step,
    Tell,
    Welcome,
)
from genwsgi.errors import ProtocolError
from genwsgi.generations.counts import GenerationCounts, Tally
from genwsgi.generations.status import GenerationStatus

RELEASE = Release(7, "ab12", "watch", "app.py", 1700000000.5)
OUTCOME = OrderOutcome("one", Outcome.FAILED, 7, "no", "Traceback", 0.25)
ENTRY = HistoryEntry(
    1700000000.5, "one", "ctl", "by hand", Outcome.FAILED, "no", 0.25, 7, "ab12", (), None, True
)
SAMPLES = [
    Hello(12, RELEASE, None),
    Building(7, Step.BUILDING, 3, 20),
    Ready(7, 0.5),
    Failed(7, "ValueError: no", "Traceback\n  ...\nValueError: no"),
    Failed(7, "no thread", "", blameless=True),
    Committed(7, 3),
    Generations((GenerationStatus(2, "7-code", "draining", 1, 0.5, "a thread", "GET /", 7.5),)),
    Problems((Problem("descriptors", "970 of 1024 in use", 1700000000.5, 12),)),
    Counts(12, (GenerationCounts(2, "7-code", Tally(3, 1, 0, 0.5)),)),
    Cancelled(2, 3, 1),
    Leaving(),
    Welcome(RELEASE),
    Prepare(RELEASE),
    Commit(7),
    Abort(7, "worker 12 failed"),
    Tell(),
    Cancel(2),
    OrderRequest("one", "ctl", True, "by hand", follow=True),
    RollbackRequest("two", None, "by hand"),
    Progress("one", 12, Step.VERIFYING, 1, 2),
    OUTCOME,
    StatusRequest(),
    Status(
        RELEASE,
        "idle",
        (WorkerStatus(12, 7, (), 1 << 26, 0.5), WorkerStatus(13, None)),
        {"watch": [1]},
        OUTCOME,
        (Problem("disk full", "no space left: make room", 1700000002.5),),
        (ENTRY,),
        Pause("somebody", 1700000001.5),
        "release 8 was rolled back",
    ),
    HistoryRequest(50),
    History((ENTRY,)),
    DiffRequest(6, None),
    Diff(RELEASE, None, ("new.py",), (), ("app.py",), 0, "--- app.py", ""),
    PauseRequest(True, "somebody"),
    RestartRequest("somebody"),
    CancelRequest(2, None),
    Done(False, "no such generation"),
]

numbers = st.integers(0, 2**63 - 1)
seconds = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec=None), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | seconds | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PLAIN = {
    int: numbers,
    float: seconds,
    str: texts,
    bool: st.booleans(),
    dict: st.dictionaries(st.text(), json_values, max_size=3),
}


def values(hint):
    """Every value that a field with this annotation may have."""
    if isinstance(hint, type) and is_dataclass(hint):
        fields = typing.get_type_hints(hint)
        return st.builds(hint, **{name: values(inner) for name, inner in fields.items()})
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return st.none() | values(next(one for one in options if one is not type(None)))
    if origin is tuple:
        return st.lists(values(options[0]), max_size=3).map(tuple)
    return PLAIN[origin or hint]


messages = st.one_of(*map(values, framing.KINDS.values()))


def frame(body: bytes) -> bytes:
    """One frame around ``body``, whatever that is."""
    return len(body).to_bytes(4, "big") + body


def written(**fields: object) -> bytes:
    """One frame with ``fields`` as its object."""
    return frame(json.dumps(fields).encode())


def canonical(message: object) -> object:
    """A message as JSON sees it: a pair of lone surrogates and one character are the same."""
    assert isinstance(message, framing.Message)
    return json.loads(encode(message)[4:])


def test_every_message_has_a_sample():
    """Every kind of message that the module declares is in the samples of these tests."""
    assert {type(sample) for sample in SAMPLES} == set(framing.Message.__args__)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_what_is_encoded_comes_back(message):
    """A message that was encoded is decoded as an equal one."""
    assert Decoder().feed(encode(message)) == [message]


@given(st.lists(messages, max_size=4), st.data())
def test_frames_survive_any_split(sent, data):
    """Messages come back the same, in order, wherever the stream of bytes was split."""
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, received = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:end])
    assert [canonical(message) for message in received] == [canonical(message) for message in sent]


def test_a_frame_is_its_length_and_json():
    """A frame is four bytes of length, most significant first, and a JSON object with its kind."""
    assert encode(Commit(7)) == b"\x00\x00\x00\x20" + b'{"kind": "commit", "release": 7}'


RELEASE_FIELDS = json.loads(json.dumps(asdict(RELEASE)))
STATUS_FIELDS = {"kind": "status", **asdict(Status(RELEASE, "", (), {}, None))}
ORDER_FIELDS = {"kind": "order", **asdict(OrderRequest("", "", False, ""))}

REFUSED = {
    "oversized": (MAX_FRAME + 1).to_bytes(4, "big"),
    "empty": frame(b""),
    "not UTF-8": frame(b'{"kind": "\xff"}'),
    "not JSON": frame(b"{'kind': 1}"),
    "two objects": frame(b"{} {}"),
    "not an object": frame(b"[]"),
    "too deep": frame(b"[" * 100_000),
    "too many digits": frame(b'{"kind": "commit", "release": ' + b"9" * 5000 + b"}"),
    "no kind": written(release=7),
    "unknown kind": written(kind="explode"),
    "kind of the wrong type": written(kind=["commit"]),
    "missing field": written(kind="commit"),
    "unknown field": written(kind="commit", release=7, extra=1),
    "a field named kind within": written(kind="prepare", release={**RELEASE_FIELDS, "kind": "x"}),
    "bool for int": written(kind="commit", release=True),
    "float for int": written(kind="commit", release=7.0),
    "negative int": written(kind="commit", release=-1),
    "huge int": written(kind="commit", release=2**63),
    "null for int": written(kind="commit", release=None),
    "text for int": written(kind="commit", release="7"),
    "int for text": written(kind="abort", release=7, reason=7),
    "int for bool": written(
        kind="order", id="", trigger="", force=1, detail="", path="", modules=[], follow=False
    ),
    "bool for float": written(kind="ready", release=7, seconds=True),
    "NaN": frame(b'{"kind": "ready", "release": 7, "seconds": NaN}'),
    "infinity": frame(b'{"kind": "ready", "release": 7, "seconds": 1e999}'),
    "an int no float can hold": written(kind="ready", release=7, seconds=10**400),
    "text for a release": written(kind="prepare", release="7"),
    "null for a release": written(kind="welcome", committed=None),
    "missing field of a release": written(kind="prepare", release={"number": 7}),
    "wrong field of a release": written(kind="prepare", release={**RELEASE_FIELDS, "number": ""}),
    "object for a list": written(**{**STATUS_FIELDS, "workers": {}}),
    "wrong item in a list": written(**{**STATUS_FIELDS, "workers": [1]}),
    "list for an object": written(**{**STATUS_FIELDS, "triggers": []}),
}


@pytest.mark.parametrize("stream", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_message_is_refused_for_good(stream):
    """Bytes that are no message raise ProtocolError, and the decoder takes nothing after them."""
    decoder = Decoder()
    with pytest.raises(ProtocolError) as first:
        decoder.feed(stream)
    assert "\n" not in str(first.value)
    assert len(str(first.value)) < 400
    with pytest.raises(ProtocolError, match="broken"):
        decoder.feed(encode(Commit(7)))
    assert "broken" in repr(decoder)


def test_an_oversized_frame_is_refused_before_it_arrives():
    """The length alone is enough to refuse a frame; a frame of the largest size is waited for."""
    decoder = Decoder()
    assert decoder.feed(MAX_FRAME.to_bytes(4, "big")) == []
    assert repr(decoder) == "<Decoder, 4 bytes pending>"
    with pytest.raises(ProtocolError, match="more than"):
        Decoder().feed((MAX_FRAME + 1).to_bytes(4, "big"))


def test_an_error_names_the_message_and_the_field():
    """The error of a wrong field says where it is and what was found there."""
    stream = written(kind="prepare", release={**RELEASE_FIELDS, "number": "seven"}, look=True)
    with pytest.raises(ProtocolError, match=r"prepare\.release\.number: str 'seven' is no int"):
        Decoder().feed(stream)
    with pytest.raises(ProtocolError, match="commit: field 'release' is missing"):
        Decoder().feed(written(kind="commit"))
    with pytest.raises(ProtocolError, match="status-request: field 'x' is unknown"):
        Decoder().feed(written(kind="status-request", x=1))


def test_an_int_is_a_float_where_a_float_is_asked():
    """JSON does not tell 1 from 1.0, so a whole number of seconds arrives as a float."""
    (message,) = Decoder().feed(written(kind="ready", release=7, seconds=1))
    assert isinstance(message, Ready)
    assert type(message.seconds) is float


@given(st.binary(max_size=200))
@example(frame(b"null"))
def test_random_bytes_are_messages_or_a_protocol_error(stream):
    """Whatever bytes come, the decoder returns messages or raises ProtocolError."""
    decoder = Decoder()
    try:
        decoder.feed(stream)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decoder.feed(b"")


@given(messages, st.data())
def test_mutated_frames_are_messages_or_a_protocol_error(message, data):
    """A frame with bytes changed in it gives messages or ProtocolError, wherever it is split."""
    stream = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(4, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stream)))

    def outcome(*pieces):
        decoder = Decoder()
        try:
            return [message for piece in pieces for message in decoder.feed(bytes(piece))]
        except ProtocolError as error:
            return str(error)

    assert outcome(stream) == outcome(stream[:cut], stream[cut:])


def mutations(value, path=()):
    """Every place in a JSON value, as a path."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from mutations(value[key], (*path, key))


@settings(max_examples=200)
@given(messages, json_values, st.data())
def test_a_field_of_another_value_never_gets_in_as_a_wrong_type(message, value, data):
    """With any JSON value in place of a field, what is decoded encodes to the same JSON again."""
    changed = json.loads(encode(message)[4:])
    path = data.draw(st.sampled_from([path for path in mutations(changed) if path]))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        (decoded,) = Decoder().feed(frame(json.dumps(changed).encode()))
    except ProtocolError:
        return
    assert canonical(decoded) == changed


def test_a_message_that_does_not_fit_is_not_sent():
    """Encoding more than a frame may hold raises ProtocolError and says what to do."""
    with pytest.raises(ProtocolError, match="clip"):
        encode(Failed(7, "", "x" * MAX_FRAME))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()], ids=repr)
def test_a_message_that_json_cannot_hold_is_not_sent(value):
    """Encoding what JSON has no form for raises ProtocolError."""
    with pytest.raises(ProtocolError, match="status"):
        encode(Status(RELEASE, "idle", (), {"watch": value}, None))


@given(texts.map(lambda text: text * 50), st.integers(100, 400))
def test_clipped_text_fits_and_keeps_both_ends(text, limit):
    """A clipped text takes no more of a frame than allowed, and what fits is not changed."""
    clipped = clip(text, limit)
    assert len(json.dumps(clipped)) - 2 <= limit
    if len(json.dumps(text)) - 2 <= limit:
        assert clipped == text
    else:
        head, mark, tail = clipped.partition("\n[... cut: ")
        assert mark
        assert text.startswith(head)
        assert text.endswith(tail.partition(" ...]\n")[2])


def test_the_end_of_a_traceback_is_kept():
    """Of a traceback that is too long its last line stays: it says what was raised."""
    trace = "Traceback (most recent call last):\n" + "  x\n" * MAX_TEXT + "ValueError: the cause"
    clipped = clip(trace)
    assert clipped.startswith("Traceback")
    assert clipped.endswith("ValueError: the cause")


def test_clipped_texts_fit_into_one_frame():
    """The longest status of clipped texts fits a frame, whatever its characters are."""
    text = clip("\U0001f600" * MAX_FRAME)
    release = Release(7, text, text, text, 0.0)
    outcome = OrderOutcome(text, Outcome.FAILED, 7, text, text, 0.0)
    assert len(encode(Status(release, "idle", (), {}, outcome))) <= MAX_FRAME

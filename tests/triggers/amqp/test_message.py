"""Tests of genwsgi.triggers.amqp.message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genwsgi.triggers.amqp import message
from genwsgi.triggers.amqp.message import Message, Refusal, Step, load, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = sorted(message._READERS)


def parse(body: bytes) -> Message:
    """What the listener makes of a body."""
    return read(load(body))


def decided(body: bytes) -> bool:
    """Whether a body is either an order or refused in one line."""
    try:
        return isinstance(parse(body), Message)
    except Refusal as refusal:
        return "\n" not in refusal.reason


def test_the_message_of_existing_publishers_is_understood_byte_for_byte():
    """The three fields that publishers have always sent say one module, one folder and whether it
    becomes the place to import from.
    """
    body = b'{"model_path": "shop.views", "is_append_path": true, "physical_path": "/srv/r/2"}'
    found = parse(body)
    assert found == Message(("shop.views",), "/srv/r/2", True)
    assert found.path == "/srv/r/2"
    again = parse(body.replace(b"true", b"false"))
    assert (again.modules, again.path) == (("shop.views",), "")


def test_every_field_is_read():
    """All that a message may say is found where it belongs, and nothing else is."""
    found = read(
        {
            "model_path": "a.b",
            "modules": ["a.c", "a.b"],
            "physical_path": "/srv",
            "is_append_path": True,
            "release": "v7",
            "id": "7",
            "issued_at": 10,
            "expires": 20.5,
            "target": "a:app",
            "step": "prepare",
            "hold": 30,
            "signature": "00",
        }
    )
    modules = ("a.b", "a.c")
    expected = ("/srv", True, "v7", "7", 10.0, 20.5, "a:app", Step.PREPARE, 30.0, "00")
    assert found == Message(modules, *expected)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b'{"id": NaN}', "NaN is not JSON"),
        (b'{"id": "a", "id": "b"}', "there twice"),
        (b"[]", "a JSON list, not an object"),
        (b" " * (message.MAX_SIZE + 1), "more than"),
        (b"{}", "it is no order"),
        (b'{"physical_path": "/srv"}', "it is no order"),
        (b'{"model_path": "a", "expire": 1}', "'expire' is unknown"),
        (b'{"model_path": "a/b.py"}', "dotted name of a module"),
        (b'{"model_path": "../a"}', "dotted name of a module"),
        (b'{"model_path": 7}', "model_path is 7"),
        (b'{"modules": "a"}', "a list of at most"),
        (b'{"modules": [""]}', "dotted name of a module"),
        (b'{"model_path": "a", "is_append_path": 1}', "true or false"),
        (b'{"model_path": "a", "is_append_path": true}', "physical_path is missing"),
        (b'{"model_path": "a", "physical_path": "srv"}', "an absolute path"),
        (b'{"model_path": "a", "physical_path": "/srv\\n/x"}', "one line"),
        (b'{"model_path": "a", "physical_path": "/srv\\ud800"}', "one line"),
        (b'{"id": ""}', "visible ASCII"),
        (b'{"id": "a b"}', "visible ASCII"),
        (b'{"id": "a", "issued_at": true}', "seconds since the epoch"),
        (b'{"id": "a", "issued_at": -1}', "seconds since the epoch"),
        (b'{"id": "a", "issued_at": 1e400}', "seconds since the epoch"),
        (b'{"id": "a", "issued_at": ' + b"9" * 400 + b"}", "seconds since the epoch"),
        (b'{"id": "a", "step": "explode"}', "one of deploy"),
        (b'{"id": "a", "step": "prepare"}', "without hold"),
        (b'{"id": "a", "step": "prepare", "hold": 1e9}', "at most 3600"),
        (b'{"step": "abort"}', "without an id"),
    ],
)
def test_what_is_no_order_is_refused_with_the_reason(body: bytes, reason: str):
    """A message that can't be meant is refused, in one line that says what is wrong."""
    with pytest.raises(Refusal) as refusal:
        parse(body)
    assert reason in refusal.value.reason
    assert "\n" not in refusal.value.reason
    assert len(refusal.value.reason) < 300


@given(st.binary())
def test_any_bytes_are_an_order_or_a_refusal(body: bytes):
    """Whatever bytes come, an order or a refusal is what they are taken for."""
    assert decided(body)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), JSON))
def test_any_object_is_an_order_or_a_refusal(fields: dict[str, object]):
    """Whatever JSON the fields hold, an order or a refusal is what they are taken for."""
    assert decided(json.dumps(fields).encode())

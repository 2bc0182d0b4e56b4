"""Tests of genwsgi.ctl.sender, without a broker."""

from __future__ import annotations

import pytest

from genwsgi.ctl.conductor import Conductor
from genwsgi.ctl.sender import Sender
from genwsgi.triggers.amqp.settings import Settings


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 50_000,
        b'{"signature": "00", "took": 1e300}',
        b'{"signature": "00", "error": "\\ud800"}',
        b'{"signature": "00", "error": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"took": 1' + b"0" * 400 + b"}",
        b'{"took": true, "host": {}, "outcome": "here"}',
    ],
)
@pytest.mark.parametrize("keys", [(), (b"0123456789abcdef",)])
def test_whatever_is_written_to_the_sender_it_goes_on(body: bytes, keys: tuple[bytes, ...]):
    """Anybody who may publish can write to it, and what is no answer of a host changes nothing."""
    conductor = Conductor("order")
    conductor.start(0.0)
    sender = Sender(
        Settings("amqp://h/", keys=keys), conductor, {}, news=lambda: None, say=lambda _text: None
    )
    sender._hear(None, None, None, body)
    assert conductor.hosts == {}

"""Tests of genwsgi.triggers.amqp.signing."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwsgi.errors import OptionError
from genwsgi.triggers.amqp.message import Refusal
from genwsgi.triggers.amqp.signing import (
    canonical,
    check_time,
    is_signed,
    read_keys,
    sign,
    signed,
)

KEY = b"0123456789abcdef"
OTHER = b"fedcba9876543210"


def test_the_signature_is_what_the_documentation_says():
    """Two lines of anybody's code make the same signature as ours: the form is documented whole."""
    message = {"id": "7", "model_path": 'ä"\\\n\u2028', "issued_at": 1764104400, "modules": ["b"]}
    body = json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    expected = hmac.new(KEY, body.encode(), hashlib.sha256).hexdigest()
    assert sign(message, KEY) == expected
    assert is_signed({**message, "signature": expected}, [OTHER, KEY])


def test_the_canonical_form_is_that_of_rfc_8785():
    """Fields are sorted, texts are in UTF-8 and whole numbers have no fraction."""
    fields = {
        "b": 1.0,
        "a": "é\x1f\x7f",
        "signature": "x",
        "c": [1.5, True, None, {"y": 2, "x": 3}],
    }
    assert (
        canonical(fields) == '{"a":"é\\u001f\x7f","b":1,"c":[1.5,true,null,{"x":3,"y":2}]}'.encode()
    )


@pytest.mark.parametrize("value", ["\ud800", 1e-7, 1e22])
def test_what_languages_write_differently_is_not_signed(value: object):
    """What has no canonical form of one kind in all languages is refused, not guessed."""
    with pytest.raises(Refusal):
        canonical({"a": value})


def test_every_change_breaks_the_signature():
    """A message with a field changed, added or left out bears no valid signature."""
    whole = signed({"id": "7", "model_path": "a", "expires": 5}, [KEY])
    assert is_signed(whole, [KEY])
    assert not is_signed(whole, [OTHER])
    assert not is_signed({**whole, "expires": 6}, [KEY])
    assert not is_signed({**whole, "step": "abort"}, [KEY])
    assert not is_signed({n: v for n, v in whole.items() if n != "expires"}, [KEY])
    for odd in (None, 7, "", "é", whole["signature"].upper()):
        assert not is_signed({**whole, "signature": odd}, [KEY])


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.floats() | st.booleans()))
def test_signing_an_object_signs_it_or_refuses(fields: dict[str, object]):
    """Whatever an object holds, it is signed so that it verifies, or refused."""
    try:
        whole = signed(fields, [KEY])
    except (Refusal, ValueError):
        return
    assert is_signed(json.loads(json.dumps(whole)), [KEY])


def test_the_time_window():
    """Old and expired orders are refused quietly; one without a time, or of the future, not so."""
    check_time(1000.0, None, 1100.0, 300.0)
    check_time(1000.0, 1101.0, 1100.0, 300.0)
    check_time(None, None, 1100.0, math.inf)
    cases = [
        (700.0, None, True),
        (1000.0, 1100.0, True),
        (1200.0, None, False),
        (None, None, False),
    ]
    for issued_at, expires, quiet in cases:
        with pytest.raises(Refusal) as refusal:
            check_time(issued_at, expires, 1100.0, 300.0)
        assert refusal.value.quiet is quiet


def test_a_key_file_holds_a_key_in_each_line(tmp_path: Path):
    """The keys are the lines that are not empty, the first of them first."""
    path = tmp_path / "keys"
    path.write_bytes(KEY + b"\n\n  " + OTHER + b"\n")
    path.chmod(0o600)
    assert read_keys(str(path)) == (KEY, OTHER)


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (KEY, 0o640, "is open to others (mode 640): chmod 600"),
        (KEY, 0o604, "is open to others"),
        (b"\n", 0o600, "is empty"),
        (b"short", 0o600, "less than 16"),
    ],
)
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, content: bytes, mode: int, reason: str):
    """A key that others may read, or that is none, is refused in one line."""
    path = tmp_path / "keys"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(OptionError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        read_keys(str(path))


def test_a_key_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path):
    """A path without a file is refused in one line, and so is a folder."""
    with pytest.raises(OptionError, match="can't be read: No such file"):
        read_keys(str(tmp_path / "nothing"))
    with pytest.raises(OptionError, match="is not a file"):
        read_keys(str(tmp_path))

"""Tests of genwsgi.triggers.amqp.settings and hiding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genwsgi.errors import OptionError
from genwsgi.triggers.amqp.hiding import HiddenURL, without_password
from genwsgi.triggers.amqp.settings import Settings, from_options, to_plain

URL = "amqp://user:secret@broker:5673/shop"


def refused(**options: object) -> str:
    """Return why these options are refused."""
    with pytest.raises(OptionError) as error:
        from_options(options)
    text = str(error.value)
    assert "\n" not in text
    assert "secret" not in text
    return text


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """A key file."""
    path = tmp_path / "keys"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    return str(path)


def test_without_a_broker_there_is_nothing_to_listen_to():
    """No URL, no listener; and options for one that is not named are a mistake."""
    assert from_options({}) is None
    assert to_plain({}) == {}
    assert "without --amqp" in refused(amqp_key_file="keys")
    assert "--release-root without --amqp" in refused(release_root=("/srv",))


def test_somebody_must_be_believed(key_file: str):
    """Without a key file and without the word that anybody may order, nothing starts."""
    assert "nobody's order could be believed" in refused(amqp=URL)
    assert from_options({"amqp": URL, "amqp_key_file": key_file}) is not None
    assert from_options({"amqp": URL, "amqp_allow_unsigned": True}) is not None
    assert from_options({"amqp": URL}, listens=False) is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://h/",
        "AMQPS://h/",
        "amqp:",
        "amqp://",
        "amqp://h:0/",
        "amqp://h:99999/",
        "amqp://[::1/",
        "amqp://a..b/",
        "h",
        "amqp://h/?heartbeat=x",
    ],
)
def test_what_is_no_url_of_a_broker_is_refused(url: str):
    """A URL of another kind, or none, is refused in one line that does not repeat it."""
    assert "no URL of a broker" in refused(amqp=url, amqp_allow_unsigned=True)


def test_options_of_tls_need_tls(tmp_path: Path):
    """Certificates are for amqps, must be there, and a key needs its certificate."""
    tls = {"amqp": URL.replace("amqp:", "amqps:"), "amqp_allow_unsigned": True}
    there = str(tmp_path / "there")
    Path(there).write_text("")
    assert "amqps:// only" in refused(amqp=URL, amqp_allow_unsigned=True, amqp_ca=there)
    assert "--amqp-ca nowhere can't be read" in refused(**tls, amqp_ca="nowhere")
    assert "--amqp-key-file" in refused(**tls, amqp_key=there)


def test_the_process_that_listens_is_told_all_of_it(key_file: str, tmp_path: Path):
    """What comes out of the plain data is what went in, the keys in place of their file."""
    options = {
        "amqp": HiddenURL(URL),
        "amqp_exchange": "orders",
        "amqp_key_file": key_file,
        "amqp_window": 60.0,
        "release_root": (str(tmp_path),),
    }
    settings = from_options(options)
    assert settings is not None
    told = json.loads(json.dumps(to_plain(options)))
    assert "amqp_key_file" not in told
    assert from_options(told) == settings
    assert settings.url == URL
    assert settings.keys == (b"0123456789abcdef",)


def test_the_password_is_shown_nowhere():
    """Neither the settings nor the URL show the password when they are printed."""
    settings = Settings(URL)
    hidden = HiddenURL(URL)
    for text in (settings.shown, repr(settings), str(hidden), repr(hidden), f"{hidden}"):
        assert "secret" not in text
    assert settings.shown == "amqp://user:***@broker:5673/shop"
    assert without_password("amqp://broker/x") == "amqp://broker/x"
    for odd in (
        "AMQPS://user:se@cret@h/",
        "amqp://user:secret:secret@h/",
        "amqp://:secret@h/",
        "amqp://user@example.org:secret@h/",
        "amqp://user:a secret\tand secret@h/",
    ):
        assert "cret" not in without_password(odd)
    assert hidden.reveal() == URL
    assert json.loads(json.dumps(hidden)) == URL


def test_the_password_is_overwritten_in_the_list_of_processes():
    """What the list of processes shows of a command line has no password of a broker in it."""
    code = (
        "import sys; from genwsgi.triggers.amqp.hiding import hide_from_process_list as hide; "
        "hide(); sys.stdout.write(open('/proc/self/cmdline').read() + sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"--amqp={URL}", "--amqp", URL, "last"],
        capture_output=True,
        text=True,
        check=True,
    )
    *line, seen = done.stdout.split("\0")
    hidden = URL.replace("secret", "******")
    assert line[-4:] == [f"--amqp={hidden}", "--amqp", hidden, "last"]
    assert seen == f"--amqp={URL}"

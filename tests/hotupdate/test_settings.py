"""Where the settings come from, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import OptionError
from genwsgi.hotupdate.settings import default_roots, find_broker

NAMES = (
    "url",
    "exchange",
    "key_file",
    "allow_unsigned",
    "release_root",
    "ca",
    "cert",
    "key",
    "window",
)


def find(environ: dict[str, str] | None = None, **arguments: Any) -> Any:
    """Look for a broker."""
    whole = {name: arguments.get(name) for name in NAMES}
    return find_broker(whole, environ or {}, ["/srv/releases/41"])


@pytest.fixture
def mq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write ``settings.MQ``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "settings", raising=False)

    def put(text: str) -> None:
        (tmp_path / "settings.py").write_text(text)

    yield put
    sys.modules.pop("settings", None)


def test_nothing() -> None:
    """Without any of the three there is no broker."""
    assert find() is None


def test_precedence(mq: Any) -> None:
    """Arguments go before the environment, and that before settings.MQ."""
    mq("MQ = dict(host='c', port=1234, userName='u@x', password='p/w')")
    environ = {"GENWSGI_AMQP_URL": "amqp://b/", "GENWSGI_AMQP_EXCHANGE": "from-environment"}
    assert find(environ, url="amqp://a/").url == "amqp://a/"
    found = find(environ)
    assert (found.url, found.exchange) == ("amqp://b/", "from-environment")
    assert find().url == "amqp://u%40x:p%2Fw@c:1234/%2F"
    assert "p%2Fw" not in repr(find())
    assert find().exchange == "genwsgi.hotupdate"


def test_settings_without_a_broker(mq: Any) -> None:
    """A module ``settings`` that has nothing to do with it is passed over."""
    mq("DEBUG = True")
    assert find() is None


@pytest.mark.parametrize("text", ["MQ = 5", "MQ = {}", "MQ = {'port': 5672}"])
def test_settings_that_make_no_sense(mq: Any, text: str) -> None:
    """settings.MQ without a host is a mistake, told in one line."""
    mq(text)
    with pytest.raises(OptionError, match="no dictionary with a host"):
        find()


def test_unsigned_only_without_a_key(tmp_path: Path) -> None:
    """Unsigned orders are believed where there is no key, unless somebody says otherwise."""
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef0123456789abcdef\n")
    keys.chmod(0o600)
    url = "amqp://a/"
    assert find(url=url).allow_unsigned
    assert not find(url=url, allow_unsigned=False).allow_unsigned
    assert not find({"GENWSGI_AMQP_ALLOW_UNSIGNED": "no"}, url=url).allow_unsigned
    assert not find(url=url, key_file=str(keys)).allow_unsigned
    assert find(url=url, key_file=str(keys), allow_unsigned=True).allow_unsigned
    assert find({"GENWSGI_AMQP_KEY_FILE": str(keys)}, url=url).keys


def test_roots() -> None:
    """Releases lie right beside the program's own folder, or where it is told; never all of /."""
    assert find(url="amqp://a/").roots == ("/srv/releases",)
    assert find(url="amqp://a/", release_root="/x").roots == ("/x",)
    environ = {"GENWSGI_AMQP_RELEASE_ROOT": "/x:/y"}
    assert find(environ, url="amqp://a/").roots == ("/x", "/y")
    assert not find(url="amqp://a/").deep
    assert find(url="amqp://a/", release_root="/x").deep
    assert default_roots(["/app", "/srv/a/b", "/srv/a/c"]) == ["/app", "/srv/a"]


@pytest.mark.parametrize(
    ("environ", "arguments", "reason"),
    [
        ({}, {"exchange": "x"}, "exchange is given without a broker"),
        ({"GENWSGI_AMQP_ALLOW_UNSIGNED": "perhaps"}, {"url": "amqp://a/"}, "say 1 or 0"),
        ({"GENWSGI_AMQP_WINDOW": "long"}, {"url": "amqp://a/"}, "no number of seconds"),
        ({}, {"url": "http://a/"}, "no URL of a broker"),
        ({}, {"url": "amqp://a/", "key_file": "/missing"}, "/missing can't be read"),
    ],
)
def test_mistakes(environ: dict[str, str], arguments: dict[str, Any], reason: str) -> None:
    """Each mistake is told in one line."""
    with pytest.raises(OptionError, match=reason) as raised:
        find(environ, **arguments)
    assert "\n" not in str(raised.value)

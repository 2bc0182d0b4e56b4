"""Tests of genwsgi.server.metrics, on real sockets."""

from __future__ import annotations

import importlib.util
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import OptionError
from genwsgi.server import metrics

ME = (os.geteuid(), os.getegid())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("[::1]:9100", ("::1", 9100)),
        ("unix:/run/shop/metrics.sock", "/run/shop/metrics.sock"),
        ("unix:///run/metrics.sock", "/run/metrics.sock"),
        ("unix:m.sock", os.path.abspath("m.sock")),
    ],
)
def test_what_an_address_means(text: str, address: object):
    """An address is a path, or a host and a port."""
    assert metrics.parse(text) == address


@pytest.mark.parametrize(
    "text", ["", "9100", ":9100", "localhost", "localhost:", "a:b", "a:70000", "unix:"]
)
def test_what_is_no_address(text: str):
    """Everything else is refused, a port without a host too: it would be open to everybody."""
    with pytest.raises(ValueError, match=f"^{text}$"):
        metrics.parse(text)


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("127.0.0.1:8000", ("0.0.0.0", 8000)),
        ("0.0.0.0:8000", ("127.0.0.1", 8000)),
        ("[::]:8000", ("127.0.0.1", 8000)),
        ("unix:/tmp/../tmp/http.sock", "/tmp/http.sock"),
    ],
)
def test_the_application_s_address_is_refused(text: str, bind: object):
    """Metrics are never given where the application is served, however that is written."""
    with pytest.raises(OptionError, match=r"^--metrics .* is where the application is served: "):
        metrics.check(text, [("10.0.0.1", 1), bind])


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8001)),
        ("127.0.0.1:8000", ("10.0.0.1", 8000)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("unix:/tmp/a", "/tmp/b"),
        ("unix:/tmp/a", ("127.0.0.1", 8000)),
        ("127.0.0.1:8000", "/tmp/b"),
    ],
)
def test_other_addresses_are_not(text: str, bind: object):
    """Another port, path or host is an address of its own, and so is any free port."""
    metrics.check(text, [bind])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    """Who asks for metrics without what they need is told what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(OptionError, match=r"pip install '.\[metrics\]'"):
        metrics.check("127.0.0.1:9100", [])


def test_a_unix_socket_is_its_user_s_alone(tmp_path: Path):
    """Its mode is 600, and it is gone when the server is."""
    path = tmp_path / "m.sock"
    listener = metrics.listen(f"unix:{path}", *ME)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (path.stat().st_uid, path.stat().st_gid) == ME
    assert metrics.where(listener) == f"unix:{path}"
    metrics.close(listener, alone=True)
    assert not path.exists()


@pytest.mark.skipif(ME[0] != 0, reason="only root can give files away")
def test_no_file_of_others_is_given_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even if somebody puts a link to it in the place of the socket that was just made."""
    precious, path = tmp_path / "precious", tmp_path / "m.sock"
    precious.touch()
    chown = os.chown

    def swapped(*args: Any, **more: Any) -> None:
        path.unlink()
        path.symlink_to(precious)
        chown(*args, **more)

    monkeypatch.setattr(os, "chown", swapped)
    metrics.listen(f"unix:{path}", 4711, 4711).close()
    assert precious.stat().st_uid == ME[0]
    assert path.lstat().st_uid == 4711


def test_what_a_killed_server_has_left_is_replaced(tmp_path: Path):
    """A path at which nobody listens is taken over; one at which somebody does is refused."""
    path = tmp_path / "m.sock"
    metrics.listen(f"unix:{path}", *ME).close()
    listener = metrics.listen(f"unix:{path}", *ME)
    with pytest.raises(OptionError, match=r"^--metrics unix:.* can't be used: Address already in"):
        metrics.listen(f"unix:{path}", *ME)
    listener.close()


def test_no_file_is_ever_replaced(tmp_path: Path):
    """What is no socket is not taken for one that was left, and stays."""
    path = tmp_path / "m.sock"
    path.write_text("precious")
    with pytest.raises(OptionError, match="can't be used"):
        metrics.listen(f"unix:{path}", *ME)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path: Path):
    """The line names the option, the address and what the system says."""
    with pytest.raises(OptionError, match=r"^--metrics .*/no/m: .*No such file") as caught:
        metrics.listen(f"unix:{tmp_path}/no/m: ", *ME)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_an_error_of_one_line():
    """So is a port at which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OptionError, match=f"^--metrics 127.0.0.1:{port} can't be used: "):
            metrics.listen(f"127.0.0.1:{port}", *ME)


@pytest.mark.parametrize(("text", "shown"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")])
def test_where_it_listens_can_be_opened(text: str, shown: str):
    """A port that was chosen by the system is told, as a URL."""
    listener = metrics.listen(text, *ME)
    port = listener.getsockname()[1]
    assert metrics.where(listener) == f"http://{shown}:{port}/metrics"
    metrics.close(listener, alone=True)


def test_a_server_that_is_started_meanwhile_inherits_it(tmp_path: Path):
    """It is told by a variable which descriptor it has; the path is left to it."""
    path = tmp_path / "m.sock"
    listener = metrics.listen(f"unix:{path}", *ME)
    environ: dict[str, str] = {}
    with metrics.inheritable(listener, environ):
        assert listener.get_inheritable()
        environ[metrics.INHERITED] = str(os.dup(int(environ[metrics.INHERITED])))
        heir = metrics.inherited(environ)
        environ[metrics.INHERITED] = "of no use any more"
    assert (environ, listener.get_inheritable()) == ({}, False)
    assert heir is not None
    assert not heir.get_inheritable()
    metrics.close(listener, alone=False)
    assert metrics.where(heir) == f"unix:{path}"
    metrics.close(heir, alone=True)
    assert not path.exists()


@pytest.mark.parametrize("value", [None, "", "x", "99999"])
def test_without_one_nothing_is_inherited(value: str | None):
    """A variable that is not there, or wrong, is as good as none."""
    environ = {} if value is None else {metrics.INHERITED: value}
    assert metrics.inherited(environ) is None
    with metrics.inheritable(None, environ):
        assert environ == {}

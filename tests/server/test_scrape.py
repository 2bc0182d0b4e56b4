"""Tests of genwsgi.server.scrape, by HTTP."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from genwsgi.deploy.control import Status
from genwsgi.deploy.figures import Distribution, Figures
from genwsgi.deploy.protocol import Release
from genwsgi.server import metrics, scrape
from genwsgi.server.scrape import MetricsServer
from tests.helpers import wait_until

NONE = Distribution((1.0,), (0, 0), 0.0)
FIGURES = Figures(
    Status(Release(5, "e" * 64, "watch", "", 0.0), "idle", (), {}, None), {}, {}, NONE, NONE
)


class Site:
    """A metrics server at ``address``, and what it is answered when it asks."""

    def __init__(self, address: str) -> None:
        self.listener = metrics.listen(address, os.geteuid(), os.getegid())
        self.asked: list[float] = []
        self.busy = False
        self.server = MetricsServer(self.listener, self.ask)
        self.server.start()

    def ask(self, timeout: float) -> Figures:
        self.asked.append(timeout)
        if self.busy:
            raise TimeoutError
        return FIGURES

    def connect(self) -> socket.socket:
        """A connection to it."""
        connection = socket.socket(self.listener.family, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(self.listener.getsockname())
        return connection

    def get(self, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
        """Status, content type and body of an answer."""
        with self.connect() as connection:
            client = http.client.HTTPConnection("metrics")
            client.sock = connection
            client.request("GET", path, headers=headers)
            response = client.getresponse()
            body = response.read().decode()
            return response.status, response.headers["Content-Type"], body


@pytest.fixture(scope="module", params=["127.0.0.1:0", "unix"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One at a port, and one at a path."""
    path = tmp_path_factory.mktemp("scrape") / "m.sock"
    site = Site(f"unix:{path}" if request.param == "unix" else request.param)
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def site(served: Site) -> Site:
    """One that nobody has asked yet."""
    served.asked.clear()
    return served


def test_prometheus_is_answered(site):
    """The text is Prometheus's, with the content type of the format, and of this moment."""
    status, content_type, body = site.get()
    assert status == 200
    assert content_type.startswith("text/plain; version=0.0.4")
    values = {family.name: family.samples for family in text_string_to_metric_families(body)}
    assert values["genwsgi_release_number"][0].value == 5
    assert site.asked == [scrape.PATIENCE]


def test_openmetrics_is_answered_where_it_is_asked_for(site):
    """A Prometheus that prefers OpenMetrics gets that."""
    accept = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"
    status, content_type, body = site.get(Accept=accept)
    assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
    assert any(family.name == "genwsgi_release_number" for family in openmetrics(body))


def test_there_is_nothing_else(site):
    """Other paths are not found, and nobody is asked for them."""
    assert site.get("/admin")[0] == 404
    assert site.get("/?name=x")[0] == 200
    assert len(site.asked) == 1


def test_a_busy_coordinator_is_no_answer(site):
    """A scrape fails, and the next one may not."""
    site.busy = True
    assert site.get()[0] == 503
    site.busy = False
    assert site.get()[0] == 200


def test_who_says_nothing_holds_up_nobody(site, monkeypatch):
    """Clients that are silent are sent away in time, and others are answered meanwhile."""
    assert scrape._Handler.timeout == scrape.PATIENCE
    for timeout in (60.0, 0.2):
        monkeypatch.setattr(scrape._Handler, "timeout", timeout)
        with site.connect() as silent, site.connect() as half:
            half.sendall(b"GET /metrics HT")
            if timeout == 60.0:  # whoever asks has as long
                assert site.get()[0] == 200
            else:
                assert silent.recv(1) == half.recv(1) == b""


def test_too_many_are_sent_away(site, monkeypatch):
    """So many clients are answered at a time, and there is room again when they are gone."""
    # None is gone before all are there, nor is any of the test before still there.
    monkeypatch.setattr(scrape._Handler, "timeout", 60.0)
    wait_until(lambda: site.server._free._value == scrape.CLIENTS, what="room")
    with ExitStack() as stack:
        waiting = [stack.enter_context(site.connect()) for _ in range(scrape.CLIENTS)]
        wait_until(lambda: site.server._free._value == 0, what="all of them to be attended to")
        with site.connect() as one_more:
            assert one_more.recv(1) == b""
        assert len(waiting) == scrape.CLIENTS
    wait_until(lambda: site.server._free._value == scrape.CLIENTS, what="room")
    assert site.get()[0] == 200

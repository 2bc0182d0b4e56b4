"""The crawler of docs/hotupdate.md runs at full speed through 50 updates by message."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pika
import pytest

from genwsgi.triggers.amqp.signing import is_signed, signed
from tests.helpers import wait_until
from tests.rabbitmq import Broker

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "hotupdate.md"

#: What the document's program calls.
CALL = "auto_reload_module()"

KEY = "0123456789abcdef0123456789abcdef"

UPDATES = 50
THREADS = 8


def files() -> dict[str, str]:
    """Return the files that the document shows."""
    pattern = r"^```python (\S+)\n(.*?)^```$"
    return dict(re.findall(pattern, DOCUMENT.read_text(), re.DOTALL | re.MULTILINE))


class Site(ThreadingHTTPServer):
    """Serves pages that each lead to a next one, until it is told to end.

    :ivar served: the paths of the pages that were asked for.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.served: list[str] = []
        self.ending = False

    def handle_error(self, *_: object) -> None:
        """Say nothing: a crawler that is killed leaves in the middle of a page."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Page(BaseHTTPRequestHandler):
    """One page."""

    server: Site

    def do_GET(self) -> None:
        """Answer with a title and a link."""
        number = int(self.path.rpartition("/")[2])
        self.server.served.append(self.path)
        following = f"{self.server.url}/page/{number + THREADS}"
        link = "" if self.server.ending else f'<a rel="next" href="{following}">'
        body = f"<h1>Page {number}</h1>{link}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[Site]:
    """A site that is up."""
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


class Crawler:
    """The program of the document, in a process.

    :ivar release: the folder that a version's code is in.
    """

    def __init__(self, folder: Path, site: Site, **settings: str) -> None:
        self.folder = folder
        self.output, self.log = folder / "items", folder / "log"
        self.write(1)
        for name, text in {**files(), **settings}.items():
            if not name.startswith("crawler/"):
                if name == "main.py":
                    text = prepared(text)
                (self.release(1) / name).write_text(text)
        self.start(site)

    def start(self, site: Site) -> None:
        """Start it; what it has said and made until now is forgotten."""
        with open(self.output, "wb") as output, open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "main.py", site.url],
                cwd=self.release(1),
                stdout=output,
                stderr=log,
            )

    def release(self, number: int) -> Path:
        """The folder of one release."""
        return self.folder / "releases" / str(number)

    def write(self, number: int) -> None:
        """Write a release: two modules that say which one they are of."""
        package = self.release(number) / "crawler"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("")
        for name, text in files().items():
            if name.startswith("crawler/"):
                text = text.replace("VERSION = 1", f"VERSION = {number}")
                (self.release(number) / name).write_text(text)

    def items(self) -> list[dict[str, Any]]:
        """The items it has made until now."""
        whole = self.output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def alive(self) -> bool:
        """Whether it runs; if not, the test ends with what it said."""
        if self.process.poll() is not None:
            pytest.fail(f"the crawler has ended:\n{self.log.read_text()}")
        return True

    def wait_for_the_broker(self) -> None:
        """Wait until it hears orders."""
        wait_until(lambda: "orders are heard from" in self.log.read_text(), 60, "the listener")

    def wait_for_an_item_of(self, version: int) -> None:
        """Wait until that version has made an item."""
        wait_until(
            lambda: self.alive() and any(item["version"] == version for item in self.items()),
            60,
            f"an item of version {version}",
        )

    def end(self, site: Site) -> None:
        """Let it come to its end."""
        site.ending = True
        assert self.process.wait(60) == 0, self.log.read_text()


def prepared(main: str) -> str:
    """Have the program say which version was current when an item began, and wait to be ready."""
    pin = "        with hotupdate.pin() as version:\n"
    assert pin in main
    main = main.replace(pin, f"        began = hotupdate.status().version.number\n{pin}")
    main = main.replace('"version": version', '"version": version, "began": began')
    return f"import logging\nlogging.basicConfig(level=logging.INFO)\n{main}"


@contextmanager
def crawling(folder: Path, site: Site, **settings: str) -> Iterator[Crawler]:
    """The crawler, at work; whatever happens, it ends."""
    crawler = Crawler(folder, site, **settings)
    try:
        wait_until(lambda: crawler.alive() and crawler.items(), 60, "the first item")
        yield crawler
    finally:
        crawler.process.kill()
        crawler.process.wait(10)


def check(crawler: Crawler, site: Site, last: int) -> None:
    """No item is lost, mixed, or older than when it began; all versions were used."""
    items = crawler.items()
    urls = [item["url"].removeprefix(site.url) for item in items]
    assert sorted(urls) == sorted(site.served), "lost"
    assert len(set(urls)) == len(urls)
    mixed = [item for item in items if item["made_by"] != [item["version"]] * 2]
    assert mixed == []
    older = [item for item in items if item["version"] < item["began"]]
    assert older == []
    wrong = [item for item in items if item["title"] != f"Page {item['url'].rpartition('/')[2]}"]
    assert wrong == []
    assert {item["version"] for item in items} == set(range(1, last + 1))


class Publisher:
    """Whoever publishes orders, with bare pika, and hears how they end."""

    def __init__(self, broker: Broker, exchange: str) -> None:
        self._connection = broker.connect()
        self._channel = self._connection.channel()
        self._answers = self._channel.queue_declare("", exclusive=True).method.queue
        self._exchange = exchange
        self._number = 0

    def order(self, body: bytes, crawler: Crawler) -> dict[str, Any]:
        """Publish an order and return the crawler's answer."""
        self._number += 1
        number = str(self._number)
        asked = pika.BasicProperties(reply_to=self._answers, correlation_id=number)
        self._channel.basic_publish(self._exchange, "", body, asked)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and crawler.alive():
            _, properties, answer = self._channel.basic_get(self._answers, auto_ack=True)
            # A host that has just connected may find the latest order twice, and answer twice.
            if answer is not None and properties.correlation_id == number:
                found: dict[str, Any] = json.loads(answer)
                return found
            self._connection.process_data_events(0.01)
        pytest.fail(f"no answer:\n{crawler.log.read_text()}")

    def close(self) -> None:
        """Publish no more."""
        self._connection.close()


def order(path: Path, module: str = "crawler.fields") -> bytes:
    """Return the publisher's bytes."""
    text = '{"model_path": "%s", "is_append_path": true, "physical_path": "%s"}'
    return (text % (module, path)).encode()


@pytest.fixture
def exchange() -> str:
    """The test's own exchange, since the broker is shared."""
    return f"hotupdate-{uuid.uuid4().hex}"


@pytest.fixture
def settings(broker: Broker, exchange: str) -> dict[str, str]:
    """The document's files, with the broker and the exchange of the test."""
    shown = files()
    assert CALL in shown["main.py"]
    return {
        "settings.py": shown["settings.py"].replace("5672", str(broker.port)),
        "main.py": shown["main.py"].replace(CALL, f"auto_reload_module(exchange={exchange!r})"),
    }


@pytest.fixture
def publisher(broker: Broker, exchange: str) -> Iterator[Publisher]:
    """A publisher that is connected."""
    made = Publisher(broker, exchange)
    yield made
    made.close()


def test_fifty_updates_by_message(
    tmp_path: Path, site: Site, settings: dict[str, str], publisher: Publisher
) -> None:
    """The publisher's own bytes, sent with bare pika, update a crawler at full speed."""
    with crawling(tmp_path, site, **settings) as crawler:
        crawler.wait_for_the_broker()
        for number in range(2, UPDATES + 2):
            crawler.write(number)
            answer = publisher.order(order(crawler.release(number)), crawler)
            assert (answer["outcome"], answer["generation"]) == ("committed", number), answer
            crawler.wait_for_an_item_of(number)
        crawler.end(site)
    check(crawler, site, UPDATES + 1)


def test_refusals(
    tmp_path: Path, site: Site, settings: dict[str, str], publisher: Publisher
) -> None:
    """What must not be obeyed, or does not import, changes nothing, and its sender hears why."""
    with crawling(tmp_path, site, **settings) as crawler:
        crawler.wait_for_the_broker()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        crawler.write(2)
        crawler.write(3)
        crawler.release(3).chmod(0o777)
        crawler.write(4)
        (crawler.release(4) / "crawler" / "fields.py").write_text("1 / 0\n")
        for body, outcome, reason in (
            (order(elsewhere), "refused", "is not below a release root"),
            (order(crawler.release(2) / "crawler"), "refused", "is not right in"),
            (order(crawler.release(3)), "refused", "others may write"),
            (order(crawler.release(2), "crawler.missing"), "refused", "no module of this program"),
            (order(crawler.release(2), "json"), "refused", "no module of this program"),
            (order(crawler.release(4)), "failed", "ZeroDivisionError"),
            (b"{", "refused", "not JSON"),
        ):
            answer = publisher.order(body, crawler)
            assert (answer["outcome"], reason in answer["error"]) == (outcome, True), answer
        assert "Traceback" in crawler.log.read_text()
        answer = publisher.order(order(crawler.release(2)), crawler)
        assert (answer["outcome"], answer["release"]) == ("committed", 3)
        crawler.end(site)
    assert {tuple(item["made_by"]) for item in crawler.items()} <= {(1, 1), (2, 2)}


def test_signed_orders_within_tls(
    tmp_path: Path, site: Site, broker: Broker, exchange: str, publisher: Publisher
) -> None:
    """A program with a key and certificates obeys what is signed, and signs its answers."""
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    arguments = {**broker.tls, "exchange": exchange, "key_file": str(key_file)}
    main = files()["main.py"].replace(CALL, f"auto_reload_module(**{arguments})")
    with crawling(tmp_path, site, **{"main.py": main}) as crawler:
        crawler.wait_for_the_broker()
        assert f"amqps://guest:***@127.0.0.1:{broker.tls_port}/" in crawler.log.read_text()
        crawler.write(2)
        unsigned = order(crawler.release(2))
        fields = {**json.loads(unsigned), "id": "two", "issued_at": int(time.time())}
        for body in (unsigned, json.dumps(signed(fields, [b"another key......"])).encode()):
            assert publisher.order(body, crawler)["outcome"] == "refused"
        keys = [KEY.encode()]
        answer = publisher.order(json.dumps(signed(fields, keys)).encode(), crawler)
        assert (answer["outcome"], answer["generation"]) == ("committed", 2)
        assert is_signed(answer, keys)
        crawler.wait_for_an_item_of(2)
        crawler.end(site)
    check(crawler, site, 2)


def test_latecomer(
    tmp_path: Path, site: Site, settings: dict[str, str], publisher: Publisher
) -> None:
    """A program that starts anew takes up the latest order that was given before."""
    with crawling(tmp_path, site, **settings) as crawler:
        crawler.wait_for_the_broker()
        crawler.write(2)
        publisher.order(order(crawler.release(2)), crawler)
        crawler.process.terminate()
        crawler.process.wait(60)
        crawler.start(site)
        crawler.wait_for_an_item_of(2)

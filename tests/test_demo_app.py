"""The demo application: its answers, its stream, and PEP 3333 on both sides of it."""

from __future__ import annotations

import io
import json
import threading
import urllib.request
from collections.abc import Iterator
from subprocess import PIPE, Popen
from sys import executable
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from webtest import TestApp, TestRequest

from demo_app import create_app, greeting
from demo_app.page import render
from demo_app.stream import Stream

#: What genwsgi puts into the environ.
SERVED_BY = {"genwsgi.generation": 7, "genwsgi.release": "abc"}


@pytest.fixture
def app() -> TestApp:
    """The application behind wsgiref's validator and WebTest's lint, as generation 7."""
    return TestApp(validator(create_app()), extra_environ=SERVED_BY, lint=True)


def call(method: str, path: str, **environ: object) -> tuple[str, dict[str, str], bytes]:
    """Return the status, headers and body as the application gave them, seen by no library."""
    path, _, query = path.partition("?")
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    setup_testing_defaults(environ)
    seen: list[tuple[str, dict[str, str]]] = []
    body = create_app()(environ, lambda status, headers: seen.append((status, dict(headers))))  # type: ignore[arg-type]
    return (*seen[0], b"".join(body))


def drain(stream: Stream) -> list[tuple[str, dict[str, object]]]:
    """Return all events of ``stream``, each as its name and its data."""
    events = []
    for block in stream:
        name, data = block.decode().removesuffix("\n\n").split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def test_page_shows_the_version_and_the_generation(app):
    """The page names the greeting, the version, the release and the generation that served it."""
    page = app.get("/")
    assert page.content_type == "text/html"
    assert page.html.h1.text == greeting.GREETING
    assert page.html.select_one("#page .number").text == "7"
    card = page.html.select_one("#page").text
    assert f"version {greeting.VERSION}" in card
    assert "release abc" in card
    assert f"color: {greeting.COLOUR};" in page.text


def test_page_escapes_what_it_shows():
    """Nothing that the page is filled with can become markup."""
    state = dict.fromkeys(("greeting", "version", "colour", "generation", "release"), "<b>\"'&")
    page = render(state, '/"><i>')
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;&quot;&#x27;&amp;" in page


def test_page_works_below_a_mount_point(app):
    """Mounted below a path, the page asks for its data below that path."""
    page = app.get("/", extra_environ={"SCRIPT_NAME": "/demo"})
    assert page.html.body["data-base"] == "/demo"


def test_mount_point_itself_is_the_page():
    """A mount point without a slash (an empty PATH_INFO) is the page, not a 404."""
    request = TestRequest.blank("/", environ={"SCRIPT_NAME": "/demo", "PATH_INFO": ""})
    assert request.get_response(create_app()).status_int == 200


def test_state_names_the_generation(app):
    """The state is the greeting module's values with the generation and the release."""
    assert app.get("/state").json == {
        "version": greeting.VERSION,
        "greeting": greeting.GREETING,
        "colour": greeting.COLOUR,
        "generation": 7,
        "release": "abc",
    }


def test_without_genwsgi_there_is_no_generation():
    """Under another server the generation and the release are a dash."""
    state = TestApp(create_app()).get("/state").json
    assert (state["generation"], state["release"]) == ("-", "-")


@pytest.mark.parametrize("path", ["/", "/state", "/stream?seconds=0", "/slow?seconds=0"])
def test_head_is_get_without_its_body(app, path):
    """HEAD answers with GET's headers and no body."""
    status, headers, body = call("GET", path)
    assert body != b""
    assert call("HEAD", path) == (status, headers, b"")
    assert app.head(path).status == status


def test_head_of_a_slow_request_is_quick(app):
    """HEAD waits for nothing, since there is nothing to say at the end."""
    assert app.head("/slow?seconds=120").status_int == 200


def test_unknown_path_is_404(app):
    """A path that isn't in the table is a 404 that names it, whatever bytes it is made of."""
    assert app.get("/nowhere", status=404).text == "there is no /nowhere here\n"
    assert "bücher" in app.get("/b%C3%BCcher", status=404).text
    app.get("/%FF", status=404)


@pytest.mark.parametrize(
    ("path", "allow"), [("/", "GET, HEAD"), ("/stream", "GET, HEAD"), ("/echo", "POST")]
)
def test_wrong_method_is_405(app, path, allow):
    """A method that a path doesn't take is a 405 that lists those it does."""
    assert app.delete(path, status=405).headers["Allow"] == allow


def test_slow_request_answers_after_its_time(app, monkeypatch):
    """The slow request waits as long as it is told, ten seconds otherwise and 120 at most."""
    waits: list[float] = []
    monkeypatch.setattr("demo_app.application.time.sleep", waits.append)
    answer = app.get("/slow").json
    assert answer["generation"] == 7
    assert answer["seconds"] == 10
    assert answer["farewell"] == f"{greeting.GREETING} and goodbye"
    app.get("/slow?seconds=0.25")
    assert app.get("/slow?seconds=1000").json["seconds"] == 120
    assert waits == [10, 0.25, 120]


@pytest.mark.parametrize("seconds", ["x", "-1", "nan", "inf"])
@pytest.mark.parametrize("path", ["/slow", "/stream"])
def test_seconds_must_be_a_number(app, path, seconds):
    """A number of seconds that is none is a 400 that says what to write."""
    answer = app.get(f"{path}?seconds={seconds}", status=400)
    assert "for example ?seconds=3" in answer.text


def test_echo_tells_the_length_of_an_upload(app):
    """An upload of many blocks is read to its end and its length told."""
    answer = app.post("/echo", b"x" * 200_001).json
    assert (answer["length"], answer["generation"]) == (200_001, 7)
    assert app.post("/echo", b"").json["length"] == 0


def test_echo_reads_a_body_without_a_length_only_if_the_server_ends_it():
    """A body in chunks is read to its end when the server ends it there, else not at all."""
    environ = {"wsgi.input": io.BytesIO(b"12345"), "wsgi.input_terminated": True}
    assert b'"length": 5' in call("POST", "/echo", **environ)[2]
    environ = {"wsgi.input": io.BytesIO(b"12345")}
    assert b'"length": 0' in call("POST", "/echo", **environ)[2]


def test_echo_refuses_a_body_that_was_cut_off():
    """An upload that ends before its Content-Length is a 400 that tells how much is missing."""
    environ = {"wsgi.input": io.BytesIO(b"12345"), "CONTENT_LENGTH": "8"}
    status, _, body = call("POST", "/echo", **environ)
    assert status.startswith("400")
    assert b"3 bytes before" in body


def test_echo_refuses_a_length_that_is_none():
    """A Content-Length that is no number of bytes is a 400."""
    assert call("POST", "/echo", CONTENT_LENGTH="-1")[0].startswith("400")


def test_stream_is_server_sent_events(app):
    """The stream is of the type that a browser's EventSource takes, and nobody may keep it."""
    answer = app.get("/stream?seconds=0")
    assert answer.content_type == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Content-Length" not in call("GET", "/stream?seconds=0")[1]
    assert answer.text.startswith("event: end\ndata: {")
    assert '"generation": 7' in answer.text


def test_stream_ends_with_its_time():
    """A limited stream gives an event each interval, the first at once, and ends with ``end``."""
    events = drain(Stream({"generation": 3}, seconds=0.05, interval=0.02))
    assert [name for name, _ in events] == ["tick", "tick", "tick", "end"]
    assert [data["events"] for _, data in events] == [1, 2, 3, 3]
    assert {data["generation"] for _, data in events} == {3}


def test_stream_ends_at_once_when_closed():
    """Closing a stream wakes the thread that waits for its next event, an hour early."""
    stream = Stream({}, interval=3600)
    first = next(stream)
    assert first.startswith(b"event: tick\n")
    events: list[bytes] = []
    reader = threading.Thread(target=lambda: events.extend(stream), daemon=True)
    reader.start()
    stream.close()
    reader.join(timeout=30)
    assert not reader.is_alive()
    assert events == []


def test_closed_stream_stays_closed():
    """Closing a stream twice is harmless, and it gives nothing afterwards."""
    stream = Stream({})
    stream.close()
    stream.close()
    assert list(stream) == []


@pytest.fixture
def own_server() -> Iterator[str]:
    """The address of ``python -m demo_app``."""
    # Any free port is as good as another, and the first line tells which it is.
    with Popen([executable, "-W", "error", "-m", "demo_app", "0"], stdout=PIPE, text=True) as own:
        assert own.stdout is not None
        try:
            yield own.stdout.readline().strip()
        finally:
            own.terminate()


def test_runs_without_genwsgi(own_server):
    """Under wsgiref an open stream does not keep the page and its other requests from answering."""
    with urllib.request.urlopen(f"{own_server}stream", timeout=60) as stream:
        assert stream.readline() == b"event: tick\n"
        with urllib.request.urlopen(own_server, timeout=60) as page:
            assert b"<title>" in page.read()
        with urllib.request.urlopen(f"{own_server}state", timeout=60) as state:
            assert json.load(state)["generation"] == "-"

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from benchmarks.client import Crowd, Incomplete, parse
from tests.helpers import wait_until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nv3 yes"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nv3\r\n0\r\n\r\n"

Answering = Callable[[int, Crowd], Coroutine[Any, Any, bytes]]


def visited(
    answer: Answering, *, rate: float, connections: int, until: Callable[[Crowd], bool]
) -> Crowd:
    """Return what a crowd sees of a server until something is so.

    :param answer: returns what is sent for the request of this number, and knows who visits;
        nothing: it is closed.
    """
    number = 0
    crowd: Crowd

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                number += 1
                data = await answer(number, crowd)
                if not data:
                    return
                writer.write(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run() -> Crowd:
        nonlocal crowd
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            crowd = Crowd(server.sockets[0].getsockname()[1], "/", rate, 1)
            visit = asyncio.create_task(crowd.run(connections, 60))
            await asyncio.to_thread(wait_until, lambda: until(crowd), 60, "what is asked for")
            crowd.stop.set()
            await visit
            crowd.close()
        return crowd

    return asyncio.run(asyncio.wait_for(run(), 60))


async def at_once(_number: int, _crowd: Crowd) -> bytes:
    return ANSWER


@pytest.mark.parametrize("whole", [ANSWER, CHUNKED])
def test_a_response_is_whole_with_its_last_byte(whole):
    """Every beginning of a response is incomplete, and all of it is not."""
    for length in range(len(whole)):
        with pytest.raises(Incomplete):
            parse(whole[:length])
    status, closing, body = parse(whole)
    assert (status, closing) == (200, False)
    assert b"v3" in body


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"]
)
def test_an_announced_end_is_noticed(head):
    """A response that says that its connection ends does so, and one of HTTP/1.0 as well."""
    assert parse(head + b"Content-Length: 0\r\n\r\n")[1]


def test_a_response_without_a_length_is_refused():
    """A body that only the connection's end would end can't be measured."""
    with pytest.raises(ValueError, match="without a length"):
        parse(b"HTTP/1.1 200 OK\r\n\r\nbody")


def test_who_arrives_while_the_server_stalls_is_counted_with_the_wait():
    """One stall delays all who arrive meanwhile, and each of them counts from its arrival."""

    async def stalling(number: int, crowd: Crowd) -> bytes:
        if number == 20:
            waiting = crowd._waiting
            await asyncio.to_thread(wait_until, lambda: len(waiting) >= 100, 60, "arrivals")
        return ANSWER

    crowd = visited(stalling, rate=200, connections=1, until=lambda crowd: crowd.counts["ok"] > 200)
    slow = sum(count for time, count in times(crowd) if time > 0.05)
    # Nearly all of the 100; a client that waits with its next request would have seen one.
    assert slow > 40
    assert crowd.counts["failed"] == crowd.counts["closed"] == 0


def times(crowd: Crowd) -> list[tuple[float, int]]:
    total, found, seen = crowd.times.total, [], 0
    for time, share in crowd.times.curve():
        found.append((time, round(share * total) - seen))
        seen = round(share * total)
    return found


def test_a_closed_connection_is_counted_and_replaced():
    """A connection that ends before its response is a failed request, and another is opened."""

    async def closing(number: int, _crowd: Crowd) -> bytes:
        return b"" if number == 5 else ANSWER

    crowd = visited(closing, rate=300, connections=2, until=lambda crowd: crowd.counts["ok"] > 30)
    assert (crowd.counts["failed"], crowd.counts["closed"]) == (1, 1)
    assert crowd.reasons == {"closed before the response": 1}


def test_an_announced_close_is_a_closed_connection_and_no_failed_request():
    """A response with Connection: close is whole; the connection is counted as closed."""

    async def announcing(number: int, _crowd: Crowd) -> bytes:
        return ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n") if number == 5 else ANSWER

    crowd = visited(
        announcing, rate=300, connections=2, until=lambda crowd: crowd.counts["ok"] > 30
    )
    assert (crowd.counts["failed"], crowd.counts["closed"]) == (0, 1)
    assert crowd.reasons == {"announced": 1}


def test_an_error_is_a_failed_request():
    """A whole response whose status is not 2xx is a failed request."""

    async def failing(number: int, _crowd: Crowd) -> bytes:
        return ANSWER.replace(b"200", b"500") if number == 5 else ANSWER

    crowd = visited(failing, rate=300, connections=2, until=lambda crowd: crowd.counts["ok"] > 30)
    assert crowd.counts["failed"] == 1
    assert crowd.reasons == {"status 500": 1}


def test_without_a_rate_each_connection_asks_at_once(capsys):
    """A rate of 0 sends a request as soon as the last response is there; versions are told once."""
    crowd = visited(at_once, rate=0, connections=2, until=lambda crowd: crowd.counts["ok"] > 100)
    assert crowd.counts["failed"] == crowd.counts["closed"] == 0
    assert list(crowd.first_seen) == ["v3"]
    assert capsys.readouterr().out.count('"version": "v3"') == 1

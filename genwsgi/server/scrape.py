"""Metrics by HTTP, on a socket that the master has bound and the coordinator inherits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final

from prometheus_client.exposition import choose_encoder

from genwsgi.deploy.figures import Figures
from genwsgi.server.exposition import Exposition

#: How long the coordinator may take to answer, and a client to ask, in seconds.
PATIENCE: Final = 5.0

#: Of how many clients at a time; more are sent away.
CLIENTS: Final = 8


class MetricsServer(ThreadingMixIn, TCPServer):
    """Answers on a listening socket, on threads of its own.

    :param listener: of either family; it stays open when this ends.
    :param ask: returns the figures of this moment, or raises TimeoutError; any thread may call it.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, ask: Callable[[float], Figures]) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.ask = ask
        self._free = threading.BoundedSemaphore(CLIENTS)

    def start(self) -> None:
        """Answer from now on, for as long as the process lives."""
        threading.Thread(target=self.serve_forever, name="genwsgi-metrics", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread, unless too many are being answered."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, on the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to talk about."""


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = PATIENCE

    def do_GET(self) -> None:
        if self.path.partition("?")[0] not in ("/", "/metrics"):
            self._answer(404, "text/plain", b"the metrics are at /metrics\n")
            return
        try:
            figures = self.server.ask(PATIENCE)
        except Exception as error:  # noqa: BLE001 -- it is told to whoever asks, again and again
            self._answer(503, "text/plain", f"not now, ask again: {error!r}\n".encode())
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._answer(200, content_type, encode(Exposition(figures)))

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- as its base has it
        pass

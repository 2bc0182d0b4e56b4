"""``python -m demo_app [PORT]``: the same application without genwsgi, under wsgiref."""

from __future__ import annotations

import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

from demo_app import create_app


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection: the page's stream stays open beside its other requests."""

    daemon_threads = True


def main() -> None:
    """Serve on port 8000 of this machine, or on the one that the command line names."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with make_server("127.0.0.1", port, create_app(), server_class=Server) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass  # the usual way to end it


if __name__ == "__main__":
    main()

"""nginx in front of a server, as docs/nginx.md has it, and wrk in front of nginx."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import wait_until
from tests.process.harness import COMMITTED, Server, application, paced, serving
from tests.rabbitmq import free_ports

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "nginx.md"

#: What is around the document's text: a server of this user's own, in one folder.
AROUND = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{text}
}}
"""

#: Debian has it where an ordinary user does not look.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"

#: How many connections wrk holds, and so how many nginx has use for.
CLIENTS = 16

_ESTABLISHED = "01"


@dataclass(frozen=True)
class Run:
    """What became of nginx's connections and of wrk's requests.

    :ivar deploys: how many were committed meanwhile.
    :ivar requests: how many wrk has made.
    :ivar errors: what wrk and nginx complain of.
    :ivar kept: connections of nginx to the server that were open all the time.
    :ivar closed: those that were open before the first deploy, and not after the last.
    :ivar opened: those that came in between.
    """

    deploys: int
    requests: int
    errors: list[str]
    kept: int
    closed: int
    opened: int


def run(folder: Path, deploys: int, seconds: float, *options: str) -> Run:
    """Have wrk ask nginx while ``deploys`` releases, ``seconds`` apart, are deployed behind it.

    :param folder: an empty one.
    :param deploys: 0 for ``seconds`` without any, to compare with.
    :param options: of the server.
    """
    application(folder, "v0")
    with serving(folder, *options) as server, nginx(folder / "nginx", server.port) as port:
        # It is told when to end: nginx closes a connection whose answer nobody waits for any more.
        wrk = subprocess.Popen(
            ["wrk", "-t1", f"-c{CLIENTS}", "-d1h", f"http://127.0.0.1:{port}/"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            before = wait_until(lambda: _all_open(server), 60, "nginx's connections")
            for number in paced(max(deploys, 1), seconds):
                if deploys:
                    application(folder, f"v{number}")
                    server.wait_for_log(COMMITTED, count=number)
            after = connections(server)
            wrk.send_signal(signal.SIGINT)
            output, _ = wrk.communicate(timeout=60)
        finally:
            wrk.kill()
            wrk.wait(10)
        complaints = re.findall(r"(?:Socket errors|Non-2xx).*", output)
        complaints += (folder / "nginx" / "error.log").read_text().splitlines()
        match = re.search(r"(\d+) requests in", output)
        assert match, output
        return Run(
            deploys,
            int(match[1]),
            complaints,
            len(before & after),
            len(before - after),
            len(after - before),
        )


def _all_open(server: Server) -> set[int]:
    """The connections of nginx, if it has as many as wrk: it may need fewer, but gets them soon."""
    found = connections(server)
    return found if len(found) >= CLIENTS else set()


def connections(server: Server) -> set[int]:
    """The open connections to a server, by the clients' ports (proc(5))."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if state == _ESTABLISHED and int(remote.partition(":")[2], 16) == server.port:
            found.add(int(local.partition(":")[2], 16))
    return found


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """Run nginx in front of the port ``upstream`` until the block ends; give the port it has."""
    folder.mkdir()
    (port,) = free_ports(1)
    (text,) = re.findall(r"^```nginx\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, text=text))
    command: list[str | Path] = [
        NGINX,
        "-p",
        folder,
        "-c",
        folder / "nginx.conf",
        "-e",
        folder / "error.log",
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), what="nginx")
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True

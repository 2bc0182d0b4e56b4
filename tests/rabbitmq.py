"""A RabbitMQ of the tests' own: a private node with its own ports, folders and epmd.

Nothing of it is shared with a broker that the machine may run besides: the node's name, all of its
ports and the port of Erlang's name server (epmd) are chosen for it, and it is ended by its pid.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from tests.helpers import wait_until

#: The package's own script; the one on the PATH would change to the user rabbitmq.
SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

MISSING = (
    f"{SCRIPT} is not there: these tests talk to a real broker, which they start by themselves; "
    "install it: apt-get install --no-install-recommends rabbitmq-server"
)

#: Seconds that a node may take to listen; five are usual, and the machine may be busy.
BOOT = 90.0


#: Where ports are looked for: below those that the kernel gives to connections, of which there are
#: thousands while tests run, so that none of these is taken before the node listens on it.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return ``count`` ports of 127.0.0.1 that nothing listens on, and no other test is to."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            _reserve(port)
            found.append(port)
    return found


def _reserve(port: int) -> None:
    """Keep ``port`` for this process until it ends: a node takes seconds to listen there.

    :raises OSError: another process has it, whose tests run at the same time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mark:
        # A name without a file, which is free again with its process (unix(7)).
        mark.bind(f"\0genwsgi-tests-port-{port}")
        mark.detach()


class Broker:
    """One private node, which can be killed, started again on the same data, and suspended.

    :ivar port: where it speaks AMQP.
    :ivar tls_port: where it speaks AMQP within TLS and asks for a client's certificate.
    :ivar certificates: a folder with ``ca.pem``, and ``server`` and ``client`` with ``.pem`` and
        ``.key``.
    """

    def __init__(self, folder: Path) -> None:
        if not SCRIPT.exists():
            raise FileNotFoundError(MISSING)
        self.folder = folder
        self.port, self.tls_port, self._dist, self._epmd_port = free_ports(4)
        self.certificates = folder / "certificates"
        self._node: subprocess.Popen[bytes] | None = None
        self._make_certificates()
        (folder / "plugins").write_text("[].\n")
        (folder / "env.conf").write_text("")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.cacertfile = {self.certificates}/ca.pem\n"
            f"ssl_options.certfile = {self.certificates}/server.pem\n"
            f"ssl_options.keyfile = {self.certificates}/server.key\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = true\n"
            "log.file.level = warning\n"
        )
        self._env = {
            **os.environ,
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"genwsgi-{uuid.uuid4().hex[:12]}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            # Or else a node that can't start leaves it where the tests are run.
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            # One scheduler that sleeps when there is nothing to do: the tests need the machine.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            # The script then becomes the node, so that the node's pid is ours to signal.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        # In the foreground, or else the node would start one that outlives it.
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(self._epmd_port)],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._epmd_listens, what="epmd")

    def _epmd_listens(self) -> bool:
        assert self._epmd.poll() is None, f"epmd ended with {self._epmd.returncode}"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._epmd_port)) == 0

    @property
    def running(self) -> bool:
        """Whether the node's process is there."""
        return self._node is not None and self._node.poll() is None

    @property
    def url(self) -> str:
        """What reaches it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def tls(self) -> dict[str, str]:
        """What reaches it within TLS: the URL, and the files that its clients show and believe."""
        files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
        return {
            "url": f"amqps://guest:guest@127.0.0.1:{self.tls_port}/",
            **{name: str(self.certificates / file) for name, file in files.items()},
        }

    def start(self) -> None:
        """Start the node and wait until it answers."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start the node on the data that it has, and don't wait."""
        with open(self.folder / "output", "ab") as output:
            self._node = subprocess.Popen(
                [SCRIPT], env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def wait(self) -> None:
        """Wait until the node answers."""
        wait_until(self._answers, BOOT, "RabbitMQ to answer")

    def _answers(self) -> bool:
        assert self._node is not None
        if self._node.poll() is not None:
            output = (self.folder / "output").read_text(errors="replace")
            raise RuntimeError(f"RabbitMQ ended with {self._node.returncode}:\n{output}")
        try:
            self.connect().close()
        except (OSError, pika.exceptions.AMQPError):
            return False
        return True

    def connect(self) -> pika.BlockingConnection:
        """Return a bare connection to the node."""
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 10
        return pika.BlockingConnection(parameters)

    def control(self, *words: str) -> None:
        """Run ``rabbitmqctl`` for the node."""
        script = SCRIPT.with_name("rabbitmqctl")
        subprocess.run([script, *words], env=self._env, check=True, capture_output=True, timeout=60)

    def kill(self) -> None:
        """End the node as ``kill -9`` does; its data stay."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Have it stop answering, its connections open."""
        assert self._node is not None
        self._node.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it answer again."""
        assert self._node is not None
        self._node.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the node and its epmd."""
        self._end(signal.SIGKILL)
        self._epmd.kill()
        self._epmd.wait(10)

    def _end(self, number: int) -> None:
        if self._node is not None:
            self._node.send_signal(number)
            self._node.wait(30)
            self._node = None

    def _make_certificates(self) -> None:
        self.certificates.mkdir()
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl("req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=tests", *usage)
        for name in ("server", "client"):
            extension = self.certificates / f"{name}.ext"
            extension.write_text(
                "subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n"
            )
            request = ("req", "-new", "-nodes", "-subj", f"/CN={name}")
            self._openssl(*request, "-keyout", f"{name}.key", "-out", f"{name}.csr")
            sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
            files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", str(extension))
            self._openssl("x509", "-req", *sign, *files)

    def _openssl(self, *arguments: str) -> None:
        if "-x509" in arguments:
            arguments += ("-newkey", "rsa:2048", "-keyout", "ca.key", "-out", "ca.pem")
        elif arguments[0] == "req":
            arguments += ("-newkey", "rsa:2048")
        subprocess.run(
            ["openssl", *arguments], cwd=self.certificates, check=True, capture_output=True
        )


@contextlib.contextmanager
def running() -> Iterator[Broker]:
    """A node that runs until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="genwsgi-rabbitmq-"))
    try:
        broker = Broker(folder)
        try:
            broker.start()
            yield broker
        finally:
            broker.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def the_broker() -> Iterator[Broker]:
    """The one node of this run of the tests."""
    with running() as broker:
        yield broker


@pytest.fixture
def broker(the_broker: Broker) -> Broker:
    """The node, running and answering, whatever the test before has done to it."""
    if the_broker.running:
        the_broker.resume()
    else:
        the_broker.begin()
    the_broker.wait()
    return the_broker

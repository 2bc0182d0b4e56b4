"""Real servers, real workers and a real broker: orders by message, to one host and to several."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from genwsgi.triggers.amqp.signing import signed
from tests.gates import AT_GATE, Shut
from tests.helpers import wait_until
from tests.process.fleet import BROKEN_ON, KEY, Fleet, fleet_of, offences
from tests.process.harness import application, put, run_command, scraped, serving
from tests.rabbitmq import Broker

#: From the message to the first new response, in seconds: the median of several.  Far more than it
#: takes, which `python -m benchmarks.fleet` measures where nothing else runs.
SOON = 5.0

#: From the return of a broker to new responses, in seconds.
BACK = 30.0


def test_the_message_of_existing_publishers_deploys_under_load(
    tmp_path: Path, broker: Broker
) -> None:
    """Sent with bare pika it is a deploy: soon, without a failed request or a closed connection."""
    with fleet_of(tmp_path, broker, 1, signed=False) as fleet:
        (server,) = fleet.servers
        taken: list[float] = []
        with fleet.load(8) as tallies:
            (tally,) = tallies
            for number in range(1, 10):
                version = f"v{number}"
                folder = fleet.release(version)
                sent = time.monotonic()
                fleet.publish_path(folder)
                wait_until(partial(tally.first_seen.get, version), 60, version)
                taken.append(tally.first_seen[version] - sent)
            put(folder / "myapp.py", (folder / "myapp.py").read_text().replace(version, "anew"))
            fleet.publish_path(Path("/nowhere"), append=False)
            wait_until(lambda: "anew" in tally.versions, 60, "the folder to be read anew")
        assert offences(tallies) == []
        # What is committed is where it is now: for new workers and for another coordinator.
        before = set(server.workers())
        for worker in before:
            os.kill(worker, signal.SIGTERM)
        os.kill(server.coordinator(), signal.SIGKILL)
        server.wait_for_log("orders are heard from", count=2)
        wait_until(
            lambda: len(now := server.workers()) == 2 and not before & set(now), 60, "new workers"
        )
        fleet.wait_for("anew")
        put(folder / "myapp.py", (folder / "myapp.py").read_text().replace("anew", "newer"))
        fleet.publish_path(folder, append=False)
        fleet.wait_for("newer")
    assert statistics.median(taken) <= SOON, taken


def test_all_hosts_go_live_or_none(tmp_path: Path, broker: Broker) -> None:
    """Under load, all are on one version after each deploy; broken on one of them, none changes."""
    with fleet_of(tmp_path, broker, 3) as fleet:
        with fleet.load() as tallies:
            for number in range(1, 4):
                status, text = fleet.together(fleet.release(f"v{number}"))
                assert status == 0, text
                assert fleet.versions() == {f"v{number}"}
            status, text = fleet.together(fleet.release("v4", BROKEN_ON.format(number=1)))
            assert status == 1
            assert "broken here" in text
            assert "none has changed" in text
            assert fleet.versions() == {"v3"}
        assert offences(tallies) == []
        assert all(set(tally.versions) <= {"v0", "v1", "v2", "v3"} for tally in tallies)


def waiting(place: Path) -> str:
    """What the code of a release begins with that waits at a gate."""
    return f"{AT_GATE}wait_at_gate({str(place)!r})\n"


def test_a_broker_that_dies_in_mid_deploy(tmp_path: Path, broker: Broker, shut: Shut) -> None:
    """Killed while all prepare, and started again: outcomes come, and all are on one version."""
    gate = shut("gate")
    with fleet_of(tmp_path, broker, 2) as fleet:
        slow = fleet.release("v1", waiting(tmp_path / "gate"))
        with fleet.load() as tallies:
            process = fleet.begin("--all-or-none", "--expect=2", f"--path={slow}", "--timeout=100")
            for server in fleet.servers:
                server.wait_for_log("deploy by amqp")
            broker.kill()
            broker.start()
            gate.open()
            text, _ = process.communicate(timeout=120)
        assert process.returncode == 0, text
        assert text.count("committed") == 2
        assert fleet.versions() == {"v1"}
        assert offences(tallies) == []


def test_a_coordinator_that_dies_in_mid_deploy(tmp_path: Path, broker: Broker, shut: Shut) -> None:
    """The next one goes on with the order, and the sender hears how it ended."""
    gate = shut("gate")
    with fleet_of(tmp_path, broker, 2) as fleet:
        slow = fleet.release("v1", waiting(tmp_path / "gate"))
        process = fleet.begin("--all-or-none", "--expect=2", f"--path={slow}", "--timeout=60")
        fleet.servers[0].wait_for_log("deploy by amqp")
        os.kill(fleet.servers[0].coordinator(), signal.SIGKILL)
        gate.open()
        text, _ = process.communicate(timeout=90)
        assert process.returncode == 0, text
        assert fleet.versions() == {"v1"}


def test_a_sender_that_dies_leaves_nothing_held(tmp_path: Path, broker: Broker) -> None:
    """What the hosts hold they drop when its time is up, and the next order is served."""
    with fleet_of(tmp_path, broker, 2) as fleet:
        order = {"id": "held", "step": "prepare", "hold": 2, "issued_at": int(time.time())}
        order |= {"is_append_path": True, "physical_path": str(fleet.release("v1"))}
        body = json.dumps(signed(order, [KEY.encode()])).encode()
        fleet.publish(body)
        for server in fleet.servers:
            server.wait_for_log("prepared, and held for the word for 2 s")
        assert fleet.versions() == {"v0"}
        for server in fleet.servers:
            server.wait_for_log("no word came within 2 s")
        status, text = fleet.together(fleet.release("v2"))
        assert status == 0, text
        assert fleet.versions() == {"v2"}


def test_a_host_that_dies_while_all_prepare_keeps_the_others_as_they_are(
    tmp_path: Path, broker: Broker, shut: Shut
) -> None:
    """It is named by the sender, and the host that had prepared drops what it held."""
    gate = shut("gate")
    with fleet_of(tmp_path, broker, 2) as fleet:
        alive, dying = fleet.servers
        slow = fleet.release("v1", waiting(tmp_path / "gate"))
        process = fleet.begin("--all-or-none", "--expect=2", f"--path={slow}", "--timeout=6")
        dying.wait_for_log("deploy by amqp")
        orphans = dying.workers()
        # Stopped, its master starts no other coordinator before it dies as well.
        dying.process.send_signal(signal.SIGSTOP)
        os.kill(dying.coordinator(), signal.SIGKILL)
        dying.process.kill()
        gate.open()
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "not all were ready within 6 s" in text
        assert re.search(rf"{dying.run_dir} .*no answer", text), text
        alive.wait_for_log("failed: the sender calls it off")
        assert alive.get().startswith("v0")
        dying.process.wait(20)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), 60)


def refusals(fleet: Fleet) -> dict[str, Callable[[Path], bytes]]:
    """Messages that must be refused, each made for a release whose import leaves a mark."""
    now = int(time.time())

    def order(path: Path, key: str = KEY, late: dict[str, Any] | None = None, **more: Any) -> bytes:
        fields: dict[str, Any] = {"model_path": "myapp", "is_append_path": True}
        fields |= {"physical_path": str(path), "id": path.name, "issued_at": now, **more}
        return json.dumps({**signed(fields, [key.encode()]), **(late or {})}).encode()

    def elsewhere(path: Path) -> bytes:
        return order(path.rename(fleet.root / path.name))

    def writable(path: Path) -> bytes:
        path.chmod(0o777)
        return order(path)

    def writable_file(path: Path) -> bytes:
        (path / "myapp.py").chmod(0o666)
        return order(path)

    def foreign(path: Path) -> bytes:
        if os.geteuid() == 0:
            os.chown(path / "myapp.py", 12345, 12345)
        else:
            path.chmod(0o777)  # what this user can do to the same end
        return order(path)

    def link(path: Path) -> bytes:
        (fleet.releases / f"{path.name}-link").symlink_to(path.rename(fleet.root / path.name))
        return order(fleet.releases / f"{path.name}-link")

    def unsigned(path: Path) -> bytes:
        fields = {"model_path": "myapp", "is_append_path": True, "physical_path": str(path)}
        return json.dumps(fields).encode()

    return {
        "unsigned": unsigned,
        "signed by another": partial(order, key="another key of somebody"),
        "forged": lambda path: order(path, late={"release": "changed afterwards"}),
        "expired": partial(order, expires=now - 1),
        "too old": partial(order, issued_at=now - 100_000),
        "from the future": partial(order, issued_at=now + 100_000),
        "of an unknown field": partial(order, expire=now + 60),
        "of a wrong type": partial(order, modules="myapp"),
        "for a module that is not there": partial(order, model_path="myapp.none"),
        "elsewhere": elsewhere,
        "behind a link to elsewhere": link,
        "in a folder that others may write": writable,
        "with a file that others may write": writable_file,
        "with a file of somebody else": foreign,
        "the root itself": lambda path: order(path.parent, id="root"),
        "no JSON": lambda path: order(path)[:-1],
        "too large": lambda path: order(path, release="x" * 70_000),
        "nested": lambda _path: b"[" * 60_000,
        "empty": lambda _path: b"",
    }


def test_every_refusal_imports_nothing(tmp_path: Path, broker: Broker) -> None:
    """Whatever is wrong with a message, nothing of it is imported; the next good one is obeyed."""
    with fleet_of(tmp_path, broker, 1) as fleet:
        (server,) = fleet.servers
        mark = tmp_path / "imported"
        names = refusals(fleet)
        for count, (name, make) in enumerate(names.items(), 1):
            folder = fleet.release(f"bad{count}", f"open({str(mark)!r}, 'a').close()\n")
            fleet.publish(make(folder))
            server.wait_for_log(r"refused: ", count=count)
            assert not mark.exists(), name
        assert len(names) == server.log().count("refused: "), "not once each"
        assert fleet.versions() == {"v0"}
        status, text = fleet.together(fleet.release("v1"))
        assert status == 0, text
        assert fleet.versions() == {"v1"}
        assert "Traceback" not in server.log()


def test_a_broker_that_is_away_costs_no_request(tmp_path: Path, broker: Broker) -> None:
    """An order that is published as it comes back is live in seconds; the metrics tell of both."""
    with fleet_of(tmp_path, broker, 1, "--metrics=127.0.0.1:0") as fleet:
        folder = fleet.release("v1")
        where = fleet.servers[0].wait_for_log(r"Metrics at: (\S+)")[1]
        connected = 'genwsgi_broker_connected{trigger="amqp"} '
        assert f"{connected}1.0" in scraped(where)
        with fleet.load(8) as tallies:
            broker.kill()
            fleet.servers[0].wait_for_log("no orders from the broker")
            assert f"{connected}0.0" in scraped(where)
            publisher = threading.Thread(target=fleet.notify, args=[f"--path={folder}"])
            publisher.start()
            before = tallies[0].ok
            wait_until(lambda: tallies[0].ok > before + 300, 60, "requests without a broker")
            broker.start()
            wait_until(lambda: "v1" in tallies[0].versions, BACK, "the order")
            publisher.join(120)
        assert offences(tallies) == []
        assert f"{connected}1.0" in scraped(where)


def test_the_password_of_the_broker_is_shown_nowhere(tmp_path: Path) -> None:
    """Neither the log, nor the configuration shown, nor the list of processes has it; and a broker
    that is not there keeps nobody from serving.
    """
    application(tmp_path, "v0")
    url = "amqp://shop:topsecret@127.0.0.1:1/shop"
    options = [f"--amqp={url}", "--amqp-allow-unsigned", "--log-level=debug"]
    with serving(tmp_path, *options) as server:
        server.wait_for_log(
            r"no orders from the broker amqp://shop:\*\*\*@127.0.0.1:1/shop: .*refused"
        )
        pids = [server.process.pid, server.coordinator(), *server.workers()]
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
        assert b"amqp://shop:*********@127.0.0.1:1/shop" in lines[0]
        assert server.get().startswith("v0")
    shown = run_command(tmp_path, *options, "--print-config", "myapp:create_app")
    assert "amqp://shop:***@127.0.0.1:1/shop" in shown.stdout
    for text in (server.log(), shown.stdout, shown.stderr, repr(lines)):
        assert "topsecret" not in text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--amqp=amqp://h/"], "nobody's order could be believed"),
        (["--amqp=amqp://h/", "--amqp-key-file=open.key"], "open.key is open to others (mode 644)"),
        (["--amqp=amqp://h/", "--amqp-key-file=none.key"], "none.key can't be read"),
        (["--amqp=http://u:topsecret@h/", "--amqp-allow-unsigned"], "the URL of a broker"),
        (["--amqp=amqp://h/", "--amqp-allow-unsigned", "--amqp-ca=x"], "for amqps:// only"),
        (["--release-root=/srv"], "--release-root without --amqp"),
        (["--amqp-allow-unsigned"], "--amqp-allow-unsigned without --amqp"),
    ],
)
def test_options_that_can_not_be_meant_are_refused_in_a_line(
    tmp_path: Path, options: list[str], reason: str
) -> None:
    """The server does not start, and one line says what to do."""
    application(tmp_path, "v0")
    (tmp_path / "open.key").write_text(KEY)
    (tmp_path / "open.key").chmod(0o644)
    done = run_command(tmp_path, *options, "myapp:create_app")
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    assert reason in line
    assert "topsecret" not in line

"""The units of docs/systemd.md are tried by systemd's own check, which needs none that runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genwsgi.ctl.__main__ import parser
from genwsgi.server.settings import GenwsgiConfig, check

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "systemd.md"

#: Where the document has its virtual environment.
VENV = "/srv/shop/.venv/bin/"


def units() -> dict[str, str]:
    """The units by their file's name, which is in the first line of each."""
    blocks = re.findall(r"^```ini\n# \S+/(\S+)\n(.*?)^```$", DOCUMENT.read_text(), re.S | re.M)
    return dict(blocks)


def command(key: str, name: str) -> list[str]:
    """The arguments with which the service's ``key`` starts the command ``name``."""
    (line,) = re.findall(rf"^{key}={re.escape(VENV + name)} (.*)$", units()["shop.service"], re.M)
    return shlex.split(line)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_has_nothing_to_say_against_them(tmp_path: Path) -> None:
    """Every key and every value is one that systemd knows."""
    found = units()
    assert set(found) == {"shop.service", "shop.socket"}
    for name, text in found.items():
        here = text.replace(VENV, f"{Path(sys.executable).parent}/")
        (tmp_path / name).write_text(here.replace("=/srv/shop\n", f"={tmp_path}\n"))
    paths = [str(tmp_path / name) for name in found]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_its_commands_can_be_obeyed() -> None:
    """ExecStart and ExecReload have options that there are, and speak of one run directory."""
    cfg = GenwsgiConfig()
    given = cfg.parser().parse_args(command("ExecStart", "genwsgi"))
    for name, value in vars(given).items():
        if value is not None and name != "args":
            cfg.set(name, value)
    check(cfg)
    reload = parser().parse_args(command("ExecReload", "genwsgictl"))
    assert (reload.run_dir, reload.wait) == (cfg.run_dir, True)


def test_it_waits_for_as_long_as_the_server_needs() -> None:
    """Nobody is killed who still has time by the limits of the server itself."""
    unit = units()["shop.service"]
    cfg = GenwsgiConfig()
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert int(stop) > cfg.graceful_timeout
    (start,) = re.findall(r"^TimeoutStartSec=(\d+)min$", unit, re.M)
    assert int(start) * 60 > 2 * cfg.build_timeout

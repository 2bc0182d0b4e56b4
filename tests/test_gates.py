"""Gates, at which code under test waits."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.gates import AT_GATE, AtGate, Gate, Shut, wait_at_gate

#: Says that it has come, waits, and says that it goes on.
PROGRAM = f"{AT_GATE}print('waits', flush=True)\nwait_at_gate('gate')\nprint('goes on')\n"


def test_who_comes_waits_until_it_is_opened(tmp_path: Path, shut: Shut) -> None:
    """A shut gate lets nobody through, an opened one those who wait, and who comes later."""
    gate, place = shut("gate"), str(tmp_path / "gate")
    with closing(AtGate(place)) as here:
        assert not here.opens(0.0)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(wait_at_gate, place) for _ in range(3)]
            gate.open()
            assert [one.result(30) for one in waiting] == [None] * 3
        assert here.opens(30.0)
        assert here.opens(0.0)
    wait_at_gate(place)


def test_nobody_waits_where_there_is_no_gate(tmp_path: Path) -> None:
    """Without a gate, in whatever folder, code goes on."""
    deep = tmp_path / ("long" * 40)
    deep.mkdir()
    wait_at_gate(str(deep / "gate"))
    with Gate(deep / "gate"), closing(AtGate(str(deep / "gate"))) as here:
        assert not here.opens(0.0)
    wait_at_gate(str(deep / "gate"))


@pytest.mark.parametrize("patch", ["", "from gevent import monkey\nmonkey.patch_all()\n"])
def test_a_process_waits_and_goes_on(tmp_path: Path, shut: Shut, patch: str) -> None:
    """What an application begins with is all that it needs, with gevent's patches as well."""
    gate = shut("gate")
    with subprocess.Popen(
        [sys.executable, "-c", patch + PROGRAM], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        gate.open()
        assert process.communicate(timeout=60)[0] == "goes on\n"

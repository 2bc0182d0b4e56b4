"""The folder of a process's snapshots."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from genwsgi.folder import Folder
from tests.helpers import wait_until

CODE = """
import sys, time
from genwsgi.folder import Folder
print(Folder("genwsgi-test-").path, flush=True)
sys.stdin.read()
"""


def test_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process has left is removed by a later one; what is in use, or new, is not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        for _ in range(3)
    ]
    try:
        folders = []
        for process in processes:
            assert process.stdout is not None
            folders.append(process.stdout.readline().strip())
        old = time.time() - 3600
        for folder in folders:
            os.utime(folder, (old, old))
        new = tmp_path / "genwsgi-test-new"
        new.mkdir()
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait(10)
        assert os.path.isdir(folders[0])
        mine = Folder("genwsgi-test-")
        left = {str(path) for path in tmp_path.iterdir()}
        assert left == {mine.path, folders[1], folders[2], str(new)}
        processes[1].communicate(timeout=10)
        wait_until(lambda: not os.path.exists(folders[1]), what="it removes its own")
    finally:
        for process in processes:
            process.kill()
            process.communicate()

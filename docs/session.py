"""Make the session in the README: run the real command, deploy well and badly, and write it down.

Run from anywhere: ``python docs/session.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- session: begin -->\n", "<!-- session: end -->"
DEADLINE = 20.0


class Session:
    """The server and what was typed beside it."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(ROOT / "demo_app", folder / "demo_app")
        self.greeting = folder / "demo_app" / "greeting.py"
        self.log = folder / "log"
        self.shown = 0
        self.lines = ["$ genwsgi -w 2 demo_app &"]
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "genwsgi", "-w", "2", "-b", "127.0.0.1:0", "demo_app"],
                cwd=folder,
                stderr=log,
            )
        found = self.wait(r"Listening at: (http://\S+)")
        self.url = found[1]
        self.wait(r"unchanged|is this code")

    def wait(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log that has not been waited for yet."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            text = self.log.read_text()
            found = re.compile(pattern).search(text, self.shown)
            if found is not None:
                self.shown = text.find("\n", found.end())
                return found
            time.sleep(0.02)
        raise SystemExit(f"{pattern!r} did not come:\n{self.log.read_text()}")

    def ask(self) -> None:
        """Show what the server answers."""
        with urllib.request.urlopen(self.url + "/state", timeout=DEADLINE) as response:
            self.lines += ["$ curl -s localhost:8000/state", response.read().decode().rstrip()]

    def edit(self, old: str, new: str) -> None:
        """Show an edit and make it."""
        self.lines.append(f"$ sed -i 's/{old}/{new}/' demo_app/greeting.py")
        self.greeting.write_text(self.greeting.read_text().replace(old, new, 1))

    def say(self, text: str) -> None:
        """Show what the log says, without the times and pids."""
        text = text.replace(str(self.greeting.parent.parent) + "/", "")
        self.lines += [re.sub(r"^\[[^]]*\] \[\d+\] ", "", line) for line in text.splitlines()]


def main() -> None:
    """Run the session and put it into the README."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder).resolve())
        try:
            session.ask()
            session.edit('"Hello"', '"Good evening"')
            session.say(session.wait(r"\[INFO\] .*: committed: .*")[0])
            session.ask()
            session.edit('"Good evening"', '"Good evening')
            session.say(session.wait(r"\[ERROR\] .*: failed: .*(\n(?!\[).*)*")[0])
            session.ask()
        finally:
            session.server.terminate()
            session.server.wait(DEADLINE)
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    body = "\n".join(session.lines)
    readme.write_text(f"{before}{BEGIN}```console\n{body}\n```\n{END}{after}")


if __name__ == "__main__":
    main()

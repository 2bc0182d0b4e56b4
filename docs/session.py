"""Make the sessions in the documents: run the real commands, and write down what they show.

Run from anywhere: ``python docs/session.py``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "genwsgictl.md")
DEADLINE = 20.0

#: The commands, as they are run here.
PROGRAMS = {"genwsgi": "genwsgi", "genwsgictl": "genwsgi.ctl"}


class Session:
    """A folder with the demo in it, a server that serves it, and what was typed beside it.

    :param run_time: an empty folder, for run-time files.
    :ivar lines: what was typed and shown since :meth:`cut` was called last.
    """

    def __init__(self, run_time: Path) -> None:
        self.folder = folder = run_time / "served"
        shutil.copytree(ROOT / "demo_app", folder / "demo_app")
        self.run_time = run_time
        self.greeting = folder / "demo_app" / "greeting.py"
        self.lines: list[str] = []
        self.env = {
            **os.environ,
            "LOGNAME": "me",
            "TMPDIR": str(run_time),
            "XDG_RUNTIME_DIR": str(run_time),
            "XDG_STATE_HOME": str(folder / "state"),
        }

    @contextmanager
    def serve(self, options: str = "") -> Iterator[str]:
        """Show that a server is started, and run it for the length of the block; give its URL."""
        self.lines.append(f"$ genwsgi {options}demo_app &")
        log = self.folder / "log"
        with log.open("wb") as stream:
            words = ["genwsgi", "-b", "127.0.0.1:0", *shlex.split(options), "demo_app"]
            server = self.start(words, stream.fileno())
        try:
            url = self.wait(lambda: re.search(r"Listening at: (http://\S+)", log.read_text()))[1]
            self.wait(lambda: re.search(r"unchanged|is this code", log.read_text()))
            yield url
        finally:
            server.terminate()
            server.wait(DEADLINE)

    def start(self, words: list[str], output: int) -> subprocess.Popen[bytes]:
        """Start a command of ours."""
        command = [sys.executable, "-m", PROGRAMS[words[0]], *words[1:]]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=output, stderr=subprocess.STDOUT
        )

    def wait(self, look):  # type: ignore[no-untyped-def]  # of whatever it is that comes
        """Wait until ``look()`` finds something; return that."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.02)
        raise SystemExit(f"it did not come:\n{(self.folder / 'log').read_text()}")

    def run(self, line: str) -> str:
        """Show a command of ours and what it shows."""
        process = self.start(shlex.split(line), subprocess.PIPE)
        text = process.communicate(timeout=60)[0].decode()
        self.lines += [f"$ {line}", *self.tidy(text).splitlines()]
        return text

    def tidy(self, text: str) -> str:
        """Return ``text`` with names as they are elsewhere."""
        text = text.replace(f"{self.folder}/", "").replace(str(self.run_time), "/run/user/1000")
        return text.replace(socket.gethostname(), "web1")

    def ask(self, url: str) -> None:
        """Show what the server answers."""
        with urllib.request.urlopen(f"{url}/state", timeout=DEADLINE) as response:
            self.lines += ["$ curl -s localhost:8000/state", response.read().decode().rstrip()]

    def edit(self, old: str, new: str) -> None:
        """Show an edit and make it."""
        self.lines.append(f"$ sed -i 's/{old}/{new}/' demo_app/greeting.py")
        self.greeting.write_text(self.greeting.read_text().replace(old, new, 1))

    def served(self, url: str, word: str) -> None:
        """Wait until the server answers with ``word``."""

        def look() -> bool:
            with urllib.request.urlopen(f"{url}/state", timeout=DEADLINE) as response:
                return word in response.read().decode()

        self.wait(look)

    def cut(self) -> str:
        """Return what was typed and shown, as a block of a document, and begin anew."""
        body, self.lines = "\n".join(self.lines), []
        return f"```console\n{body}\n```\n"


def short(session: Session) -> dict[str, str]:
    """The README's session: a start, an edit, the status, a failing deploy, a way back."""
    with session.serve("-w 2 ") as url:
        session.ask(url)
        session.edit('"Hello"', '"Good evening"')
        session.served(url, "evening")
        session.ask(url)
        session.run("genwsgictl status")
        session.edit('"Good evening"', '"Good evening')
        session.run("genwsgictl deploy")
        session.run("genwsgictl rollback")
        session.ask(url)
        return {"session": session.cut()}


def long(session: Session) -> dict[str, str]:
    """The reference's sessions, one for each of the commands."""
    blocks = {}
    with session.serve("-w 2 ") as url:
        session.cut()
        # Its response is owed by the generation that was there when it began.
        with urllib.request.urlopen(f"{url}/stream", timeout=DEADLINE) as stream:
            stream.readline()
            session.edit('"Hello"', '"Good evening"')
            session.served(url, "evening")
            session.cut()
            session.run("genwsgictl status")
            blocks["status"] = session.cut()
        session.run("genwsgictl pause -m 'by hand today'")
        session.cut()
        session.edit('"Good evening"', '"Good night"')
        session.run("genwsgictl deploy -m 'it is late'")
        blocks["deploy"] = session.cut()
        session.run("genwsgictl diff")
        blocks["diff"] = session.cut()
        session.edit('"Good night"', '"Good night')
        session.run("genwsgictl deploy")
        blocks["failing"] = session.cut()
        session.run("genwsgictl rollback -m 'too early'")
        blocks["rollback"] = session.cut()
        session.run("genwsgictl history")
        blocks["history"] = session.cut()
        session.edit('"Good night', '"Good night"')
        with session.serve(f"--run-dir {session.run_time}/other "):
            session.cut()
            session.run("genwsgictl status")
            blocks["several"] = session.cut()
    return blocks


def main() -> None:
    """Run the sessions and put them into the documents."""
    blocks: dict[str, str] = {}
    for make in (short, long):
        # As long as what it is shown as, or columns would not be below each other.
        with tempfile.TemporaryDirectory(prefix="g") as folder:
            blocks |= make(Session(Path(folder).resolve()))
    for document in DOCUMENTS:
        text = document.read_text()
        for name, block in blocks.items():
            pattern = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
            text = re.sub(
                pattern, lambda found, block=block: found[1] + block + found[2], text, flags=re.S
            )
        document.write_text(text)


if __name__ == "__main__":
    main()

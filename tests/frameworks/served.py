"""A site of a framework, served by the real command, and those who visit it.

A site is a folder below ``sites/`` whose files have the version ``v0`` in many places.  A deploy
copies it with another version in all of them, and flips the symlink that the site is served from.
Whatever a page shows of its version it shows as a mark, ``[view v3]``: marks in one response must
agree, for they come from one request.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from tests.helpers import wait_until
from tests.process.harness import Server, paced

HERE = Path(__file__).parent

#: The version that the files of a site are written with.
WRITTEN = "v0"

#: Files that have a version.
SOURCES = {".py", ".html", ".po", ".tpl", ".txt"}

#: Between two looks at what is alive in a worker, in seconds: each costs it something.
LOOK = 0.1

#: How long a visitor reads, in seconds.
THINK = 0.01

#: How many releases stay on the disk.
KEPT = 3

MARK = re.compile(r"\[(\w+) (v\d+)\]")


class Offence(AssertionError):
    """Something that a visitor must never see."""


@dataclass(frozen=True)
class Page:
    """One response, read to its end."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def marks(self) -> dict[str, str]:
        """Each mark's version."""
        return dict(MARK.findall(self.text))

    @property
    def version(self) -> str:
        """The version that all marks agree on."""
        versions = {version for _, version in MARK.findall(self.text)}
        if len(versions) != 1:
            raise Offence(f"marks that don't agree: {self.marks}\n{self.text}")
        return versions.pop()

    def hidden(self) -> dict[str, str]:
        """The hidden fields of the page's forms, such as a token against forged requests."""
        found = {}
        for tag in re.findall(r"<input[^>]*>", self.text):
            names = dict(re.findall(r'(\w+)="([^"]*)"', tag))
            if names.get("type") == "hidden" and "name" in names:
                found[names["name"]] = names.get("value", "")
        return found


class Browser:
    """One visitor's cookies and one connection, which is never opened a second time."""

    def __init__(self, port: int) -> None:
        self.cookies: dict[str, str] = {}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        self._connection.auto_open = 0

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def get(self, path: str, *, status: int = 200) -> Page:
        """Fetch a page; see :meth:`ask`."""
        return self.ask("GET", path, status=status)

    def post(self, path: str, fields: dict[str, str], *, status: int = 200) -> Page:
        """Send a form; see :meth:`ask`."""
        return self.ask("POST", path, urlencode(fields), status=status)

    def begin(self, path: str) -> None:
        """Send a form whose content doesn't come, so that its request goes on until one leaves."""
        self._connection.putrequest("POST", path)
        self._connection.putheader("Cookie", self._cookie())
        self._connection.putheader("Content-Type", "application/x-www-form-urlencoded")
        self._connection.putheader("Content-Length", "10")
        self._connection.endheaders()

    def _cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        *,
        kind: str = "application/x-www-form-urlencoded",
        status: int = 200,
    ) -> Page:
        """Send one request, follow where it leads, and read the last response to its end.

        :param status: of the last response.
        :raises Offence: it had another status, or the connection was closed.
        """
        while True:
            page = self._once(method, path, body, kind)
            if page.status not in (301, 302, 303, 307) or status == page.status:
                break
            path = re.sub(r"^https?://[^/]+", "", page.headers["location"])
            method, body = "GET", None
        if page.status != status:
            raise Offence(f"{method} {path} was answered with {page.status}\n{page.text}")
        return page

    def _once(self, method: str, path: str, body: str | None, kind: str) -> Page:
        headers = {"Cookie": self._cookie()}
        if body is not None:
            headers |= {"Content-Type": kind, "Referer": "http://127.0.0.1/"}
        if "csrftoken" in self.cookies:
            headers["X-CSRFToken"] = self.cookies["csrftoken"]
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Offence(f"{method} {path}: {error!r}") from error
        for line in response.headers.get_all("set-cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name.strip()] = value.strip()
        if response.headers.get("connection", "").lower() == "close":
            raise Offence(f"{method} {path}: the server closes the connection")
        fields = {name.lower(): value for name, value in response.headers.items()}
        return Page(response.status, fields, text)


@dataclass(frozen=True)
class Census:
    """What is alive in one worker.

    :ivar tables: module tables, so generations whose modules are not gone.
    :ivar modules: in the largest of these.
    :ivar generations: their numbers; one that has gone can still have its object somewhere.
    :ivar rss: in bytes.
    :ivar threads: names of those that live.
    :ivar handlers: log handlers that this thread sees.
    :ivar files: open files.
    :ivar atexit: callbacks at the end of the process.
    :ivar objects: those that the garbage collector looks at.
    :ivar blocks: of memory that Python has allocated.
    """

    tables: int
    modules: int
    generations: list[int]
    rss: int
    threads: list[str]
    handlers: int
    files: int
    atexit: int
    meta_path: int
    gc_callbacks: int
    objects: int
    blocks: int

    @property
    def at_rest(self) -> bool:
        """Whether nothing is being built, or torn down: its threads are no others' for long."""
        return not any(name.startswith(PASSING) for name in self.threads)


#: What later swaps must leave as the first one did.
STEADY = ("threads", "handlers", "atexit", "meta_path", "gc_callbacks")

#: How the threads are called that are at the end of a generation, and soon at their own.
PASSING = ("genwsgi-build", "genwsgi-teardown")

#: Open files vary with the connections to the database: each of the server's threads may have one
#: with its journal, in the current generation.
FILES = 2 * 4


def differences(first: dict[int, Census], last: dict[int, Census]) -> list[str]:
    """Return what later swaps have left in the workers, in words; nothing if all is well.

    :param first: each worker after the first swap, by pid.
    :param last: each worker now.
    """
    if first.keys() != last.keys():
        return [f"workers {sorted(first)} have become {sorted(last)}"]
    found = []
    for pid, before in first.items():
        for what in STEADY:
            was, now = _steady(before, what), _steady(last[pid], what)
            if was != now:
                found.append(f"worker {pid}: {what} {was} became {now}")
        if last[pid].files > before.files + FILES:
            found.append(f"worker {pid}: {before.files} open files became {last[pid].files}")
    return found


def _steady(one: Census, what: str) -> object:
    if what == "threads":
        # The server makes its own as it needs them.
        return [name for name in one.threads if not name.startswith("ThreadPoolExecutor-0_")]
    return getattr(one, what)


class Site:
    """A site that is being served.

    :param name: of the folder below ``sites/``.
    :param base: an empty folder: for the releases, the server's log and the site's data.
    :ivar server: the running command.
    :ivar versions: each file's version.
    """

    def __init__(self, name: str, base: Path) -> None:
        self._source = HERE / "sites" / name
        self._base = base
        self.data = base / "data"
        self.data.mkdir()
        self.census = base / "census"
        self.census.mkdir()
        self.versions: dict[str, str] = {}
        self.deploys = 0
        self.server: Server
        self._browsers: list[Browser] = []
        self._folders: list[Path] = []
        self._read = 0
        self._release(WRITTEN)

    @property
    def current(self) -> Path:
        """The symlink that the site is served from."""
        return self._base / "current"

    def environment(self) -> dict[str, str]:
        """What the site's process is told."""
        return {"SITE_DATA": str(self.data), "CENSUS": str(self.census)}

    def deploy(self, version: str, *files: str) -> None:
        """Put a release in place and wait until every worker serves it.

        :param version: of ``files``; of all files if none are named.
        """
        self._release(version, files)
        self.deploys += 1
        outcome = re.compile(rf"committed: release {self.deploys + 1}-|by watch: (failed|refused)")
        with open(self.server.log_path, errors="replace") as log:
            log.seek(self._read)
            text = ""

            def told() -> bool:
                nonlocal text
                text += log.read()
                return outcome.search(text) is not None

            try:
                wait_until(told, timeout=120, what=f"{version} to be deployed")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.server.log()}") from None
            self._read = log.tell()
        if "committed: release" not in text:
            raise AssertionError(text)
        if len(self._folders) > KEPT:
            shutil.rmtree(self._folders.pop(0))

    def _release(self, version: str, only: tuple[str, ...] = ()) -> None:
        folder = self._base / f"release-{self.deploys}-{version}"
        self._folders.append(folder)
        shutil.copytree(self._source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for path in sorted(folder.rglob("*")):
            if path.suffix in SOURCES:
                name = path.relative_to(folder).as_posix()
                if not only or name in only:
                    self.versions[name] = version
                text = re.sub(rf"\b{WRITTEN}\b", self.versions[name], path.read_text())
                path.write_text(text)
                if path.suffix == ".po":
                    path.with_suffix(".mo").write_bytes(compile_catalogue(text))
        link = self._base / "next"
        link.symlink_to(folder.name)
        os.replace(link, self.current)

    def browser(self) -> Browser:
        """Return a new visitor, who leaves when the site closes."""
        browser = Browser(self.server.port)
        self._browsers.append(browser)
        return browser

    def close(self) -> None:
        """Send the visitors away and stop the server."""
        for browser in self._browsers:
            browser.close()
        self.server.close()

    def take_census(self) -> dict[int, Census]:
        """Ask every worker what is alive in it; by pid."""
        return {pid: self._ask(pid) for pid in self.server.workers()}

    def _ask(self, pid: int) -> Census:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(self.census / str(pid)))
            with client.makefile("rb") as answer:
                told = json.loads(answer.read())
        if "error" in told:
            raise AssertionError(f"worker {pid} can't count: {told['error']}")
        return Census(**told)

    def wait_collected(self, timeout: float = 20.0, *, held: int = 0) -> dict[int, Census]:
        """Wait until each worker has the modules of one generation and no more; what it has then.

        And has said so: a generation's memory is given back before.

        :param timeout: in seconds; for busy machines, what must be soon is measured elsewhere.
        :param held: how many others may be held by something that is known.
        """
        for _ in paced(round(timeout / LOOK), LOOK):
            told = self._is_told(held)
            found = self.take_census()
            if told and all(one.tables <= 1 + held and one.at_rest for one in found.values()):
                return found
        raise AssertionError(f"not collected within {timeout} s: {found}\n{self.server.log()}")

    def _is_told(self, held: int) -> bool:
        """Whether the log says that all that was replaced, but for so many, is collected."""
        log = self.server.log()
        for pid in self.server.workers():
            mine = rf"\[{pid}\] \[INFO\] "
            live = re.findall(mine + r"release \S+ is live as generation (\d+)", log)
            gone = re.findall(mine + r"generation (\d+) is collected", log)
            if len({*live[:-1]} - {*gone}) > held:
                return False
        return True


def compile_catalogue(text: str) -> bytes:
    """Return what gettext reads for the translations in ``text``, one line each."""
    pairs = [("", "Content-Type: text/plain; charset=UTF-8\n")]
    pairs += re.findall(r'msgid "(.*)"\nmsgstr "(.*)"', text)
    texts = [part.encode() for pair in sorted(pairs) for part in pair]
    count, begin = len(pairs), 28 + 16 * len(pairs)
    places, blob = [], b""
    for one in texts:
        places.append((len(one), begin + len(blob)))
        blob += one + b"\0"
    table = [number for place in (*places[::2], *places[1::2]) for number in place]
    return (
        struct.pack(f"<7I{4 * count}I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0, *table)
        + blob
    )


@dataclass
class Visits:
    """What visitors saw.

    :ivar versions: how many visits each version had.
    :ivar offence: the first thing that must not have happened.
    """

    versions: Counter[str] = field(default_factory=Counter)
    offence: BaseException | None = None

    def wait_for(self, version: str, count: int = 1, timeout: float = 60.0) -> None:
        """Wait until ``version`` was seen ``count`` times; raise what went wrong meanwhile."""

        def seen() -> bool:
            if self.offence is not None:
                raise Offence(str(self.offence)) from self.offence
            return self.versions[version] >= count

        wait_until(seen, timeout, f"{count} visits of {version}, not only {self.versions}")


@contextmanager
def visiting(browsers: list[Browser], visit: Callable[[Browser], str]) -> Iterator[Visits]:
    """Let each of ``browsers`` do ``visit`` again and again, on its own thread, for the block.

    :param visit: returns the version that was seen.
    :raises Offence: the first one, at the end at the latest.
    """
    visits, stop = Visits(), threading.Event()

    def stroll(browser: Browser) -> None:
        while not stop.is_set() and visits.offence is None:
            try:
                version = visit(browser)
            except BaseException as error:  # noqa: BLE001 -- raised by whoever waits for the visitors
                visits.offence = error
                return
            visits.versions[version] += 1
            stop.wait(THINK)

    threads = [threading.Thread(target=partial(stroll, browser)) for browser in browsers]
    for thread in threads:
        thread.start()
    try:
        yield visits
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    if visits.offence is not None:
        raise Offence(str(visits.offence)) from visits.offence


@contextmanager
def serving_site(
    name: str,
    base: Path,
    target: str,
    *arguments: str,
    workers: int = 2,
    setup: str = "",
) -> Iterator[Site]:
    """Serve the site ``name`` until the block ends.

    :param base: an empty folder.
    :param arguments: options of the command.
    :param setup: a module to run first, once.
    """
    site = Site(name, base)
    if setup:
        command = [sys.executable, "-m", setup]
        environment = {**os.environ, **site.environment()}
        subprocess.run(command, cwd=site.current, env=environment, check=True, timeout=120)
    site.server = Server(
        base,
        f"--chdir={site.current}",
        f"--config={HERE / 'census.py'}",
        f"--workers={workers}",
        *arguments,
        target,
        env=site.environment(),
    )
    try:
        site.server.wait_ready(workers)
        yield site
    finally:
        site.close()

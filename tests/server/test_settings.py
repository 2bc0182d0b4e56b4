"""Tests of genwsgi.server.settings."""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import is_hop_by_hop

import gunicorn
import pytest
from gunicorn import config as gunicorn_config
from gunicorn.app.base import Application
from gunicorn.workers import SUPPORTED_WORKERS

from genwsgi import _version
from genwsgi.errors import OptionError
from genwsgi.server.settings import OPTIONS, GenwsgiConfig, check
from genwsgi.triggers.amqp.hiding import HiddenURL

Load = Callable[..., GenwsgiConfig]


class Loader(Application):
    """gunicorn's own way of reading options, with our configuration."""

    def load_default_config(self) -> None:
        self.cfg = GenwsgiConfig()

    def init(self, parser: Any, opts: Any, args: list[str]) -> None:
        self.target = args

    def do_load_config(self) -> None:
        # The original prints an error and exits; here the error itself is wanted.
        self.load_default_config()
        self.load_config()
        self.cfg.validate()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Read the options from command line, environment and config file, as gunicorn does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__config__", sys)  # so that it is removed again
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)

    number = itertools.count()

    def load(command: str = "", environment: str = "", file: str = "") -> GenwsgiConfig:
        # A name of its own: two of one size in one second are one to Python's cache of bytecode.
        path = tmp_path / f"config{next(number)}.py"
        path.write_text(file)
        monkeypatch.setenv("GUNICORN_CMD_ARGS", environment)
        line = ["genwsgi", "--chdir", str(tmp_path), "-c", str(path), *shlex.split(command)]
        monkeypatch.setattr(sys, "argv", line)
        return Loader().cfg

    return load


def refusal(cfg: GenwsgiConfig) -> str:
    """The one line with which ``check`` refuses a configuration."""
    with pytest.raises(OptionError) as caught:
        check(cfg)
    line = str(caught.value)
    assert "\n" not in line
    return line


def exits(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """The exit code and the output of a parser that does not return."""
    with pytest.raises(SystemExit) as caught:
        GenwsgiConfig().parser().parse_args(list(arguments))
    captured = capsys.readouterr()
    return caught.value.code, captured.out + captured.err


# -- what we lean on in gunicorn -----------------------------------------------------------------


def test_gunicorn_is_the_version_that_was_read() -> None:
    """The contract tests below speak of gunicorn 27."""
    assert gunicorn.version_info[0] == 27


def test_a_setting_registers_itself_with_its_validator() -> None:
    """Creating a Setting class lists it; it needs a validator and a description."""
    known = gunicorn_config.KNOWN_SETTINGS
    attributes = {
        "name": "contract",
        "validator": str.upper,
        "desc": "first\nsecond",
        "default": "x",
    }
    try:
        made = type(gunicorn_config.Setting)("Contract", (gunicorn_config.Setting,), attributes)
        assert known[-1] is made
        assert (made.short, made().get()) == ("first", "X")
    finally:
        known.pop()


def test_a_config_copies_its_settings() -> None:
    """Each Config has settings of its own, whose defaults may be changed without the others."""
    one, two = gunicorn_config.Config(), gunicorn_config.Config()
    one.settings["keepalive"].default = 7
    one.settings["keepalive"].set(7)
    assert (two.keepalive, two.settings["keepalive"].default) == (2, 2)


def test_sync_with_threads_is_gthread_in_gunicorn() -> None:
    """Gunicorn takes sync with several threads for gthread: so our threads follow the worker."""
    cfg = gunicorn_config.Config()
    cfg.set("threads", 2)
    assert cfg.worker_class_str == "gthread"


def test_the_workers_that_are_refused_exist() -> None:
    """The short names stand for the modules that the refusals name."""
    assert SUPPORTED_WORKERS["asgi"].startswith("gunicorn.workers.gasgi.")
    assert SUPPORTED_WORKERS["tornado"].startswith("gunicorn.workers.gtornado.")
    assert {"gthread", "gevent", "sync"} < set(SUPPORTED_WORKERS)


def test_no_option_of_ours_is_one_of_gunicorns() -> None:
    """Neither a name nor a flag of ours hides one of gunicorn's."""
    ours = {option.name for option in OPTIONS}
    theirs = [s for s in gunicorn_config.KNOWN_SETTINGS if not hasattr(s, "option")]
    assert not ours & {s.name for s in theirs}
    flags = {flag for s in theirs for flag in s.cli or ()}
    assert not flags & {f for o in OPTIONS for f in (o.flag, o.flag.replace("--", "--no-", 1))}


def test_a_second_import_registers_nothing_twice() -> None:
    """Importing the module again leaves gunicorn's list of settings as it is."""
    before = list(gunicorn_config.KNOWN_SETTINGS)
    fresh = importlib.util.find_spec("genwsgi.server.options")
    assert fresh is not None
    assert fresh.loader is not None
    again = importlib.util.module_from_spec(fresh)
    sys.modules["genwsgi_options_again"] = again
    original = sys.modules["genwsgi.server.options"]
    try:
        fresh.loader.exec_module(again)
    finally:
        sys.modules["genwsgi.server.options"] = original
        del sys.modules["genwsgi_options_again"]
    assert again.OPTIONS is not OPTIONS
    assert before == gunicorn_config.KNOWN_SETTINGS
    names = [setting.name for setting in before]
    assert all(names.count(option.name) == 1 for option in OPTIONS)


# -- every option from every source --------------------------------------------------------------

#: (name, default, words on a command line, value in a config file, the value both mean)
SOURCES: list[tuple[str, object, str, object, object]] = [
    ("metrics", None, "--metrics [::1]:9100", "[::1]:9100", "[::1]:9100"),
    ("log_json", False, "--log-json", True, True),
    ("watch", True, "--no-watch", False, False),
    ("watch_polling", False, "--watch-polling", True, True),
    ("watch_interval", 1.0, "--watch-interval 2.5", 2.5, 2.5),
    ("watch_path", (), "--watch-path a --watch-path b/c", ["a", "b/c"], ("a", "b/c")),
    ("watch_pattern", (), "--watch-pattern '*.html'", "*.html", ("*.html",)),
    ("watch_ignore", (), "--watch-ignore '*.tmp' --watch-ignore x", ("*.tmp", "x"), ("*.tmp", "x")),
    ("scope", (), "--scope a,b --scope c", ["a, b", "c"], ("a", "b", "c")),
    ("share", (), "--share numpy", "numpy", ("numpy",)),
    ("explain_scope", False, "--explain-scope", True, True),
    ("factory", None, "--factory", True, True),
    ("factory", None, "--no-factory", False, False),
    ("build_timeout", 60.0, "--build-timeout 5", 5, 5.0),
    ("verify", (), "--verify / --verify /a=301", ["/", "/a=301"], ("/", "/a=301")),
    ("verify_timeout", 10.0, "--verify-timeout 2", 2, 2.0),
    ("verify_host", "localhost", "--verify-host h:80", "h:80", "h:80"),
    ("probation", None, "--probation 30", 30, 30.0),
    ("max_error_rate", 0.05, "--max-error-rate 10%", 0.1, 0.1),
    ("park", False, "--park", True, True),
    ("run_dir", None, "--run-dir run", "run", "run"),
    ("keep_releases", 5, "--keep-releases 2", 2, 2),
    ("state_dir", None, "--state-dir state", "state", "state"),
    ("amqp", None, "--amqp amqp://u:p@h/v", "amqp://u:p@h/v", HiddenURL("amqp://u:p@h/v")),
    ("amqp_exchange", "genwsgi.hotupdate", "--amqp-exchange shop", "shop", "shop"),
    ("amqp_key_file", None, "--amqp-key-file keys", "keys", "keys"),
    ("amqp_allow_unsigned", False, "--amqp-allow-unsigned", True, True),
    ("amqp_window", 3600.0, "--amqp-window 60", 60, 60.0),
    ("amqp_ca", None, "--amqp-ca ca.pem", "ca.pem", "ca.pem"),
    ("amqp_cert", None, "--amqp-cert c.pem", "c.pem", "c.pem"),
    ("amqp_key", None, "--amqp-key c.key", "c.key", "c.key"),
    ("release_root", (), "--release-root a --release-root b", ["a", "b"], ("a", "b")),
    ("generation_header", None, "--generation-header", True, "X-Generation"),
    ("generation_header", None, "--generation-header=X-Gen", "X-Gen", "X-Gen"),
]


def test_every_option_is_tried() -> None:
    """The table of this test names every option there is."""
    assert {source[0] for source in SOURCES} == {option.name for option in OPTIONS}


@pytest.mark.parametrize(("name", "default", "words", "filed", "value"), SOURCES)
def test_every_option_comes_from_every_source(
    load: Load, name: str, default: object, words: str, filed: object, value: object
) -> None:
    """Command line, GUNICORN_CMD_ARGS and config file each set it; nothing leaves the default."""
    assert getattr(load(), name) == default
    assert getattr(load(command=words), name) == value
    assert getattr(load(environment=words), name) == value
    assert getattr(load(file=f"{name} = {filed!r}"), name) == value
    assert getattr(load(file=f"{name} = None"), name) == default


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(load: Load) -> None:
    """Of two sources the nearer one counts, and lists are not mixed."""
    file = "build_timeout = 1; scope = ['a']; watch = False"
    cfg = load("--build-timeout 3 --watch", "--build-timeout 2 --scope b", file)
    assert (cfg.build_timeout, cfg.scope, cfg.watch) == (3.0, ("b",), True)
    assert load(environment="--build-timeout 2", file=file).build_timeout == 2.0


def test_paths_in_a_config_file_may_be_path_objects(load: Load) -> None:
    """A config file is Python, so that a path may be a pathlib.Path."""
    cfg = load(file="from pathlib import Path; watch_path = [Path('a')]; run_dir = Path('b')")
    assert (cfg.watch_path, cfg.run_dir) == (("a",), "b")
    assert load(file="from pathlib import Path; watch_path = Path('a')").watch_path == ("a",)


def test_a_name_given_twice_counts_once(load: Load) -> None:
    """The packages of a scope are a set in the order given."""
    assert load("--scope b,a --scope b").scope == ("b", "a")


def test_a_header_may_be_switched_off(load: Load) -> None:
    """False in a config file means no header, as leaving it out does."""
    assert load(file="generation_header = False").generation_header is None


def test_a_boolean_may_be_written_as_text(load: Load) -> None:
    """As in gunicorn, "true" and "false" in a config file are the booleans."""
    assert load(file="watch = 'False'").watch is False
    assert load(file="watch_polling = 'true'").watch_polling is True


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("watch", "maybe", "True or False"),
        ("watch", 1, "True or False"),
        ("factory", [], "True or False"),
        ("watch_interval", 0, "seconds above 0"),
        ("build_timeout", -1, "seconds above 0"),
        ("build_timeout", "soon", "seconds above 0"),
        ("build_timeout", math.inf, "seconds above 0"),
        ("build_timeout", math.nan, "seconds above 0"),
        ("build_timeout", True, "seconds above 0"),
        ("build_timeout", [1], "seconds above 0"),
        ("keep_releases", -1, "a whole number"),
        ("keep_releases", "few", "a whole number"),
        ("keep_releases", True, "a whole number"),
        ("watch_path", 3, "a text or a list"),
        ("watch_path", [""], "a text or a list"),
        ("watch_pattern", b"*.html", "a text or a list"),
        ("watch_ignore", [None], "a text or a list"),
        ("scope", "my-app", "top-level package"),
        ("scope", "a,,b", "top-level package"),
        ("share", ["numpy.linalg"], "did you mean numpy?"),
        ("verify", "health", "PATH or PATH=STATUS"),
        ("verify_host", "http://h/", "the name of a host"),
        ("verify_host", 3, "the name of a host"),
        ("max_error_rate", "5", "a part of all requests"),
        ("max_error_rate", "a few", "a part of all requests"),
        ("max_error_rate", "-1%", "a part of all requests"),
        ("run_dir", "", "a directory"),
        ("run_dir", 3, "a directory"),
        ("amqp", "http://h/", "the URL of a broker"),
        ("amqp", "amqp://u:secret@", "the URL of a broker"),
        ("amqp", "amqp://h:x/", "the URL of a broker"),
        ("amqp", 7, "the URL of a broker"),
        ("amqp_exchange", "", "a name"),
        ("generation_header", "", "the name of an HTTP header"),
        ("generation_header", 3, "the name of an HTTP header"),
        ("generation_header", "X Gen", "the name of an HTTP header"),
        ("generation_header", "X-Gen\r\n", "the name of an HTTP header"),
        ("generation_header", "X-Gen-", "the name of an HTTP header"),
        ("generation_header", "myapp:app", "--generation-header=NAME"),
        ("generation_header", "Content-Length", "a header of its own"),
        ("generation_header", "connection", "a header of its own"),
    ],
)
def test_values_that_can_not_be_are_refused(name: str, value: object, wanted: str) -> None:
    """A wrong value is refused in one line with both names of the option and what it takes."""
    cfg = GenwsgiConfig()
    with pytest.raises(OptionError) as caught:
        cfg.set(name, value)
    line = str(caught.value)
    assert wanted in line
    assert f"--{name.replace('_', '-')} (in a config file: {name}) is " in line
    assert "\n" not in line


def test_the_default_header_is_a_good_one() -> None:
    """The name that --generation-header stands for passes its own check."""
    cfg = GenwsgiConfig()
    cfg.set("generation_header", "X-Generation")
    assert cfg.generation_header == "X-Generation"
    assert not is_hop_by_hop("X-Generation")


# -- defaults ------------------------------------------------------------------------------------


def test_our_defaults_fit_the_job(load: Load) -> None:
    """Unless told otherwise: gthread, several threads, keep-alive of more than a minute."""
    cfg = load()
    assert (cfg.worker_class_str, cfg.threads, cfg.keepalive) == ("gthread", 4, 75)
    assert cfg.workers == gunicorn_config.Config().workers


def test_gunicorns_control_socket_is_off(load: Load) -> None:
    """Its thread would be in the master, which forks; a config file may ask for it."""
    assert gunicorn_config.Config().control_socket_disable is False
    assert load().control_socket_disable is True
    assert load(file="control_socket_disable = False").control_socket_disable is False


@pytest.mark.parametrize("source", ["command", "environment"])
def test_our_defaults_yield_to_the_words_of_a_line(load: Load, source: str) -> None:
    """A command line or GUNICORN_CMD_ARGS overrides every default of ours."""
    cfg = load(**{source: "-k gevent --threads 2 --keep-alive 9 -w 3"})
    assert (cfg.worker_class_str, cfg.threads, cfg.keepalive, cfg.workers) == ("gevent", 2, 9, 3)


def test_our_defaults_yield_to_a_config_file(load: Load) -> None:
    """A config file overrides every default of ours."""
    cfg = load(file="worker_class = 'gevent'; threads = 2; keepalive = 9; workers = 3")
    assert (cfg.worker_class_str, cfg.threads, cfg.keepalive, cfg.workers) == ("gevent", 2, 9, 3)


@pytest.mark.parametrize(
    ("sources", "worker", "threads"),
    [
        ({"command": "-k sync"}, "sync", 1),
        ({"environment": "-k sync"}, "sync", 1),
        ({"file": "worker_class = 'sync'"}, "sync", 1),
        ({"command": "-k gunicorn.workers.sync.SyncWorker"}, "gunicorn.workers.sync.SyncWorker", 1),
        ({"command": "-k sync --threads 1"}, "sync", 1),
        ({"command": "-k sync --threads 4"}, "gthread", 4),
        ({"command": "-k sync", "file": "threads = 2"}, "gthread", 2),
        ({"command": "-k gthread --threads 1"}, "gthread", 1),
        ({"command": "-k gthread", "environment": "-k sync"}, "gthread", 4),
        ({"command": "-k gthread", "file": "worker_class = 'sync'; threads = 2"}, "gthread", 2),
        ({"command": "-k gevent"}, "gevent", 4),
    ],
)
def test_who_asks_for_sync_gets_sync(
    load: Load, sources: dict[str, str], worker: str, threads: int
) -> None:
    """Our default of threads never turns sync workers into gthread; threads that were given do."""
    cfg = load(**sources)
    assert (cfg.worker_class_str, cfg.threads) == (worker, threads)


def test_gunicorns_own_defaults_stay() -> None:
    """Another user of gunicorn in this process finds its defaults unchanged."""
    GenwsgiConfig()
    theirs = gunicorn_config.Config()
    assert (theirs.worker_class_str, theirs.threads, theirs.keepalive) == ("sync", 1, 2)
    assert theirs.settings["worker_class"].default == "sync"


# -- help, version, unknown options --------------------------------------------------------------


def test_help_shows_our_options_in_a_group_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """--help has one section of ours, with every option, its flag and its default."""
    code, text = exits(capsys, "--help")
    assert code == 0
    assert text.count("\ngenwsgi:\n") == 1
    group = text.partition("\ngenwsgi:\n")[2].partition("\nexamples:\n")[0]
    for option in OPTIONS:
        assert option.flag in group
        assert option.help.split()[0] in group
    assert "--no-watch" in group
    assert "--no-factory" in group
    assert "SECONDS" in group
    assert "[60.0]" in group
    assert "[1.0]" in group
    assert "--bind" not in group
    assert "None" not in group


def test_help_teaches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """--help says what is served, gives examples and shows the defaults that apply here."""
    monkeypatch.setenv("COLUMNS", "300")  # so that no line is broken
    text = exits(capsys, "--help")[1]
    assert text.startswith("usage: genwsgi [options] MODULE[:NAME]\n")
    assert "take new code without closing a connection" in text
    assert "genwsgi myapp" in text.partition("\nexamples:\n")[2]
    words = " ".join(text.split())
    assert "The type of workers to use. [gthread]" in words
    assert "handling requests. [4]" in words
    assert "Keep-Alive connection. [75]" in words
    for heading in ("configuration", "signals to the master", "exit status"):
        assert f"\n{heading}:\n" in text
    assert ":ref:" not in text


def test_the_examples_in_help_are_lines_that_work(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command line shown as an example is one that the parser takes."""
    text = exits(capsys, "--help")[1].partition("\nexamples:\n")[2].partition("\n\n")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("genwsgi ")]
    assert len(lines) == 5
    for line in lines:
        command = line.partition("   ")[0].removeprefix("genwsgi ")
        check(load(command))


def test_gunicorns_own_parser_takes_our_options_too() -> None:
    """A plain gunicorn in the same process still makes its parser, ours in a group of their own."""
    parser = gunicorn_config.Config().parser()
    assert parser.parse_args(["--scope", "a"]).scope == ["a"]
    assert parser.format_help().count("\ngenwsgi:\n") == 1


def test_version_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    """--version tells the version of genwsgi and that of the gunicorn it runs on."""
    code, text = exits(capsys, "--version")
    assert code == 0
    assert text.startswith(f"genwsgi {_version.__version__} (gunicorn {gunicorn.__version__}, ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--no-wach", "m:app"], "unknown option --no-wach: did you mean --no-watch"),
        (["--buildtimeout=3"], "unknown option --buildtimeout: did you mean --build-timeout"),
        (["--worker-clas-s", "sync"], "did you mean --worker-class"),
        (["--zzzzzzzz"], "unknown option --zzzzzzzz: genwsgi --help lists them"),
        (["m:app", "-w", "2", "n:app"], "this is more: n:app"),
        (["--watch-p", "x"], "ambiguous option: --watch-p"),
        (["--scope"], "expected one argument"),
    ],
)
def test_what_the_parser_does_not_know_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    """An unknown option ends with code 2 and one line that says which was meant."""
    code, text = exits(capsys, *arguments)
    assert code == 2
    usage, line = text.strip().splitlines()
    assert usage == "usage: genwsgi [options] MODULE[:NAME]"
    assert line.startswith("genwsgi: error: ")
    assert hint in line


def test_the_target_may_stand_anywhere() -> None:
    """What is served may come before or after the options."""
    parser = GenwsgiConfig().parser()
    for words in (["-w", "2", "m:app"], ["m:app", "-w", "2"]):
        assert parser.parse_args(words) == parser.parse_args(["m:app", "--workers", "2"])
        assert parser.parse_args(words).args == ["m:app"]


def test_a_parser_is_an_argparse_parser() -> None:
    """What Config.parser() returns can be given further arguments, as gunicorn's can."""
    parser = GenwsgiConfig(prog="other").parser()
    assert isinstance(parser, argparse.ArgumentParser)
    assert parser.prog == "other"


# -- check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "-k sync", "-k gevent", "-k gthread", "-k my.own.Worker"])
def test_what_can_be_served_passes(load: Load, command: str) -> None:
    """Workers that can work pass without being imported, and so do gunicorn's other options."""
    check(load(f"{command} --spew --max-requests 5"))


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ("asgi", "ASGI"),
        ("#asgi", "ASGI"),
        ("gunicorn.workers.gasgi.ASGIWorker", "ASGI"),
        ("uvicorn.workers.UvicornWorker", "ASGI"),
        ("uvicorn_worker.UvicornWorker", "ASGI"),
        ("tornado", "Tornado"),
        ("egg:gunicorn#tornado", "Tornado"),
        ("gunicorn.workers.gtornado.TornadoWorker", "Tornado"),
    ],
)
def test_workers_that_can_not_work_are_refused(load: Load, worker: str, reason: str) -> None:
    """ASGI and Tornado workers are refused by name, with the reason and what to use instead."""
    before = set(sys.modules)
    line = refusal(load(f"-k '{worker}'"))
    assert line.startswith(f"worker class {worker} can't be used: ")
    assert reason in line
    assert "Use gthread" in line
    new = set(sys.modules) - before
    assert not any(name.endswith(("gasgi", "gtornado")) or "uvicorn" in name for name in new)


@pytest.mark.parametrize(
    ("worker", "line"),
    [
        ("nosuch", "there is none of this name; there are gthread, gevent, sync"),
        ("gevnt", "there is none of this name; did you mean gevent?"),
        ("no.such.Worker", "No module named 'no'; there are "),
        ("os.nothing", "module 'os' has no attribute 'nothing'; there are "),
        ("lacking.Worker", "needs another package; there are "),
    ],
)
def test_a_worker_class_that_is_not_there_is_refused_in_one_line(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, worker: str, line: str
) -> None:
    """It is named with the reason and what there is, when it is imported and not before."""
    (tmp_path / "lacking.py").write_text("raise RuntimeError('needs another package')\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = load(f"-k {worker}")
    check(cfg)
    with pytest.raises(OptionError) as caught:
        cfg.worker_class  # noqa: B018 -- it is imported when it is asked for
    assert str(caught.value).startswith(f"worker class {worker} can't be used: {line}")
    assert "\n" not in str(caught.value)


def test_what_a_worker_class_of_ones_own_raises_is_shown_whole(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mistake in the code of a worker class is no mistake in its name."""
    (tmp_path / "mistaken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        load("-k mistaken.Worker").worker_class  # noqa: B018 -- the same


def test_worker_classes_given_as_classes_are_looked_at() -> None:
    """A config file may give the class itself, or one derived from it."""
    base = type("ASGIWorker", (), {"__module__": "gunicorn.workers.gasgi"})
    cfg = GenwsgiConfig()
    cfg.set("worker_class", type("Mine", (base,), {}))
    assert refusal(cfg).startswith("worker class Mine can't be used: ")
    cfg.set("worker_class", type("Good", (), {"__module__": "gunicorn.workers.gasgiant"}))
    check(cfg)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("logconfig_dict = {'version': 1}", "--log-json says how the error log is written, "),
        ("class Mine:\n    pass\nlogger_class = Mine", "--log-json needs a logger class that is "),
    ],
)
def test_json_lines_are_refused_where_they_can_not_be_written(
    load: Load, file: str, line: str
) -> None:
    """Another format, or a logger that is none of gunicorn's, contradicts --log-json."""
    assert refusal(load("--log-json", file=file)).startswith(line)
    check(load(file=file))


def test_json_lines_are_written_by_whatever_logger_is_given(load: Load) -> None:
    """A logger class of one's own, made from gunicorn's, keeps working with --log-json."""
    file = (
        "from gunicorn.glogging import Logger\nclass Mine(Logger):\n    pass\nlogger_class = Mine"
    )
    given = load(file=file).logger_class
    assert given.__name__ == "Mine"
    for name, cfg in {
        "Mine": load("--log-json", file=file),
        "Statsd": load("--log-json --statsd-host localhost:8125"),
    }.items():
        check(cfg)
        assert cfg.logger_class.__mro__[1].__name__ == name


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("preload_app", True, ["--preload", "leave it out"]),
        ("reload", True, ["--reload", "genwsgi watches by itself"]),
        ("paste", "site.ini", ["--paste", "loadapp"]),
    ],
)
def test_options_of_gunicorn_that_contradict_are_refused(
    name: str, value: object, words: list[str]
) -> None:
    """--preload, --reload and --paste are refused with the reason and the way out."""
    cfg = GenwsgiConfig()
    check(cfg)
    cfg.set(name, value)
    line = refusal(cfg)
    assert all(word in line for word in words)


def test_a_package_is_in_the_scope_or_shared() -> None:
    """A package named with both --scope and --share is refused by name."""
    cfg = GenwsgiConfig()
    cfg.set("scope", "a,b")
    cfg.set("share", ["b", "c"])
    assert refusal(cfg).startswith("b can't be both")


@pytest.mark.parametrize("name", ["json", "gunicorn"])
def test_what_is_always_shared_is_in_no_scope(name: str) -> None:
    """A name that --scope can't have imported afresh is refused, and not passed over."""
    cfg = GenwsgiConfig()
    cfg.set("scope", f"a,{name}")
    assert refusal(cfg).startswith(f"--scope can't have {name} imported afresh: ")


def test_a_limit_is_of_a_probation(load: Load) -> None:
    """--max-error-rate alone would do nothing."""
    assert refusal(load("--max-error-rate 3%")).startswith("--max-error-rate is the limit of ")
    check(load("--max-error-rate 3% --probation 30"))

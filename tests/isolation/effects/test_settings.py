from __future__ import annotations

import asyncio
import decimal
import locale
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation.effects import settings
from genwsgi.live import LiveApplication
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, torn_down

CHANGING = """
    import asyncio, decimal, gc, io, locale, logging, multiprocessing, os, socket, sys, warnings
    class Stream(io.StringIO):
        pass
    sys.stdin, sys.stdout, sys.stderr = Stream(), Stream(), Stream()
    os.chdir("/")
    os.umask(0o027)
    sys.setrecursionlimit(sys.getrecursionlimit() + 1)
    sys.setswitchinterval(0.01)
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
    decimal.DefaultContext.prec = 7
    decimal.DefaultContext.traps[decimal.Inexact] = True
    gc.disable()
    gc.set_threshold(701)
    logging.addLevelName(25, "NOTE")
    logging.disable(5)
    logging.raiseExceptions = False
    logging.lastResort = logging.NullHandler()
    warnings.showwarning = lambda *_: None
    warnings.formatwarning = lambda *_: ""
    socket.setdefaulttimeout(3)
    class Policy(asyncio.DefaultEventLoopPolicy):
        pass
    asyncio.set_event_loop_policy(Policy())
    multiprocessing.set_start_method("spawn")
"""


def values() -> dict[str, Any]:
    """Return all settings as they are."""
    return {name: setting.get() for name, setting in settings._SETTINGS.items()}


@pytest.fixture
def kept() -> Any:
    """The settings as they were, which are set back."""
    for module in (decimal, locale, socket):
        assert module.__name__ in sys.modules
    asyncio.get_event_loop_policy()
    context: Any = multiprocessing.context._default_context
    start, context._actual_context = context._actual_context, None
    before = values()
    yield before
    for name, value in before.items():
        settings._SETTINGS[name].set(value)
    context._actual_context = start


# Deprecated from 3.14 on, and 3.12 says so for a part of it.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_failed_build(kept: dict[str, Any], site: Site) -> None:
    """All settings that a failed build has changed are set back."""
    site.write(shop=CHANGING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert values() == kept


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_generations(
    kept: dict[str, Any], site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Each setting is reported; objects of a generation go with it, values stay."""
    caplog.set_level("INFO", logger="genwsgi")
    first, second = site.two(shop=CHANGING.replace("logging.disable(5)", ""))
    done = set(settings._SETTINGS) - {"logging.disable"}
    assert set(first.effects.of(settings.Settings).report()) == done
    assert "generation 1 did to the process:" in caplog.text
    policy: Any = asyncio.get_event_loop_policy()
    assert type(policy).__module__ == "shop"
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert asyncio.get_event_loop_policy() is policy
    site.close()
    assert second.effects.of(settings.Settings).report() == []
    now = values()
    held = {name for name, setting in settings._SETTINGS.items() if setting.held}
    for name in held - {"logging.lastResort"}:
        assert now[name] is kept[name], name
    assert (now["working directory"], now["socket timeout"]) == ("/", 3.0)


def test_start_method(kept: dict[str, Any], site: Site) -> None:
    """Each generation may set multiprocessing's start method once, as it could alone."""
    code = "import multiprocessing\nmultiprocessing.set_start_method('{}')\n"
    site.write(shop=code.format("spawn"))
    site.serve()
    site.write(shop=code.format("forkserver"))
    site.serve()
    assert multiprocessing.get_start_method() == "forkserver"
    site.close()
    assert multiprocessing.get_start_method(allow_none=True) is None


def test_start_method_of_the_process(kept: dict[str, Any], site: Site) -> None:
    """A start method that the process has set can't be set again but by force."""
    multiprocessing.set_start_method("spawn")
    site.write(shop="import multiprocessing\nmultiprocessing.set_start_method('fork')\n")
    with pytest.raises(BuildError, match="context has already been set"):
        site.build()


def test_a_working_directory_that_is_gone(
    kept: dict[str, Any], site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A working directory that is gone is no error, and what can't be set back is logged."""
    folder = tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    site.write(shop=f"import os\nos.chdir('/')\nos.rmdir({str(folder)!r})\n1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert "the working directory could not be set back" in caplog.text
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    site.write(shop="import os\nos.chdir('/')\n")
    site.serve()
    assert os.getcwd() == "/"


def test_imported_during_the_build(kept: dict[str, Any], site: Site) -> None:
    """A module that the build imports first has its settings looked at before they change."""
    site.close()
    module = sys.modules.pop("decimal")
    site.live = LiveApplication(site.target, site.store)
    try:
        site.write(shop="import decimal\ndecimal.DefaultContext.prec = 7\n")
        generation = site.serve()
        assert generation.effects.report() == ["decimal defaults"]
    finally:
        sys.modules["decimal"].DefaultContext.prec = 28
        sys.modules["decimal"] = module


def test_what_requests_set_meanwhile(
    kept: dict[str, Any], site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """What a request has set for a moment, or sets while a build fails, is not the build's."""
    site.write(
        shop="""
            import gc, io, os, sys
            def before():
                gc.disable()
                os.umask(0)
                sys.stdout = io.StringIO()
            def meanwhile():
                gc.enable()
                os.umask(0o077)
                sys.stdout = sys.__stdout__
        """
    )
    serving = site.serve()
    call(serving, "shop", "before")
    site.write(
        shop="""
            import os, sys
            meanwhile()
            sys.setswitchinterval(0.01)
            os.umask(0o027)
            os.umask(0o026)
            class Stream:
                write = flush = lambda *_: None
            sys.stderr = Stream()
            1 / 0
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "builtins.meanwhile", lambda: call(serving, "shop", "meanwhile"), raising=False
        )
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
    now = values()
    assert now["garbage collection"] is True
    assert now["umask"] == 0o077
    assert now["sys.stdout"] is sys.__stdout__
    for name in ("switch interval", "sys.stderr"):
        assert now[name] is kept[name] or now[name] == kept[name], name
    assert (
        "generation 2 is undone; this has changed meanwhile, nobody knows by whom, and stays so:"
        " sys.stdout" in caplog.messages
    )


def test_set_anew_after_the_build(kept: dict[str, Any], site: Site) -> None:
    """What somebody has set since is not set back."""
    site.write(shop="import sys\nsys.setswitchinterval(0.01)\n")
    generation = site.build()
    sys.setswitchinterval(0.02)
    site.live.discard(generation)
    assert sys.getswitchinterval() == 0.02

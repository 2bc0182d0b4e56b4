from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation.effects import hooks
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, call, torn_down, write

HOOKING = """
    import sys, threading
    found = sys.excepthook
    def mine(kind, error, traceback):
        said.append((VERSION, str(error)))
        found(kind, error, traceback)
    sys.excepthook = mine
    in_threads = threading.excepthook
    def other(args):
        said.append(("thread", VERSION))
        in_threads(args)
    threading.excepthook = other
    def fail():
        raise ValueError("VERSION")
    def ask():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
"""


@pytest.fixture
def process_hooks() -> Iterator[None]:
    """Hooks of the process, which say that they were called."""
    before = hooks.look()
    sys.excepthook = lambda kind, error, traceback: said.append(("process", str(error)))
    sys.unraisablehook = lambda unraisable: said.append(("process", "unraisable"))
    sys.displayhook = lambda value: said.append(("process", value))
    threading.excepthook = lambda args: said.append(("process", "thread"))
    yield
    for name, (place, _, _) in hooks._PLACES.items():
        place.set(before[name])


def report(error: BaseException) -> None:
    """Report an exception as the interpreter does when nobody has caught it."""
    sys.excepthook(type(error), error, error.__traceback__)


def raised(generation: Any) -> BaseException:
    """Return what the application's code raises."""
    with pytest.raises(ValueError, match=r"\d") as caught:
        call(generation, "shop", "fail")
    return caught.value


def test_whose_code_raised(process_hooks: None, site: Site) -> None:
    """An exception goes to the hook of whose code raised it, and once to the process's."""
    first, second = site.two(shop=HOOKING)
    report(raised(first))
    report(raised(second))
    report(KeyError("nobody"))
    assert said == [
        (1, "1"), ("process", "1"), (2, "2"), ("process", "2"), (2, "'nobody'"),
        ("process", "'nobody'"),
    ]  # fmt: skip
    said.clear()
    call(first, "shop", "ask")
    assert said == [("thread", 1), ("process", "thread")]
    said.clear()
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    call(second, "shop", "ask")
    assert said == [("thread", 2), ("process", "thread")]


def test_without_a_hook_of_its_own(process_hooks: None, site: Site) -> None:
    """What a generation without a hook raises is the process's, though another one has a hook."""
    site.write(shop="def fail():\n    raise ValueError('1')\n")
    first = site.serve()
    pending = site.request()
    site.write(shop=HOOKING.replace("VERSION", "2"))
    site.serve()
    report(raised(first))
    assert said == [("process", "1")]
    pending.close()


def test_other_hooks(process_hooks: None, site: Site) -> None:
    """The other hooks of sys are the generation's own as well, and gone with it."""
    site.write(
        shop="import sys\nsys.displayhook = lambda value: said.append(('mine', value))\n"
        "sys.unraisablehook = lambda unraisable: said.append(unraisable.exc_type)\n"
        "sys.breakpointhook = lambda: said.append('break')\n"
        "class Bad:\n    def __del__(self):\n        1 / 0\n"
        "def ask():\n    sys.displayhook(1)\n    breakpoint()\n    Bad()\n"
    )
    call(site.serve(), "shop", "ask")
    assert said == [("mine", 1), "break", ZeroDivisionError]
    said.clear()
    site.close()
    sys.displayhook(2)
    assert said == [("process", 2)]


def test_tracing(site: Site) -> None:
    """A function that traces threads is asked for the threads of its generation only."""
    code = """
        import threading
        def trace(frame, event, arg):
            if frame.f_code.co_name == "traced":
                said.append("VERSION")
        threading.settrace(trace)
        def traced():
            pass
        def ask():
            thread = threading.Thread(target=traced)
            thread.start()
            thread.join()
    """
    site.write(shop=code.replace("VERSION", "1"))
    first = site.serve()
    pending = site.request()
    site.write(shop=code.replace("threading.settrace(trace)", ""))
    second = site.serve()
    call(first, "shop", "ask")
    call(second, "shop", "ask")
    assert said == ["1"]
    pending.close()


def test_record_factory(site: Site) -> None:
    """The factory of log records is the generation's own, and wraps no older one's."""
    code = """
        import logging
        old = logging.getLogRecordFactory()
        def factory(*args, **kwargs):
            record = old(*args, **kwargs)
            record.msg += " VERSION"
            return record
        logging.setLogRecordFactory(factory)
        def ask():
            return logging.getLogger("gw").makeRecord("gw", 20, "f", 1, "said", (), None).msg
    """
    plain = logging.getLogRecordFactory()
    first, second = site.two(shop=code)
    assert call(first, "shop", "ask") == "said 1"
    assert call(second, "shop", "ask") == "said 2"
    site.pending.close()
    site.close()
    assert logging.getLogRecordFactory() is plain


def test_failed_build(process_hooks: None, site: Site) -> None:
    """A failed build's hooks are gone."""
    before = hooks.look()
    site.write(shop=HOOKING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert hooks.look() == before


def test_a_shared_module_s(process_hooks: None, site: Site, tmp_path: Path) -> None:
    """What a shared module sets or adds while it is imported is the process's, and stays."""
    library = """
        import gc, sys
        def hook(kind, error, traceback):
            said.append("library")
        sys.excepthook = hook
        def importer(*_):
            raise ImportError
        sys.path_hooks.append(importer)
        def collected(*_):
            pass
        gc.callbacks.append(collected)
    """
    before = sys.excepthook
    write(tmp_path / "lib", {"hooking_library.py": library})
    sys.path.insert(0, str(tmp_path / "lib"))
    try:
        first, _ = site.two(shop="import hooking_library\n")
        site.pending.close()
        wait_until(lambda: torn_down(first), what="the first generation is torn down")
        module = sys.modules["hooking_library"]
        assert (sys.excepthook, sys.path_hooks[-1], gc.callbacks[-1]) == (
            module.hook, module.importer, module.collected
        )  # fmt: skip
    finally:
        sys.excepthook = before
        sys.path.remove(str(tmp_path / "lib"))
        module = sys.modules.pop("hooking_library")
        sys.path_hooks.remove(module.importer)
        gc.callbacks.remove(module.collected)


def test_a_hook_that_ends_during_a_build(process_hooks: None, site: Site) -> None:
    """A generation that ends while another one is built takes its hooks with it."""
    before = sys.excepthook
    site.write(shop=HOOKING.replace("VERSION", "1"))
    first = site.serve()
    pending = site.request()
    site.write(shop="")
    site.serve()
    site.write(shop="said.pop()()\n")

    def end() -> None:
        pending.close()
        wait_until(lambda: torn_down(first), what="the first generation is torn down")

    said.append(end)
    third = site.serve()
    assert sys.excepthook is before
    assert third.effects.report() == []

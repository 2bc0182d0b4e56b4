from __future__ import annotations

import contextvars
import logging
import logging.config
import textwrap
from collections.abc import Iterator

import pytest

from genwsgi.errors import BuildError
from genwsgi.live import LiveApplication
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, call, torn_down

LOGGING = """
    import logging
    class Ear(logging.Handler):
        def emit(self, record):
            said.append(("VERSION", record.getMessage()))
    log = logging.getLogger("genwsgi_tests_shop")
    log.setLevel("INFO")
    if not log.handlers:
        log.addHandler(Ear())
    def ask(text):
        log.info(text)
"""


def test_no_line_twice(site: Site) -> None:
    """With two generations alive, and after one retired, each record is written once."""
    first, second = site.two(shop=LOGGING)
    logger = logging.getLogger("genwsgi_tests_shop")
    call(first, "shop", "ask", "one")
    call(second, "shop", "ask", "two")
    logger.info("nobody")
    assert said == [("1", "one"), ("2", "two"), ("2", "nobody")]
    said.clear()
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    call(second, "shop", "ask", "three")
    assert said == [("2", "three")]
    assert logger.handlers == []


def test_configuring_disables_no_logger_of_others(site: Site) -> None:
    """``dictConfig`` with its defaults, in a build good or bad, leaves the others' loggers on."""
    configure = """
        import logging.config
        logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
    """
    log = logging.getLogger("genwsgi_tests_shop")
    site.write(shop=LOGGING)
    site.serve()
    level = logging.root.level
    site.write(shop=configure + "    1 / 0\n")
    with pytest.raises(BuildError):
        site.build()
    assert (log.disabled, log.disabled) == (False, False)
    assert logging.root.level == level
    site.write(shop=configure)
    site.serve()
    assert (log.disabled, log.disabled) == (False, False)
    logging.root.setLevel(level)


def test_handlers_are_a_list_of_its_own(site: Site) -> None:
    """Whatever a generation does to a logger's list, others and the process don't notice."""
    logger = logging.getLogger("genwsgi_tests_shop")
    mine = logging.NullHandler()
    logger.addHandler(mine)
    try:
        first, second = site.two(
            shop="import logging\nlog = logging.getLogger('genwsgi_tests_shop')\n"
            "seen = list(log.handlers)\nif VERSION == 1:\n    log.handlers.clear()\n"
            "else:\n    log.handlers = [logging.NullHandler()]\n"
            "def ask():\n    return list(log.handlers)\n"
        )
        for generation in (first, second):
            assert generation.modules.modules["shop"].seen == [mine]
        assert call(first, "shop", "ask") == []
        assert len(call(second, "shop", "ask")) == 1
        assert logger.handlers == [mine]
    finally:
        logger.removeHandler(mine)


def test_list_follows_the_process(site: Site) -> None:
    """A handler that the process adds later is heard by generations that have none of their own."""
    site.write(shop="import logging\ndef ask():\n    return logging.getLogger('gw.x').handlers\n")
    generation = site.serve()
    assert call(generation, "shop", "ask") == []
    later = logging.NullHandler()
    logging.getLogger("gw.x").addHandler(later)
    assert call(generation, "shop", "ask") == [later]
    logging.getLogger("gw.x").removeHandler(later)


def test_handlers_are_closed(told: list[str], site: Site) -> None:
    """A retired generation's handlers are closed, and one that raises then stops nothing."""
    first, _ = site.two(
        shop="import logging\nclass Bad(logging.NullHandler):\n    def close(self):\n"
        "        super().close()\n        said.append('closed')\n        raise OSError\n"
        "logging.getLogger('gw.y').addHandler(Bad())\n"
    )
    site.pending.close()
    wait_until(lambda: said, what="the handler is closed")
    wait_until(lambda: torn_down(first), what="the generation is torn down")


FILTERING = """
    import logging
    log = logging.getLogger("genwsgi_tests_shop")
    log.setLevel("INFO")
    class Mark(logging.Filter):
        def filter(self, record):
            record.msg = f"{record.msg} VERSION"
            return "hush" not in record.msg
    log.addFilter(Mark())
    for handler in log.handlers:
        handler.addFilter(Mark())
    def ask(text):
        log.info(text)
"""


class Ear(logging.Handler):
    """Hears what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        said.append(record.getMessage())


@pytest.fixture
def ear() -> Iterator[Ear]:
    """The process's own handler, with a filter of its own."""
    logger = logging.getLogger("genwsgi_tests_shop")
    made = Ear()
    made.addFilter(lambda record: "secret" not in record.msg)
    logger.addHandler(made)
    yield made
    logger.removeHandler(made)
    assert (logger.filters, len(made.filters)) == ([], 1)


def test_filters(ear: Ear, site: Site) -> None:
    """Filters of loggers and of handlers of the process are each generation's own."""
    first, second = site.two(shop=FILTERING)
    call(first, "shop", "ask", "one")
    call(second, "shop", "ask", "two")
    call(second, "shop", "ask", "hush")
    call(second, "shop", "ask", "secret")
    ear.handle(logging.makeLogRecord({"msg": "nobody"}))
    assert said == ["one 1 1", "two 2 2", "nobody"]
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    said.clear()
    call(second, "shop", "ask", "three")
    assert said == ["three 2 2"]
    site.write(shop=FILTERING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()


def test_filters_of_a_handler_of_its_own(site: Site) -> None:
    """A handler that a generation has made has its filters everywhere."""
    site.write(
        shop="import logging\nhandler = logging.NullHandler()\n"
        "handler.addFilter(lambda record: False)\nhandler.filters = list(handler.filters)\n"
    )
    handler = site.serve().modules.modules["shop"].handler
    assert len(handler.filters) == 1


def test_a_hundred_deploys(site: Site) -> None:
    """After 100 deploys a line is written once, and the process has no handler more."""
    configure = """
        import logging, logging.config, sys, warnings
        from io import StringIO
        stream = StringIO()
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"out": {"class": "logging.StreamHandler", "stream": stream}},
            "root": {"handlers": ["out"], "level": "INFO"},
            "loggers": {"shop": {"level": "INFO"}},
        })
        logging.getLogger().addHandler(logging.StreamHandler(stream))
        logging.captureWarnings(True)
        logging.addLevelName(25, "NOTE")
        old = logging.getLogRecordFactory()
        def factory(*args, **kwargs):
            record = old(*args, **kwargs)
            record.msg = f"{record.msg}."
            return record
        logging.setLogRecordFactory(factory)
        def ask():
            logging.getLogger("shop").info("line")
            # The janitor's own lines come by the same handlers, whenever they come.
            return [text for text in stream.getvalue().split() if text == "line."]
    """
    level = logging.root.level
    known = len(logging._handlerList)  # type: ignore[attr-defined]
    try:
        for version in range(100):
            site.write(shop=configure + f"    VERSION = {version}\n")
            generation = site.serve()
        assert call(generation, "shop", "ask") == ["line.", "line."]
        wait_until(lambda: not site.live.draining(), what="older ones have retired")
        wait_until(
            lambda: len(logging._handlerList) <= known + 4,  # type: ignore[attr-defined]
            what="handlers of older ones are gone",
        )
        assert logging._warnings_showwarning is not None  # type: ignore[attr-defined]
        site.close()
        assert logging._warnings_showwarning is None  # type: ignore[attr-defined]
    finally:
        logging.root.setLevel(level)
        logging._levelToName.pop(25, None)
        logging._nameToLevel.pop("NOTE", None)


def test_configuring_closes_no_handler_of_others(site: Site) -> None:
    """``dictConfig`` closes handlers of that generation only; another's name stays its own."""
    code = """
        import logging, logging.config
        class Closed(logging.NullHandler):
            def close(self):
                super().close()
                said.append(VERSION)
        early = Closed()
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"null": {"()": Closed}},
            "loggers": {"gw.named": {"handlers": ["null"]}},
        })
    """
    first, second = site.two(shop=code)
    assert said == [1, 2]
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert said == [1, 2, 1, 1]
    (handler,) = second.run(lambda: logging.getLogger("gw.named").handlers)
    assert logging._handlers["null"] is handler  # type: ignore[attr-defined]


def test_process_configures(site: Site) -> None:
    """The process's own configuration is done as ever while generations are there."""
    site.write(shop="import logging.config\n")
    site.serve()
    root = logging.root
    before, level = list(root.handlers), root.level
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    root.handlers[:] = before
    root.setLevel(level)


def test_logger_class(site: Site) -> None:
    """A generation's logger class is its own; loggers made of it go on to the next, then back."""
    code = """
        import logging
        class Talking(logging.getLoggerClass()):
            def note(self, text):
                said.append((VERSION, text))
        logging.setLoggerClass(Talking)
        log = logging.getLogger("gw.talking")
        def ask():
            logging.getLogger("gw.talking").note("hello")
            return logging.getLoggerClass() is Talking
    """
    site.write(shop=code.replace("VERSION", "1"))
    first = site.serve()
    assert call(first, "shop", "ask")
    site.write(shop=code.replace("VERSION", "2"))
    second = site.serve()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "ask")
    assert said == [(1, "hello"), (2, "hello")]
    assert logging.getLoggerClass() is logging.Logger
    site.close()
    assert type(logging.getLogger("gw.talking")) is logging.Logger
    plain = """
        import logging
        logging.setLoggerClass(int)
    """
    site.live = LiveApplication(site.target, site.store)
    site.write(shop=plain)
    with pytest.raises(BuildError, match="TypeError"):
        site.build()


def test_on_a_thread_of_others(site: Site) -> None:
    """A record belongs to whose code logs it, also on a thread of another generation."""
    code = (
        LOGGING
        + """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        pool.submit(len, ()).result()
    """
    )
    first, second = site.two(shop=textwrap.dedent(LOGGING) + textwrap.dedent(code[len(LOGGING) :]))
    pool = first.modules.modules["shop"].pool
    pool.submit(second.modules.modules["shop"].ask, "mine").result()
    assert said == [("2", "mine")]
    pool.shutdown()
    second.modules.modules["shop"].pool.shutdown()


def test_capture_is_taken_back(site: Site) -> None:
    """A generation that captures warnings no longer does not, unless another one does."""
    site.write(
        shop="import logging\nlogging.captureWarnings(True)\nlogging.captureWarnings(True)\n"
        "def ask():\n    logging.captureWarnings(False)\n    logging.captureWarnings(False)\n"
    )
    generation = site.serve()
    assert logging._warnings_showwarning is not None  # type: ignore[attr-defined]
    call(generation, "shop", "ask")
    assert logging._warnings_showwarning is None  # type: ignore[attr-defined]
    logging.captureWarnings(False)


def test_outside_of_any_context(site: Site) -> None:
    """Code that runs in no context, as in a bare greenlet, logs for the generation it is of."""
    first, second = site.two(shop=LOGGING)
    for generation in (first, second):
        contextvars.Context().run(generation.modules.modules["shop"].ask, "here")
    assert said == [("1", "here"), ("2", "here")]
